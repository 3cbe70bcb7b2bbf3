// node serve.mjs BUNDLE [PORT]: this folder, and the bundle under /bundle, on loopback.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const here = fileURLToPath(new URL(".", import.meta.url));
const [bundle, port = "8000"] = process.argv.slice(2);
if (!bundle) {
  console.error("usage: node serve.mjs BUNDLE [PORT]");
  process.exit(2);
}

const server = createServer(async (request, response) => {
  const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  const [root, rest] = path.startsWith("/bundle/") ? [bundle, path.slice(8)] : [here, path.slice(1) || "index.html"];
  const file = join(root, rest);
  const found = normalize(file).startsWith(normalize(join(root, sep))) && (await stat(file).catch(() => null));
  if (!found || !found.isFile()) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, {
    "Content-Length": found.size,
    "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
    // With these two a browser lets WebAssembly use several threads.
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
  });
  createReadStream(file).pipe(response);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
