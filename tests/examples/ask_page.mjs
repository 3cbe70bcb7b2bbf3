// node ask_page.mjs MODULES CHROMIUM ADDRESS QUESTION [PICTURE]: what the page answers, and what it told, as JSON.

import { createRequire } from "node:module";

const [modules, chromium, address, question, picture] = process.argv.slice(2);
const { chromium: browsers } = createRequire(`${modules}/`)("playwright-core");
const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];
const browser = await browsers.launch({ executablePath: chromium, args });
try {
  const page = await browser.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  await page.goto(address);
  const status = page.locator("[role=status]");
  await page.waitForFunction(() => /ready|Error/.test(document.querySelector("[role=status]").textContent), null, {
    timeout: 120_000,
  });
  const opened = await status.textContent();
  let [answer, tokens] = [null, null];
  if (opened.includes("ready")) {
    await page.fill("[name=question]", question);
    if (picture) await page.setInputFiles("[name=picture]", picture);
    await page.click("button");
    await page.waitForFunction(() => !document.querySelector("button").disabled, null, { timeout: 240_000 });
    answer = await page.locator("output").textContent();
    tokens = await page.evaluate(async (question) => {
      const { Bundle } = await import("./bundle.js");
      const read = async (name) => new Uint8Array(await (await fetch(`bundle/${name}`)).arrayBuffer());
      const bundle = await Bundle.open(read);
      const made = [];
      const [file] = document.querySelector("[name=picture]").files;
      const { pixelsOf } = await import("./pictures.js");
      const prompt = file
        ? await bundle.encodePicture(question, await pixelsOf(file))
        : bundle.encode([{ role: "user", content: question }]);
      for await (const token of bundle.generate(prompt, { maxNewTokens: 24 })) made.push(token);
      return made;
    }, question);
  }
  console.log(JSON.stringify({ opened, answer, tokens, told: await status.textContent(), wrong }));
} finally {
  await browser.close();
}
