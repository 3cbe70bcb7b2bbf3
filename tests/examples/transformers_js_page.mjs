// node transformers_js_page.mjs MODULES CHROMIUM ADDRESS QUESTION MOST: the tokens that transformers.js gives in a
// browser, of a bundle for the web, which says itself how its files lie.

import { createRequire } from "node:module";

const [modules, chromium, address, question, most] = process.argv.slice(2);
const { chromium: browsers } = createRequire(`${modules}/`)("playwright-core");
const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];
const browser = await browsers.launch({ executablePath: chromium, args });
try {
  const page = await browser.newPage();
  await page.goto(address);
  const run = async ([question, most]) => {
    // The modules that its own page would have bundled.
    const found = async (path) => ((await fetch(path, { method: "HEAD" })).ok ? path : null);
    const own = "/node_modules/@huggingface/transformers/node_modules";
    const place = async (path) => (await found(`${own}/${path}`)) ?? `/node_modules/${path}`;
    const runtime = await place("onnxruntime-web/dist/ort.webgpu.bundle.min.mjs");
    const imports = {
      "onnxruntime-web/webgpu": runtime,
      "onnxruntime-common": await place("onnxruntime-common/dist/esm/index.js"),
    };
    const map = Object.assign(document.createElement("script"), { type: "importmap" });
    map.textContent = JSON.stringify({ imports });
    document.head.append(map);
    const library = "/node_modules/@huggingface/transformers/dist/transformers.web.js";
    const { AutoModelForCausalLM, AutoTokenizer, env } = await import(library);
    env.allowRemoteModels = false;
    env.allowLocalModels = true;
    env.localModelPath = "/";
    env.useBrowserCache = false;
    env.backends.onnx.wasm.wasmPaths = runtime.slice(0, runtime.lastIndexOf("/") + 1);
    const tokenizer = await AutoTokenizer.from_pretrained("bundle");
    const model = await AutoModelForCausalLM.from_pretrained("bundle", { subfolder: "" });
    const messages = [{ role: "user", content: question }];
    const inputs = tokenizer.apply_chat_template(messages, { add_generation_prompt: true, return_dict: true });
    const outputs = await model.generate({ ...inputs, max_new_tokens: most, do_sample: false });
    return outputs.slice(null, [inputs.input_ids.dims[1], null]).tolist().flat().map(Number);
  };
  console.log(JSON.stringify(await page.evaluate(run, [question, Number(most)])));
} finally {
  await browser.close();
}
