import { bytes, copier, count, failure, fill, h, id } from "./dom.js";
import { call } from "./server.js";

const METHODS = { dept: "DePT", adept: "ADePT", pt: "prompt tuning", "p-tuning": "P-tuning", mpt: "MPT" };
const PLACES = { device: "on the device", host: "in memory", store: "in the store" };

/** What an adapter is, null being the bare model. `changed` and `removed` are told of changes; `more` are further buttons. */
export function about(adapter, { changed, removed, more }) {
  if (!adapter) {
    return h("article", { class: "panel about" }, h("div", { class: "row spread" }, h("h2", {}, "No adapter"), more),
      h("p", { class: "note" }, "The frozen model as it is, without a soft prompt and without an update of its embeddings."));
  }
  const card = adapter.card ?? {};
  const trouble = h("div");
  const act = (work) => async (event) => {
    const button = event.currentTarget;
    fill(trouble);
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      fill(trouble, failure(error));
    }
    button.disabled = false;
  };
  const place = `v1/adapters/${adapter.name}${adapter.namespace === "shared" ? "?namespace=shared" : ""}`;
  const pin = act(async () => changed(await call("PATCH", place, { pinned: !adapter.pinned })));
  const remove = act(async () => {
    if (await confirmed(`Delete ${adapter.name} with all its versions? Requests that run end as they began.`)) {
      await call("DELETE", place);
      removed(adapter.name);
    }
  });
  return h("article", { class: "panel about" },
    h("div", { class: "row spread" }, h("h2", {}, adapter.name), h("div", { class: "row" }, more, !adapter.alias_of && [
      h("button", { type: "button", class: "quiet small", title: "Whether it stays in memory", onclick: pin }, adapter.pinned ? "Unpin" : "Pin"),
      h("button", { type: "button", class: "quiet small", onclick: remove }, "Delete")])),
    card.description && h("p", {}, card.description),
    facts(adapter),
    (card.results ?? []).map(result),
    trouble,
    details(adapter, card));
}

function facts(adapter) {
  const fact = (name, value) => value !== null && value !== undefined && h("span", {}, `${name} `, h("b", {}, value));
  return h("p", { class: "facts" },
    h("b", {}, METHODS[adapter.method] ?? adapter.method),
    fact("m", count(adapter.prompt_length)), adapter.rank > 0 && fact("r", count(adapter.rank)),
    fact("s", adapter.max_length && count(adapter.max_length)),
    fact("parameters", count(adapter.parameters)), fact("size", bytes(adapter.bytes)),
    h("span", {}, PLACES[adapter.residency] ?? adapter.residency, adapter.pinned && ", pinned"));
}

/** A measured score, with what it is to be held against. */
function result(one) {
  if (typeof one.value !== "number") return null;
  const range = Array.isArray(one.interval_95) ? ` (${one.interval_95.map((end) => end.toFixed(3)).join(" to ")})` : "";
  const marks = [["majority", one.majority], ["bare model", one.zero_shot]].filter(([, value]) => typeof value === "number");
  const aside = [one.n && `n ${count(one.n)}`, one.auc && `AUC ${one.auc.toFixed(3)}`, ...marks.map(([name, value]) => `${name} ${value.toFixed(3)}`)];
  const inside = (value) => Math.min(1, Math.max(0, value));
  return h("div", { class: "result", title: one.split },
    h("div", { class: "row spread" }, h("span", {}, `${one.dataset ?? ""} ${one.metric ?? ""} `, h("b", {}, one.value.toFixed(3)), h("span", { class: "note" }, range)),
      h("span", { class: "note" }, aside.filter(Boolean).join(" · "))),
    h("div", { class: "scale", "aria-hidden": "true" }, h("span", { "--w": inside(one.value) }), marks.map(([name, value]) => h("i", { "--w": inside(value), title: name }))));
}

function details(adapter, card) {
  const row = (name, value) => value !== undefined && value !== null && value !== "" && [h("dt", {}, name), h("dd", {}, value)];
  const labels = card.labels && Object.entries(card.labels).map(([text, label]) => (text === label ? text : `${text} → ${label}`)).join(", ");
  const versions = h("dd", { class: "note" }, "…");
  const fold = h("details", {}, h("summary", {}, "Details and versions"), h("dl", { class: "rows" },
    row("Version", h("span", { class: "mono" }, adapter.version)), row("Alias of", adapter.alias_of),
    row("Made", adapter.created_at.replace("T", " ").replace("Z", " UTC")),
    row("Belongs to", adapter.namespace === "shared" ? "all tenants" : "your tenant"),
    row("Template", card.template && h("code", {}, card.template)), row("Labels", labels),
    row("Longest answer", card.max_tokens && `${card.max_tokens} tokens`), row("Over length", card.over_length),
    row("Trained for", card.base?.name), row("Trained", trained(card.training)), row("Command", card.training?.command && h("code", {}, card.training.command)), row("License", card.license), h("dt", {}, "Versions"), versions));
  fold.addEventListener("toggle", async () => {
    try {
      const { versions: list } = await call("GET", `v1/adapters/${adapter.alias_of?.split("@")[0] ?? adapter.name}/versions`);
      fill(versions, list.map((version) => {
        const name = `${version.name}@${version.version.replace("sha256:", "").slice(0, 12)}`;
        return h("div", { class: "row" }, h("span", { class: "mono" }, name), h("span", {}, version.created_at.slice(0, 10)), copier(() => name, name));
      }));
    } catch (error) {
      fill(versions, failure(error));
    }
  }, { once: true });
  return fold;
}

/** How an adapter was made, as a card's `training` tells. */
function trained(training) {
  const { steps, minutes, date } = training ?? {};
  return [date, steps && `${count(steps)} steps`, minutes && `${minutes} minutes`].filter(Boolean).join(" · ");
}

/** Asks before what can't be undone. */
function confirmed(question) {
  const dialog = id("confirm");
  fill(id("confirm-text"), question);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
