// node transformers_js.mjs MODULES BUNDLE QUESTION MOST: the tokens that transformers.js gives with a bundle as it is.

import { createRequire } from "node:module";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, bundle, question, most] = process.argv.slice(2);
const found = createRequire(`${modules}/`).resolve("@huggingface/transformers");
const { AutoModelForCausalLM, AutoTokenizer, env } = await import(pathToFileURL(found));
env.allowRemoteModels = false;
env.localModelPath = dirname(bundle);
const options = { subfolder: "", model_file_name: "model", dtype: "fp32", device: "cpu", use_external_data_format: true };
const tokenizer = await AutoTokenizer.from_pretrained(basename(bundle));
const model = await AutoModelForCausalLM.from_pretrained(basename(bundle), options);
const messages = [{ role: "user", content: question }];
const inputs = tokenizer.apply_chat_template(messages, { add_generation_prompt: true, return_dict: true });
const outputs = await model.generate({ ...inputs, max_new_tokens: Number(most), do_sample: false });
const made = outputs.slice(null, [inputs.input_ids.dims[1], null]);
console.log(JSON.stringify(made.tolist().flat().map(Number)));
