// Runs an exported bundle with ONNX Runtime Web, in a browser or in Node: the same files that Python runs, unchanged.

import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-web";

import { choice, softWords } from "./pictures.js";

const FORMAT = 4; // the newest format of bundles that this code reads

/** An opened bundle. `read(name)` gives a file's bytes: over HTTP in a browser, from a disk in Node. */
export class Bundle {
  #checked;
  #weights;
  #sessions = {};
  #tokenizer;
  #template;
  #special;
  #stops;

  constructor(manifest, checked, weights, tokenizer, template, special, stops) {
    this.manifest = manifest;
    this.#checked = checked;
    this.#weights = weights;
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.#special = special;
    this.#stops = stops;
  }

  /** Opens a bundle; a file that is not the one that was exported is refused. */
  static async open(read, { told = () => {} } = {}) {
    const manifest = parsed(await read("manifest.json"));
    if (!(manifest.format >= 1 && manifest.format <= FORMAT)) {
      throw new Error(`This bundle has format ${manifest.format}; 1 to ${FORMAT} are read.`);
    }
    const checked = async (name) => {
      told(`reading ${name}`);
      const bytes = await read(name);
      const entry = manifest.files[name];
      if (!entry || bytes.byteLength !== entry.size || (await sha256(bytes)) !== entry.sha256) {
        throw new Error(`${name} is not the file that was exported.`);
      }
      return bytes;
    };
    const graph = manifest.graphs.decoder;
    const [tokens, settings, ends] = [
      parsed(await checked("tokenizer.json")),
      parsed(await checked("tokenizer_config.json")),
      parsed(await checked("genai_config.json")).model.eos_token_id,
    ];
    const source =
      settings.chat_template ?? new TextDecoder().decode(await checked("chat_template.jinja"));
    const weights = [`${graph}_data`, `${graph}.data`].find((name) => name in manifest.files);
    const shared = weights ? [{ path: weights, data: await checked(weights) }] : [];
    const special = tokens.added_tokens.filter((token) => token.special).map((token) => token.content);
    const parts = [new Tokenizer(tokens, settings), new Template(source), special, new Set(ends)];
    const bundle = new Bundle(manifest, checked, shared, ...parts);
    await bundle.#decoder("decoder");
    return bundle;
  }

  /** Whether it sees. */
  get readsPictures() {
    return "image" in (this.manifest.media ?? {});
  }

  /** Token ids of a conversation: [{ role, content }]. */
  encode(messages) {
    const control = this.#special.find((text) => messages.some((message) => message.content.includes(text)));
    if (control) throw new Error(`A message contains the control token ${control}.`);
    return this.#rendered(messages);
  }

