import { fill, h, id, percent } from "./dom.js";

/** Texts in which a blank can be seen. */
const visible = (text) => (text.trim() === "" ? JSON.stringify(text).slice(1, -1).replaceAll(" ", "␣") || "∅" : text);

/**
 * The generated tokens, the less probable the darker. Under the pointer or the focus a token shows what else could have stood in its place; the arrow keys
 * go from one to the next.
 */
export function tokens() {
  const element = h("div", { class: "text", role: "group", "aria-label": "Generated tokens; the arrow keys go through them" });
  const known = new WeakMap();

  function show(span) {
    const token = known.get(span);
    if (!token?.top?.length) return;
    const listed = token.top.some((one) => one.id === token.id) ? token.top : [...token.top, token];
    const tip = id("tip");
    fill(tip, h("table", {}, h("tbody", {}, listed.map((one) => h("tr", { class: one.id === token.id ? "on" : "" },
      h("th", { scope: "row" }, visible(one.text)), h("td", {}, percent(Math.exp(one.logprob))), h("td", { class: "note" }, one.logprob.toFixed(2)))))));
    tip.hidden = false;
    const [box, size] = [span.getBoundingClientRect(), tip.getBoundingClientRect()];
    const left = Math.min(Math.max(8, box.left), document.documentElement.clientWidth - size.width - 8);
    const above = box.bottom + size.height + 12 > innerHeight && box.top > size.height + 12;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above ? box.top - size.height - 6 : box.bottom + 6) + scrollY}px`;
    span.setAttribute("aria-describedby", "tip");
  }

  function hide(event) {
    id("tip").hidden = true;
    event.target.removeAttribute?.("aria-describedby");
  }

  const own = (event) => event.target.closest?.(".tok");
  element.addEventListener("pointerover", (event) => own(event) && show(own(event)));
  element.addEventListener("pointerout", hide);
  element.addEventListener("focusin", (event) => own(event) && show(own(event)));
  element.addEventListener("focusout", hide);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide(event);
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    const to = step && document.activeElement[step];
    if (!to) return;
    document.activeElement.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
    event.preventDefault();
  });

  return {
    element,
    add(token) {
      if (token.text === "" && token.id === null) return;
      const sure = token.logprob === undefined || token.logprob === null ? 1 : Math.exp(token.logprob);
      // The first token's blank stands in front of nothing.
      const text = element.childElementCount === 0 ? token.text.trimStart() || token.text : token.text;
      const span = h("span", { class: "tok", tabindex: element.childElementCount === 0 ? 0 : -1, "--u": (1 - sure).toFixed(3) }, text);
      known.set(span, token);
      element.append(span);
    },
    clear: () => fill(element),
  };
}
