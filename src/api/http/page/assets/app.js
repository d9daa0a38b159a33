import { about } from "./about.js";
import { answer } from "./answer.js";
import { ask } from "./ask.js";
import { requests } from "./curl.js";
import { failure, fill, h, id } from "./dom.js";
import { call, key } from "./server.js";
import { BARE, shelf } from "./shelf.js";
import { uploads } from "./upload.js";

/** The adapters in use, side by side (null is the bare model), and the place that the list fills. */
let slots = [null];
let active = 0;
let running = null;

const list = shelf(pick);
const form = ask(id("ask"), { run, stop: () => running?.abort(), changed: () => requests(id("request"), form.requests()) });
const names = () => slots.map((adapter) => adapter?.name ?? BARE);
const narrow = matchMedia("(max-width: 860px)");

function pick(adapter) {
  slots[active] = adapter;
  if (narrow.matches) id("shelf-fold").open = false;
  draw();
}

/** Everything that depends on which adapters are in use. */
function draw() {
  history.replaceState(null, "", `#${names().join(",")}`);
  list.mark(names());
  drawSlots();
  drawAbout();
  form.show(slots);
  requests(id("request"), form.requests());
  fill(id("answers"));
}

function drawAbout() {
  const compare = h("button", { type: "button", class: "quiet small", onclick: addSlot }, "Compare");
  fill(id("about"), slots.map((adapter, at) => about(adapter, {
    more: slots.length === 1 && compare,
    changed: (now) => { slots[at] = now; draw(); },
    removed: (name) => { slots = slots.map((one) => (one?.name === name ? null : one)); list.load().then(draw); },
  })));
}

/** A place for a second adapter, which the next choice fills. */
function addSlot() {
  slots.push(null);
  active = 1;
  draw();
  id("shelf-fold").open = true;
  id("search").focus();
}

function drawSlots() {
  if (slots.length === 1) return fill(id("slots"));
  const slot = (adapter, at) => h("button", { type: "button", class: "slot", "aria-pressed": String(active === at), onclick: () => { active = at; drawSlots(); } },
    h("i", {}, "AB"[at]), adapter?.name ?? "No adapter");
  fill(id("slots"), slots.map(slot), h("button", { type: "button", class: "quiet small", onclick: () => { slots = [slots[0]]; active = 0; draw(); } }, "End the comparison"),
    h("span", { class: "note" }, "The list fills the marked place."));
}

async function run() {
  const jobs = form.requests();
  const answers = jobs.map(({ adapter }) => answer(adapter));
  fill(id("answers"), answers.map((one) => one.element));
  running = new AbortController();
  form.busy(true);
  const say = narrator(id("say"), jobs.length === 1);
  const whole = await Promise.all(jobs.map((job, at) => answers[at].run(job, running.signal, say.hear)));
  form.busy(false);
  say.end(whole.map((response, at) => `${jobs[at].adapter?.name ?? "The bare model"}: ${response ? response.label ?? response.text ?? "answered" : "no answer"}`).join(". "));
  const model = whole.find(Boolean)?.model;
  if (model) id("model").textContent = model;
  await looked();
}

/** Shows it where the run has brought an adapter into memory. */
async function looked() {
  const now = await Promise.all(slots.map((adapter) => adapter && call("GET", `v1/adapters/${adapter.name}`).catch(() => adapter)));
  const moved = now.some((adapter, at) => adapter?.name === slots[at]?.name && adapter?.residency !== slots[at]?.residency);
  if (!moved) return;
  slots = slots.map((adapter, at) => (now[at]?.name === adapter?.name ? now[at] : adapter));
  drawAbout();
}

/** Reads a stream aloud in pieces of some seconds, for who can't see it grow; `alone` is false where two would mix. */
function narrator(place, alone) {
  let heard = "";
  place.textContent = "Generating.";
  const timer = setInterval(() => {
    if (alone && heard.trim()) place.textContent = heard;
    heard = "";
  }, 2500);
  return {
    hear: (text) => (heard += text),
    end(text) {
      clearInterval(timer);
      place.textContent = text;
    },
  };
}

/** The adapters that the address names, or the first of the list. */
async function restored(first) {
  const wanted = decodeURIComponent(location.hash.slice(1)).split(",").filter(Boolean).slice(0, 2);
  if (!wanted.length) return [first[0] ?? null];
  const find = (name) => (name === BARE ? null : first.find((one) => one.name === name) ?? call("GET", `v1/adapters/${encodeURIComponent(name)}`).catch(() => null));
  return Promise.all(wanted.map(find));
}

/** Whether anything but the field for a key is shown. */
function reveal(is) {
  for (const part of ["shelf", "work"]) id(part).hidden = !is;
}

async function open() {
  const gate = id("gate");
  try {
    const first = await list.load();
    slots = await restored(first);
    active = 0;
    gate.hidden = true;
    reveal(true);
    draw();
  } catch (error) {
    reveal(false);
    gate.hidden = false;
    // Without a key the server's refusal says only what this form says.
    fill(id("key-failure"), key.get() || error.status !== 401 ? failure(error) : null);
    id("key-text").focus();
  }
  id("key").setAttribute("aria-expanded", String(!gate.hidden));
}

id("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(id("key-text").value.trim());
  id("key-text").value = "";
  open();
});
id("key-drop").addEventListener("click", () => {
  key.set("");
  open();
});
id("key").addEventListener("click", () => {
  const gate = id("gate");
  gate.hidden = !gate.hidden && !id("work").hidden;
  id("key").setAttribute("aria-expanded", String(!gate.hidden));
  if (!gate.hidden) id("key-text").focus();
});
uploads(id("upload"), async (adapter) => {
  await list.load();
  pick(adapter);
});
if (narrow.matches) id("shelf-fold").open = false;
open();
