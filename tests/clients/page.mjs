// What a visitor does, and what must hold meanwhile: no error in the console, nothing asked of another host, nothing that axe finds.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const { MODULES, OPEN, KEYED, API_KEY, ARCHIVE, FOLDER, PICTURES } = process.env;
const require = createRequire(join(MODULES, "node_modules/"));
const { chromium } = require("playwright-core");
const axe = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });

/** A visitor's tab. Failures that a step provokes are named by their status in `expected`. */
async function visitor(server, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const errors = [];
  const expected = new Set();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && ![...expected].some((status) => message.text().includes(`status of ${status}`))) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${server}/`)) errors.push(`asked for ${request.url()}`);
  });
  return { page, errors, expected, context };
}

/** What axe finds on the page, as one text. */
async function faults(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.failureSummary}`).join(" | ")}`).join("\n");
}

const done = (what) => console.log(`ok  ${what}`);
const picture = (page, name, options) => PICTURES && page.screenshot({ path: join(PICTURES, `${name}.png`), ...options });

/** Runs what the form says and waits for all answers. */
async function run(page) {
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.waitForFunction(() => document.querySelector(".answer") && !document.querySelector(".answer[aria-busy=true]"));
  assert.deepEqual(await page.locator("#answers .failure").allTextContents(), []);
}

/** Drops files of this machine on the page, as a file manager does. */
async function drop(page, ...files) {
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) await session.send("Input.dispatchDragEvent", { type, x: 640, y: 450, data });
}

const probabilities = (page) => page.locator("[data-probability]").evaluateAll((all) => all.map((one) => Number(one.dataset.probability)));

async function answers() {
  const { page, errors } = await visitor(OPEN);
  const sizes = [];
  page.on("response", async (response) => sizes.push(response.body().then((body) => body.length)));
  await page.goto(`${OPEN}/#sst2`);
  await page.getByLabel("sentence").fill("a warm , funny and moving film .");
  const weight = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  assert(weight < 100_000, `the page weighs ${weight} bytes`);
  done(`the page weighs ${weight} bytes, the list of adapters included`);

  await run(page);
  assert.match(await page.locator(".answer .text").innerText(), /positive/);
  assert.equal(await page.locator(".answer .badge").innerText(), "positive");
  const shares = await probabilities(page);
  assert.equal(shares.length, 2);
  assert(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 1) < 1e-6, `${shares}`);
  assert.match(await page.locator(".bars .best").innerText(), /positive/);
  for (const word of ["queue", "prefill", "decode", "total", "soft prompt 20"]) assert((await page.locator(".time").innerText()).includes(word), word);
  assert.match(await page.locator("#say").innerText(), /sst2: positive/);
  done("sst2 answers, its bars sum to 1, the times are shown");

  await page.locator(".tok").first().hover();
  assert((await page.locator("#tip tr").count()) >= 5);
  assert.match(await page.locator("#tip").innerText(), /positive/);
  done("a token shows its alternatives");
  await picture(page, "answer");
  assert.equal(await faults(page), "");

  await page.locator("#list").getByRole("button", { name: "No adapter" }).click();
  await page.getByLabel("Prompt", { exact: true }).fill("Tell a story about a dog.");
  await page.locator(".more summary").click();
  await page.getByLabel("Most tokens").fill("24");
  await page.getByLabel("Fewest tokens").fill("24");
  await page.getByLabel("More fields, as JSON").fill('{"truncate": "right"}');
  const body = page.waitForRequest((request) => request.url().endsWith("/v1/generate"));
  await run(page);
  const sent = (await body).postDataJSON();
  assert.deepEqual([sent.max_tokens, sent.min_tokens, sent.truncate, sent.logprobs, sent.stream], [24, 24, "right", 5, true]);
  const pieces = await page.locator(".tok").count();
  assert(pieces >= 20, `${pieces} tokens`);
  assert.match(await page.locator(".time").innerText(), /speed [\d,]+ tokens\/s/);
  await page.locator(".tok").first().focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => [...document.querySelectorAll(".tok")].indexOf(document.activeElement)), 1);
  assert.match(await page.locator("#request").innerText(), /curl -N .*\/v1\/generate[\s\S]*"max_tokens":24/);
  assert.equal(await faults(page), "");
  done("the bare model streams tokens; the settings reach the server and the curl");

  await page.getByLabel("Search adapters by name").fill("st2");
  await page.waitForFunction(() => document.querySelectorAll("#list .item").length === 1);
  assert.match(await page.locator("#list").innerText(), /^sst2/);
  done("the list is searched");
  assert.deepEqual(errors, []);
}

