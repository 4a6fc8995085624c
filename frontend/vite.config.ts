import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

/** Puts a brotli and a gzip form beside every asset, so that the server compresses nothing. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    // Once all is written: other plugins change the code until the very end.
    writeBundle({ dir }, bundle) {
      for (const { fileName } of Object.values(bundle)) {
        const path = join(dir ?? "", fileName);
        const data = readFileSync(path);
        if (data.length < 1024 || fileName.endsWith(".html")) continue;
        const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } };
        writeFileSync(`${path}.br`, brotliCompressSync(data, quality));
        writeFileSync(`${path}.gz`, gzipSync(data, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [compressed()],
  build: {
    outDir: process.env.PAGE_OUT ?? "../realtime/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
  test: { include: ["tests/**/*.test.ts"] },
});
