// A picture as soft words: what the picture graph's probabilities say, as embeddings that the decoder reads. The same as
// Python's fusion/connectors/picture_choice.py and mobile_export/media/soft_words.py.

const SHOWN = 3; // names of a photo or drawing
const LEAST = 1e-3; // words less likely than this are left out

/** Raw pixels of a file that the browser can show: { pixels, width, height }, three bytes a pixel. */
export async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { pixels: Uint8Array.from({ length: width * height * 3 }, (_, at) => data[at + Math.floor(at / 3)]), width, height };
}

/** What is told of a picture: names of lists, each with probabilities of its words. */
export function choice(reading) {
  const sure = ["label", "name", "shape"].map((name) => Math.max(...reading[name]));
  const kind = shares(reading.kind.map((probability, number) => Math.sqrt(probability) * sure[number]));
  const likeliest = largest(kind);
  if (likeliest === 2) return [["kind", kind], ["colour", reading.colour], ["shape", reading.shape]];
  const names = ["label", "name"][likeliest];
  const words = [["kind", kind]];
  const left = reading[names].slice();
  for (let shown = 0; shown < SHOWN; shown++) {
    words.push([names, left.slice()]);
    left[largest(left)] = 0;
  }
  return words;
}

/** Embeddings of such words, with a comma between two of the same list. `embed(ids)` gives those of tokens. */
export async function softWords(words, { lists, comma }, embed) {
  const rows = [];
  let before = null;
  for (const [name, probabilities] of words) {
    if (name === before) rows.push(...(await embed(comma)));
    rows.push(...(await mixed(lists[name], probabilities, embed)));
    before = name;
  }
  return rows;
}

/** The j-th embedding is the mean of the j-th tokens of all words that are so long. */
async function mixed(spelled, probabilities, embed) {
  const sharp = shares(probabilities.map((probability) => probability ** 3));
  const likely = [...sharp.keys()].filter((word) => sharp[word] >= LEAST);
  const rows = await embed(likely.flatMap((word) => spelled[word]));
  const [sums, mass] = [[], []];
  let at = 0;
  for (const word of likely) {
    for (let place = 0; place < spelled[word].length; place++) {
      sums[place] ??= new Float64Array(rows[at].length);
      mass[place] = (mass[place] ?? 0) + sharp[word];
      rows[at++].forEach((value, column) => (sums[place][column] += sharp[word] * value));
    }
  }
  const kept = Math.max(1, mass.filter((share) => share >= 0.5).length);
  return sums.slice(0, kept).map((sum, place) => Float32Array.from(sum, (value) => value / mass[place]));
}

function shares(values) {
  const total = values.reduce((sum, value) => sum + value, 0);
  return values.map((value) => value / total);
}

function largest(values) {
  return values.reduce((best, value, place) => (value > values[best] ? place : best), 0);
}