async function uploads() {
  const { page, errors, expected } = await visitor(OPEN);
  await page.goto(`${OPEN}/`);
  await page.locator("#list .item").nth(1).waitFor();
  await drop(page, ARCHIVE);
  assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "dropped");
  await page.getByLabel("Name", { exact: true }).fill("who-asks");
  await page.getByRole("button", { name: "Upload", exact: true }).click();
  await page.locator("#list .item[data-name=who-asks][aria-pressed=true]").waitFor();
  await page.getByLabel("question").fill("Who wrote Hamlet ?");
  await run(page);
  assert.equal(await page.locator(".answer .badge").innerText(), "human");
  assert.equal((await probabilities(page)).length, 6);
  done("a dropped archive is in the list, and answers");

  expected.add(412);
  await drop(page, FOLDER);
  assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "subj");
  await page.getByLabel("Name", { exact: true }).fill("who-asks");
  await page.getByRole("button", { name: "Upload", exact: true }).click();
  const again = page.getByRole("button", { name: "Make it the new version" });
  await again.waitFor();
  assert.match(await page.locator("#upload .failure").innerText(), /precondition_failed/);
  await again.click();
  await page.getByText("Uploaded who-asks").waitFor();
  await page.locator("#about summary").click();
  await page.locator("#about dd .mono").nth(2).waitFor();
  assert.equal(await page.locator("#about dd .row").count(), 2);
  done("a folder becomes a new version only when told to");

  expected.add(400);
  await drop(page, ARCHIVE);
  await page.getByLabel("Name", { exact: true }).fill("Not A Name");
  await page.getByRole("button", { name: "Upload", exact: true }).click();
  await page.locator("#upload .failure").waitFor();
  assert.match(await page.locator("#upload .failure").innerText(), /'Not A Name' is not an adapter name/);
  done("the server's refusal is shown in its words");

  await page.getByRole("button", { name: "Pin", exact: true }).click();
  await page.getByRole("button", { name: "Unpin" }).waitFor();
  await page.locator("#about").getByRole("button", { name: "Delete" }).click();
  await page.locator("#confirm").getByRole("button", { name: "Delete" }).click();
  await page.waitForFunction(() => !document.querySelector("#list [data-name=who-asks]"));
  done("an adapter is pinned and deleted");
  assert.deepEqual(errors, []);
}

async function comparison() {
  for (const [name, options] of [
    ["light", { colorScheme: "light" }], ["dark", { colorScheme: "dark" }], ["narrow", { colorScheme: "light", viewport: { width: 360, height: 740 } }],
  ]) {
    const { page, errors } = await visitor(OPEN, options);
    await page.goto(`${OPEN}/#sst2`);
    await page.getByRole("button", { name: "Compare", exact: true }).click();
    await page.locator("#list [data-name=subj]").click();
    assert.equal(await page.evaluate(() => location.hash), "#sst2,subj");
    await page.getByLabel("sentence").fill("a lonely boy finds an old camera , and the summer of his life begins .");
    await run(page);
    const heads = await page.locator(".answer h2").allTextContents();
    assert.deepEqual(heads, ["sst2", "subj"]);
    const shares = await probabilities(page);
    assert(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 2) < 1e-6, `${shares}`);
    assert.equal(await faults(page), "", name);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wide, 0, `${name}: the page is wider than its window`);
    await picture(page, `compare-${name}`, { fullPage: name === "narrow" });
    assert.deepEqual(errors, []);
    done(`two adapters side by side, ${name}`);
    await page.close();
  }
}

