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
        if (data.length < 1024 || !fileName.startsWith("assets/")) return;
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

/** Adds to the licences those of what the references of the API were bundled with by their makers. */
function bundledLicences(): Plugin {
  const files = [
    "redoc/bundles/redoc.standalone.js.LICENSE.txt",
    "swagger-ui-dist/NOTICE",
    "swagger-ui-dist/swagger-ui-bundle.js.LICENSE.txt",
  ];
  return {
    name: "bundled-licences",
    apply: "build",
    async generateBundle() {
      for (const file of files) {
        const source = await readFile(join(import.meta.dirname, "node_modules", file));
        this.emitFile({ type: "asset", fileName: `licences/${file.replaceAll("/", "-")}`, source });
      }
    },
  };
}

/** Fills in the placeholders of the documents, as the server does. */
function placeholders(): Plugin {
  return {
    name: "placeholders",
    apply: "serve",
    transformIndexHtml: (html) => html.replaceAll("__ROOT__", ""),
  };
}

const PAGE = "(n|new|deleted|account|people|invite)?([/?]|$)";
const SOURCES = String.raw`src/|@|node_modules/|icon\.svg|index\.html`;
/** Requests that the development server proxies: all except those for the page, its sources and Vite itself. */
const API = `^/(?!${PAGE}|${SOURCES})`;

export default defineConfig({
  plugins: [redoc(), bundledLicences(), compressed(), placeholders()],
  server: {
    host: "127.0.0.1",
    port: 5173,
    proxy: { [API]: { target: process.env.REALTIME_URL ?? "http://127.0.0.1:8000", ws: true } },
  },
  html: { cspNonce: "__NONCE__" },
  // The server puts its path prefix into a document when it serves it; all else is found relative to its importer.
  experimental: {
    renderBuiltUrl: (file, { hostType }) => (hostType === "html" ? `__ROOT__/${file}` : { relative: true }),
  },
  build: {
    outDir: process.env.PAGE_OUT ?? "../realtime/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    license: { fileName: "licences/licences.md" },
    rolldownOptions: { input: ["index.html", "docs.html", "redoc.html", "oauth2-redirect.html"] },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
