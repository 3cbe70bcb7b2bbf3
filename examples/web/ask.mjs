// node ask.mjs BUNDLE QUESTION [MOST NEW TOKENS]: an answer, and its tokens as JSON in the last line.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { Bundle } from "./bundle.js";

const [folder, question, most = "64"] = process.argv.slice(2);
if (!folder || !question) {
  console.error("usage: node ask.mjs BUNDLE QUESTION [MOST NEW TOKENS]");
  process.exit(2);
}
const options = { maxNewTokens: Number(most) };
const bundle = await Bundle.open((name) => readFile(join(folder, name)));
for await (const piece of bundle.ask(question, options)) process.stdout.write(piece);
const tokens = [];
for await (const token of bundle.generate(bundle.encode([{ role: "user", content: question }]), options)) {
  tokens.push(token);
}
console.log(`\n${JSON.stringify({ tokens })}`);
