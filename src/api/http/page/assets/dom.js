/** Makes an element. What is given as text stays text: nothing here is ever read as HTML. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element with this id. */
export const id = (name) => document.getElementById(name);

/** Puts these children in place of those that are there. */
export const fill = (element, ...children) =>
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));

const numbers = new Intl.NumberFormat("en");
export const count = (value) => numbers.format(value);

/** Bytes in the unit that reads well. */
export function bytes(value) {
  if (value < 1000) return `${value} B`;
  return value < 1e6 ? `${(value / 1e3).toFixed(0)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}

/** Milliseconds with as many digits as say something. */
export const ms = (value) => `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;

export const percent = (share) => `${(100 * share).toFixed(share > 0.0995 || share === 0 ? 1 : 2)} %`;

/** A button that copies what `text` gives, and says so. */
export function copier(text, what) {
  const button = h("button", { type: "button", class: "quiet small", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(text());
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages that did not come over https or from this machine have no clipboard: the old way.
    const area = h("textarea", { class: "sr", value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A failure, in the server's own words. */
export function failure(error) {
  const details = [error.code, error.status && `status ${error.status}`, error.param && `field ${error.param}`, error.request && `request ${error.request}`];
  const small = details.filter(Boolean).join(" · ");
  return h("div", { class: "failure", role: "alert" }, h("p", {}, error.message), small && h("p", { class: "note" }, small));
}