  /** A question about a picture { pixels, width, height }: its embeddings, one for each position. */
  async encodePicture(question, { pixels, width, height }) {
    this.encode([{ role: "user", content: question }]); // refuses control tokens
    const { placeholder, details, limits } = this.manifest.media.image;
    if (width * height > limits.pixels || Math.max(width, height) > limits.side) {
      throw new Error(`A picture of ${width} x ${height} pixels is too large: ${limits.pixels} pixels are read.`);
    }
    if (pixels.length !== 3 * width * height) throw new Error(`${pixels.length} bytes are no ${width} x ${height} pixels.`);
    const image = await this.#session("image");
    const found = await image.run({ pixels: new ort.Tensor("uint8", pixels, [height, width, 3]) });
    const reading = Object.fromEntries(Object.entries(found).map(([name, tensor]) => [name, tensor.data]));
    const embed = (ids) => this.#embedded(ids);
    const seen = await softWords(choice(reading), parsed(await this.#checked(details)), embed);
    const layout = `(An image that shows:${placeholder.repeat(seen.length)})`;
    const ids = this.#rendered([{ role: "user", content: question + layout }]);
    const place = this.#tokenizer.encode(placeholder, { add_special_tokens: false }).ids[0];
    const rows = await embed(ids.map((id) => (id === place ? 0 : id)));
    ids.forEach((id, at) => {
      if (id === place) rows[at] = seen.shift();
    });
    return rows;
  }

  /** Token ids of the answer, the likeliest each time, to what `encode` or `encodePicture` gave. */
  async *generate(prompt, { maxNewTokens = 128 } = {}) {
    const { context_length: longest } = this.manifest.decoder;
    if (prompt.length + maxNewTokens > longest) {
      throw new Error(`${prompt.length} tokens and ${maxNewTokens} new ones do not fit ${longest}.`);
    }
    const seeing = typeof prompt[0] !== "number";
    const session = await this.#decoder(seeing ? "media-decoder" : "decoder");
    let past = this.#empty();
    let read = 0;
    let next = prompt;
    for (let made = 0; made < maxNewTokens; made++) {
      read += next.length;
      const outputs = await session.run({
        ...(seeing ? this.#embeddings(next) : { input_ids: whole(next) }),
        attention_mask: whole(new Array(read).fill(1)),
        ...past,
      });
      Object.values(past).forEach((tensor) => tensor.dispose());
      past = {};
      for (const [name, tensor] of Object.entries(outputs)) {
        if (name !== "logits") past[name.replace("present", "past_key_values")] = tensor;
      }
      const token = likeliest(outputs.logits);
      if (this.#stops.has(token)) return;
      yield token;
      next = seeing ? await this.#embedded([token]) : [token];
    }
  }

  /** The text of an answer, in pieces that never split a character; about a picture, if there is one. */
  async *ask(question, { picture = null, ...options } = {}) {
    const messages = typeof question === "string" ? [{ role: "user", content: question }] : question;
    const prompt = picture ? await this.encodePicture(question, picture) : this.encode(messages);
    const made = [];
    let [text, shown] = ["", 0];
    for await (const token of this.generate(prompt, options)) {
      made.push(token);
      text = this.#tokenizer.decode(made, { skip_special_tokens: true });
      if (text.endsWith("\ufffd")) continue; // a character whose last byte has not come yet
      yield text.slice(shown);
      shown = text.length;
    }
    yield text.slice(shown);
  }

  #rendered(messages) {
    const text = this.#template.render({ messages, add_generation_prompt: true });
    return this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** The decoder of texts or of embeddings; only one of them is in memory. */
  async #decoder(role) {
    const other = role === "decoder" ? "media-decoder" : "decoder";
    await this.#sessions[other]?.release();
    delete this.#sessions[other];
    return this.#session(role);
  }

  async #session(role) {
    this.#sessions[role] ??= await ort.InferenceSession.create(await this.#checked(this.manifest.graphs[role]), {
      executionProviders: ["wasm"],
      externalData: this.#weights,
    });
    return this.#sessions[role];
  }

  /** The decoder's embeddings of tokens, one row each. */
  async #embedded(ids) {
    const table = await this.#session("embedding");
    const { data, dims } = (await table.run({ input_ids: whole(ids) })).inputs_embeds;
    return ids.map((_, at) => data.subarray(at * dims[2], (at + 1) * dims[2]));
  }

  #embeddings(rows) {
    const flat = new Float32Array(rows.length * rows[0].length);
    rows.forEach((row, at) => flat.set(row, at * row.length));
    const inputs = { inputs_embeds: new ort.Tensor("float32", flat, [1, rows.length, rows[0].length]) };
    // Prompts with media are read with the adapter that was trained for them.
    if (this.manifest.adapter) inputs.adapter_scale = new ort.Tensor("float32", [1], [1]);
    return inputs;
  }

  #empty() {
    const { layers, kv_heads: heads, head_size: size, cache_bits: bits = 32 } = this.manifest.decoder;
    const [type, numbers] = bits === 8 ? ["int8", Int8Array] : ["float32", Float32Array];
    const past = {};
    for (let layer = 0; layer < layers; layer++) {
      for (const part of ["key", "value"]) {
        past[`past_key_values.${layer}.${part}`] = new ort.Tensor(type, new numbers(0), [1, heads, 0, size]);
      }
    }
    return past;
  }
}

function likeliest(logits) {
  const size = logits.dims.at(-1);
  const last = logits.data.subarray(logits.data.length - size);
  let best = 0;
  for (let token = 1; token < size; token++) if (last[token] > last[best]) best = token;
  return best;
}

function whole(numbers) {
  return new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
}

function parsed(bytes) {
  return JSON.parse(new TextDecoder().decode(bytes));
}

async function sha256(bytes) {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