async function documentation() {
  const { page, errors } = await visitor(OPEN);
  await page.goto(`${OPEN}/docs`);
  const document = await (await page.request.get(`${OPEN}/openapi.json`)).json();
  const verbs = ["get", "post", "put", "patch", "delete"];
  const all = Object.values(document.paths).flatMap((item) => verbs.filter((verb) => item[verb]).map((verb) => item[verb].operationId));
  await page.locator(".op").first().waitFor();
  const shown = await page.locator(".op[id]").evaluateAll((list) => list.map((one) => one.id));
  for (const operation of all) assert(shown.includes(operation), `${operation} is not shown`);
  for (const schema of Object.keys(document.components.schemas)) assert(shown.includes(`schema-${schema}`), `${schema} is not shown`);
  const text = await page.locator("#docs").innerText();
  for (const wrong of ["undefined", "[object", "is not in this document"]) assert(!text.includes(wrong), wrong);
  assert.match(text, /curl -X POST .*\/v1\/generate/);
  assert.equal(await faults(page), "");
  await picture(page, "docs");
  await page.setViewportSize({ width: 360, height: 740 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, "the documentation is wider than its window");
  await picture(page, "docs-narrow");
  const dark = await visitor(OPEN, { colorScheme: "dark" });
  await dark.page.goto(`${OPEN}/docs#generate`);
  await dark.page.locator(".op").first().waitFor();
  assert.equal(await faults(dark.page), "");
  await picture(dark.page, "docs-dark");
  assert.deepEqual([...errors, ...dark.errors], []);
  done(`the documentation shows all ${all.length} operations`);
}

async function keyed() {
  const { page, errors, expected } = await visitor(KEYED);
  expected.add(401);
  await page.goto(`${KEYED}/`);
  await page.getByLabel("API key", { exact: true }).waitFor();
  assert.equal(await page.locator("#work").isVisible(), false);
  assert(!(await page.locator("body").innerText()).includes("sst2"));
  assert.equal(await faults(page), "");
  await picture(page, "gate");
  await page.getByLabel("API key", { exact: true }).fill("dept_0000000000000000000000000000000000000000");
  await page.getByRole("button", { name: "Use it" }).click();
  await page.locator("#key-failure .failure").waitFor();
  await page.getByLabel("API key", { exact: true }).fill(API_KEY);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.locator("#list [data-name=trec]").click();
  await page.getByLabel("question").fill("What is the capital of Peru ?");
  await run(page);
  assert.equal(await page.locator(".answer .badge").innerText(), "location");
  const command = await page.locator("#request").innerText();
  assert(command.includes("$DEPT_API_KEY") && !command.includes(API_KEY));
  assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
  await page.reload();
  await page.locator("#list [data-name=trec]").waitFor();
  expected.add(403);
  await page.locator("#list [data-name=sst2]").click();
  await page.locator("#about").getByRole("button", { name: "Pin" }).click();
  await page.locator("#about .failure").waitFor();
  assert.match(await page.locator("#about .failure").innerText(), /forbidden/);
  await page.getByRole("button", { name: "API key" }).click();
  await page.getByRole("button", { name: "Forget it" }).click();
  await page.waitForFunction(() => document.querySelector("#work").hidden);
  assert.deepEqual(errors, []);
  done("with keys nothing is shown without one, and it stays in the tab");
}

/** The picture of the README. */
async function showcase() {
  const { page } = await visitor(OPEN, { colorScheme: "light", viewport: { width: 1200, height: 1046 } });
  await page.goto(`${OPEN}/#trec`);
  await page.getByLabel("question").fill("Which company first sold a computer with a mouse ?");
  await run(page);
  await run(page);
  await picture(page, "page");
}

try {
  for (const part of [answers, uploads, comparison, documentation, keyed, ...(PICTURES ? [showcase] : [])]) await part();
} finally {
  await browser.close();
}
