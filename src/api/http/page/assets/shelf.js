import { failure, fill, h, id } from "./dom.js";
import { adapters } from "./server.js";

/** What stands for the bare model in the list and in addresses; no adapter can be named so. */
export const BARE = "-";

/** The figure by which a card is known: its first measured result. */
export function headline(adapter) {
  const result = adapter?.card?.results?.[0];
  return result && typeof result.value === "number" ? `${result.metric} ${result.value.toFixed(3)}` : "";
}

/**
 * The list of adapters: searched by the server, shown a page at a time. `pick` is told the adapter that was chosen, or null for the bare model.
 */
export function shelf(pick) {
  const list = id("list");
  const [search, more, note, total] = ["search", "more", "shelf-note", "shelf-count"].map(id);
  let next = null;
  let shown = 0;
  let used = [];
  let asking = new AbortController();

  const item = (adapter) => {
    const name = adapter?.name ?? BARE;
    const what = adapter ? adapter.card?.description ?? "" : "The frozen model as it is";
    return h("li", {}, h("button", { type: "button", class: "item", "data-name": name, "aria-pressed": String(used.includes(name)), onclick: () => pick(adapter) },
      h("b", {}, adapter ? name : "No adapter"), h("span", { class: "score" }, headline(adapter)), what && h("span", { class: "what" }, what)));
  };

  async function load(after) {
    asking.abort();
    asking = new AbortController();
    const text = search.value.trim();
    try {
      const page = await adapters(text, after, asking.signal);
      if (!after) {
        fill(list, text ? [] : item(null));
        shown = 0;
      }
      list.append(...page.adapters.map(item));
      shown += page.adapters.length;
      next = page.next;
      more.hidden = !next;
      total.textContent = `${shown}${next ? "+" : ""}`;
      note.textContent = shown ? "" : text ? `No name contains “${text}”.` : "There is none yet: drop one below.";
      return page.adapters;
    } catch (error) {
      if (error.name === "AbortError") return [];
      if (error.status === 401) throw error;
      fill(note, failure(error));
      return [];
    }
  }

  let pause;
  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(load, 120);
  });
  more.addEventListener("click", async () => {
    const first = shown;
    await load(next);
    list.querySelectorAll("button")[first + (search.value.trim() ? 0 : 1)]?.focus();
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...list.querySelectorAll("button")];
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
    event.preventDefault();
  });

  return {
    load: () => load(),
    /** Shows which adapters are in use. */
    mark(names) {
      used = names;
      for (const button of list.querySelectorAll("button")) button.setAttribute("aria-pressed", String(names.includes(button.dataset.name)));
    },
  };
}
