/** Makes src/types.ts of the JSON schemas on standard input; with --check it compares only. */
import { readFileSync, writeFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";

const path = new URL("src/types.ts", import.meta.url);
let given = "";
for await (const piece of process.stdin.setEncoding("utf8")) given += piece;
const schema = JSON.parse(given);
const text = await compile(schema, "Schemas", {
  bannerComment: "// Made by `make types` from the server's own descriptions. Not to be edited.",
  additionalProperties: false,
  format: true,
  unreachableDefinitions: true,
});
if (!process.argv.includes("--check")) {
  writeFileSync(path, text);
} else if (readFileSync(path, "utf8") !== text) {
  console.error("frontend/src/types.ts is stale: run make types");
  process.exit(1);
}
