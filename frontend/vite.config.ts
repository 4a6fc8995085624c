import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

/** Puts a brotli and a gzip form beside every asset, so that the server compresses nothing. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    // Once all is written: other plugins change the code until the very end.
    async writeBundle({ dir }, bundle) {
      const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } };
      const compress = async ({ fileName }: { fileName: string }) => {
        const path = join(dir ?? "", fileName);
        const data = await readFile(path);
        if (data.length < 1024 || fileName.endsWith(".html")) return;
        await writeFile(`${path}.br`, await promisify(brotliCompress)(data, quality));
        await writeFile(`${path}.gz`, await promisify(gzip)(data, { level: 9 }));
      };
      await Promise.all(Object.values(bundle).map(compress));
    },
  };
}

/** Puts ReDoc's bundle right. The build fails when one of the changes no longer fits. */
function redoc(): Plugin {
  const changes = {
    // Its makers' logo is on their server.
    "https://cdn.redoc.ly/redoc/logo-mini.svg": "data:,",
    // Styles that it makes while it loads, before it knows its option `nonce`.
    "r.nc=void 0": `r.nc=document.querySelector('meta[property="csp-nonce"]')?.nonce`,
    // A module that is not there.
    'require("null")': "{}",
  };
  return {
    name: "redoc",
    transform: {
      filter: { id: /redoc\.standalone\.js$/ },
      handler(code) {
        for (const [from, to] of Object.entries(changes)) {
          if (!code.includes(from)) this.error(`ReDoc has changed: no ${from}`);
          code = code.replaceAll(from, to);
        }
        return { code, map: null };
      },
    },
  };
}

export default defineConfig({
  plugins: [redoc(), compressed()],
  html: { cspNonce: "__NONCE__" },
  build: {
    outDir: process.env.PAGE_OUT ?? "../realtime/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    rolldownOptions: { input: ["index.html", "docs.html", "redoc.html", "oauth2-redirect.html"] },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
