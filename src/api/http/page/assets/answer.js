import { count, failure, fill, h, ms, percent } from "./dom.js";
import { call, events } from "./server.js";
import { tokens } from "./tokens.js";

const ENDS = { stop: "ended by itself", length: "at its most tokens", stop_sequence: "at a stop string", cancelled: "cancelled" };

/** One adapter's answer, filled while it comes. */
export function answer(adapter) {
  const text = tokens();
  const [badges, scores, time, trouble] = [h("div", { class: "row" }), h("div"), h("div"), h("div")];
  const legend = h("p", { class: "note legend" }, "unlikely ", h("span", { class: "ramp", "aria-hidden": "true" }), " certain");
  const element = h("article", { class: "panel answer", "aria-busy": "false" },
    h("div", { class: "row spread" }, h("h2", {}, adapter?.name ?? "No adapter"), badges), text.element, legend, trouble, scores, time);

  /** Streams the generation, then scores the labels. `told` hears the text as it grows; resolves to the whole response. */
  async function run({ generate, classify }, signal, told) {
    busy(true);
    try {
      let whole = null;
      for await (const event of events(generate, signal)) {
        if (event.token) {
          text.add(event.token);
          told(event.token.text);
        } else whole = event;
      }
      finish(whole);
      if (classify) fill(scores, bars(await call("POST", "v1/classify", classify, signal)));
      return whole;
    } catch (error) {
      fill(trouble, error.name === "AbortError" ? h("p", { class: "note" }, "Stopped.") : failure(error));
      return null;
    } finally {
      busy(false);
    }
  }

  function busy(is) {
    element.classList.toggle("busy", is);
    element.setAttribute("aria-busy", String(is));
  }

  function finish(response) {
    const first = response.choices?.[0] ?? response.results?.[0] ?? response;
    fill(badges, first.label && h("span", { class: "badge" }, first.label), h("span", { class: "note" }, ENDS[first.finish_reason] ?? first.finish_reason));
    if (response.timings) fill(time, timings(response.timings, response.usage));
  }

  return { element, run };
}

/** The labels with their probabilities, in the order of the labels. */
function bars({ label, scores }) {
  return [h("h3", {}, "Labels"), h("ul", { class: "bars" }, scores.map((score) => h("li", { class: score.label === label ? "best" : "", title: `log-likelihood ${score.logprob.toFixed(3)}` },
    h("span", { class: "name" }, score.label), h("span", { class: "track", "aria-hidden": "true" }, h("span", { "--w": score.probability })),
    h("span", { class: "value", "data-probability": score.probability }, percent(score.probability)))))];
}

function timings(times, usage) {
  const parts = [["queue", times.queue_ms], ["prefill", times.prefill_ms], ["decode", times.decode_ms]];
  const working = (times.prefill_ms + times.decode_ms) / 1000;
  const figure = (name, value) => h("span", {}, `${name} `, h("b", {}, value));
  return h("div", { class: "time" },
    h("div", { class: "stack", "aria-hidden": "true" }, parts.map(([name, value]) => h("span", { "--w": value, "--c": `var(--${name})` }))),
    h("p", { class: "figures" }, parts.map(([name, value]) => h("span", {}, h("span", { class: "dot", "--c": `var(--${name})`, "aria-hidden": "true" }), `${name} `, h("b", {}, ms(value)))),
      figure("total", ms(times.total_ms)), working > 0 && usage.completion_tokens > 1 && figure("speed", `${count(Math.round(usage.completion_tokens / working))} tokens/s`)),
    h("p", { class: "figures" }, h("span", {}, "tokens:"), figure("prompt", count(usage.prompt_tokens)), figure("soft prompt", count(usage.virtual_tokens)),
      figure("cached", count(usage.cached_tokens)), figure("generated", count(usage.completion_tokens))));
}
