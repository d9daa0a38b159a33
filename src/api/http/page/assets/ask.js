import { fill, h } from "./dom.js";

/** Sampling settings: field, name, placeholder (what holds when it is empty), and the limits of the input. */
const SETTINGS = [
  ["max_tokens", "Most tokens", "the card's", { min: 1, step: 1 }],
  ["min_tokens", "Fewest tokens", "0", { min: 0, step: 1 }],
  ["temperature", "Temperature", "0", { min: 0, max: 100, step: "any" }],
  ["top_p", "Top p", "1", { min: 0, max: 1, step: "any" }],
  ["top_k", "Top k", "0", { min: 0, step: 1 }],
  ["min_p", "Min p", "0", { min: 0, max: 1, step: "any" }],
  ["seed", "Seed", "random", { min: 0, step: 1 }],
  ["repetition_penalty", "Repetition penalty", "1", { min: 0, max: 10, step: "any" }],
  ["presence_penalty", "Presence penalty", "0", { min: -2, max: 2, step: "any" }],
  ["frequency_penalty", "Frequency penalty", "0", { min: -2, max: 2, step: "any" }],
];

/** Alternatives shown for each token. */
const ALTERNATIVES = 5;

/** The names in a template's places. */
export function fieldsOf(template) {
  const places = (template ?? "").matchAll(/\{\{|\}\}|\{([A-Za-z_]\w*)\}/g);
  return [...new Set([...places].map((place) => place[1]).filter(Boolean))];
}

/** The form: what is asked of one adapter, or of several side by side. `changed` is told when the request is another one. */
export function ask(form, { run, stop, changed }) {
  const values = new Map();
  let shown = [null];
  let raw = true;
  const inputs = h("div", { class: "ask" });
  const modes = h("div", { class: "row spread" });
  const settings = settingsOf();
  const go = h("button", { type: "submit", class: "primary" }, "Run");
  const halt = h("button", { type: "button", class: "quiet", hidden: true, onclick: stop }, "Stop");
  form.replaceChildren(modes, inputs, settings.element, h("div", { class: "row" }, go, halt, h("kbd", {}, "Ctrl Enter")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!go.disabled) run();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("input", changed);

  const fields = () => [...new Set(shown.flatMap((adapter) => fieldsOf(adapter?.card?.template)))];
  const templated = () => !raw && fields().length > 0;

  function area(name, label, placeholder) {
    const input = h("textarea", { id: `in-${name}`, rows: 2, placeholder, value: values.get(name) ?? "" });
    input.addEventListener("input", () => values.set(name, input.value));
    return h("div", { class: "field" }, h("label", { for: input.id }, label), input);
  }

  function draw() {
    const mode = (value, name) => h("label", {}, h("input", { type: "radio", name: "mode", value: String(value), checked: raw === value,
      onchange: () => { raw = value; draw(); changed(); form.querySelector("[name=mode]:checked")?.focus(); } }), name);
    fill(modes, fields().length > 0 && h("div", { class: "modes", role: "radiogroup", "aria-label": "How the prompt is given" },
      mode(false, "Template"), mode(true, "Whole prompt")));
    modes.hidden = fields().length === 0;
    const templates = [...new Set(shown.map((adapter) => adapter?.card?.template).filter(Boolean))];
    fill(inputs, templated()
      ? [fields().map((name) => area(name, name, "")), h("p", { class: "note" }, templates.map((text) => [h("code", {}, text), " "]))]
      : area("prompt", "Prompt", "What the model reads, as it is"));
  }

  /** The prompt for one adapter: its own fields, or the text. */
  function prompt(adapter) {
    const own = fieldsOf(adapter?.card?.template);
    if (!templated() || own.length === 0) {
      // Beside an adapter with a template, one without reads the fields' texts.
      const texts = templated() ? fields().map((name) => values.get(name) ?? "") : [values.get("prompt") ?? ""];
      return { prompt: texts.join("\n") };
    }
    return { inputs: Object.fromEntries(own.map((name) => [name, values.get(name) ?? ""])) };
  }

  return {
    show(adapters) {
      shown = adapters;
      raw = fields().length === 0;
      draw();
    },
    busy(is) {
      go.disabled = is;
      halt.hidden = !is;
    },
    /** What is to be sent, for each adapter: the body of a generation, and of a classification where there are labels. */
    requests() {
      const { sampling, labels, normalize, calibrate, score, more } = settings.read();
      return shown.map((adapter) => {
        const common = { ...(adapter && { adapter: adapter.name }), ...prompt(adapter) };
        const known = Object.keys(adapter?.card?.labels ?? {}).length;
        const scored = score && (labels.length > 1 || known > 1);
        return {
          adapter,
          generate: { ...common, ...sampling, logprobs: ALTERNATIVES, ...more },
          classify: scored ? { ...common, ...(labels.length && { labels }), ...(normalize !== "none" && { normalize }), ...(calibrate && { calibrate }) } : null,
        };
      });
    },
  };
}

function settingsOf() {
  const numbers = SETTINGS.map(([name, label, placeholder, limits]) => {
    const input = h("input", { id: `set-${name}`, type: "number", placeholder, ...limits });
    return { name, input, element: h("div", { class: "field" }, h("label", { for: input.id }, label), input) };
  });
  const text = (id, label, placeholder) => h("div", { class: "field wide" }, h("label", { for: id }, label), h("textarea", { id, rows: 1, placeholder }));
  const check = (id, label, checked) => h("label", { class: "check wide", for: id }, h("input", { id, type: "checkbox", checked }), label);
  const stop = text("set-stop", "Stop in front of (one a line)", "");
  const labels = text("set-labels", "Labels to score (one a line)", "the card's");
  const more = text("set-more", "More fields, as JSON", '{"truncate": "right"}');
  const normalize = h("select", { id: "set-normalize" }, h("option", { value: "none" }, "whole label"), h("option", { value: "length" }, "by length"));
  const element = h("details", { class: "more" }, h("summary", {}, "Settings"), h("div", { class: "settings" },
    numbers.map((number) => number.element),
    h("div", { class: "field" }, h("label", { for: "set-normalize" }, "Weigh labels"), normalize),
    stop, labels, check("set-score", "Score the labels too", true), check("set-calibrate", "Calibrate the scores by a prompt without content", false), more));
  const area = (field) => field.querySelector("textarea");
  const lines = (field) => area(field).value.split("\n").filter((line) => line !== "");
  const on = (name) => element.querySelector(`#${name}`).checked;
  return {
    element,
    read() {
      const sampling = {};
      for (const { name, input } of numbers) if (input.value !== "") sampling[name] = input.valueAsNumber;
      if (lines(stop).length) sampling.stop = lines(stop);
      return {
        sampling, labels: lines(labels), normalize: normalize.value, calibrate: on("set-calibrate"), score: on("set-score"), more: objectOf(area(more)),
      };
    },
  };
}

/** The object that stands in a field; a field that holds none is marked and sends nothing. */
function objectOf(input) {
  let value = null;
  try {
    value = JSON.parse(input.value.trim() || "{}");
  } catch {
    // Said below, like a value of another kind.
  }
  const sound = value !== null && typeof value === "object" && !Array.isArray(value);
  input.setCustomValidity(sound ? "" : "Write a JSON object, such as {\"truncate\": \"right\"}");
  return sound ? value : {};
}
