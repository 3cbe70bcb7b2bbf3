// Runs an exported bundle with ONNX Runtime Web, in a browser or in Node: the same files that Python runs, unchanged.

import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-web";

const FORMAT = 3; // the newest format of bundles that this code reads

/** An opened bundle. `read(name)` gives a file's bytes: over HTTP in a browser, from a disk in Node. */
export class Bundle {
  #session;
  #tokenizer;
  #template;
  #special;
  #stops;

  constructor(manifest, session, tokenizer, template, special, stops) {
    this.manifest = manifest;
    this.#session = session;
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
    const session = await ort.InferenceSession.create(await checked(graph), {
      executionProviders: ["wasm"],
      externalData: weights ? [{ path: weights, data: await checked(weights) }] : [],
    });
    const special = tokens.added_tokens.filter((token) => token.special).map((token) => token.content);
    return new Bundle(manifest, session, new Tokenizer(tokens, settings), new Template(source), special, new Set(ends));
  }

  /** Token ids of a conversation: [{ role, content }]. */
  encode(messages) {
    const control = this.#special.find((text) => messages.some((message) => message.content.includes(text)));
    if (control) throw new Error(`A message contains the control token ${control}.`);
    const text = this.#template.render({ messages, add_generation_prompt: true });
    return this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** Token ids of the answer, the likeliest each time. */
  async *generate(ids, { maxNewTokens = 128 } = {}) {
    const { context_length: longest } = this.manifest.decoder;
    if (ids.length + maxNewTokens > longest) {
      throw new Error(`${ids.length} tokens and ${maxNewTokens} new ones do not fit ${longest}.`);
    }
    let past = this.#empty();
    let read = 0;
    let next = ids;
    for (let made = 0; made < maxNewTokens; made++) {
      read += next.length;
      const outputs = await this.#session.run({
        input_ids: whole(next),
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
      next = [token];
    }
  }

  /** The text of an answer, in pieces that never split a character. */
  async *ask(question, options) {
    const messages = typeof question === "string" ? [{ role: "user", content: question }] : question;
    const made = [];
    let [text, shown] = ["", 0];
    for await (const token of this.generate(this.encode(messages), options)) {
      made.push(token);
      text = this.#tokenizer.decode(made, { skip_special_tokens: true });
      if (text.endsWith("\ufffd")) continue; // a character whose last byte has not come yet
      yield text.slice(shown);
      shown = text.length;
    }
    yield text.slice(shown);
  }

  #empty() {
    const { layers, kv_heads: heads, head_size: size } = this.manifest.decoder;
    const past = {};
    for (let layer = 0; layer < layers; layer++) {
      for (const part of ["key", "value"]) {
        past[`past_key_values.${layer}.${part}`] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, size]);
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
