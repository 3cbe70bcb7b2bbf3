// node ask.mjs BUNDLE QUESTION [MOST NEW TOKENS] [PICTURE.ppm]: an answer, and its tokens as JSON in the last line.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { Bundle } from "./bundle.js";

const [folder, question, most = "64", file] = process.argv.slice(2);
if (!folder || !question) {
  console.error("usage: node ask.mjs BUNDLE QUESTION [MOST NEW TOKENS] [PICTURE.ppm]");
  process.exit(2);
}
const options = { maxNewTokens: Number(most) };
const bundle = await Bundle.open((name) => readFile(join(folder, name)));
const picture = file && portablePixmap(await readFile(file));
for await (const piece of bundle.ask(question, { picture, ...options })) process.stdout.write(piece);
const prompt = picture
  ? await bundle.encodePicture(question, picture)
  : bundle.encode([{ role: "user", content: question }]);
const tokens = [];
for await (const token of bundle.generate(prompt, options)) tokens.push(token);
console.log(`\n${JSON.stringify({ tokens })}`);

/** Raw pixels, as Node has no decoder of pictures: `convert photo.jpg photo.ppm` writes such a file. */
function portablePixmap(bytes) {
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 64).toString("latin1"));
  if (!header) throw new Error("The picture is no binary PPM with a byte for each colour.");
  const [width, height] = [Number(header[1]), Number(header[2])];
  return { pixels: new Uint8Array(bytes.subarray(header[0].length)), width, height };
}
