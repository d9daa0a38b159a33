import { bytes, failure, fill, h } from "./dom.js";
import { upload as send } from "./server.js";

/** The parts of an upload, by the names of the files that they come in. */
const PARTS = { "adapter_config.json": "config", "adapter_model.safetensors": "weights", "adapter_model.bin": "weights", "card.toml": "card" };

/** A place to drop an adapter's files, its folder, or an archive of them. `done` is told the adapter. */
export function uploads(section, done) {
  const picker = h("input", { id: "files", type: "file", multiple: true, accept: ".zip,.gz,.tgz,.json,.safetensors,.bin,.toml" });
  const work = h("div", { class: "field" });
  section.replaceChildren(h("div", { class: "field" }, h("label", { for: "files" }, "Upload an adapter"),
    h("p", { class: "note" }, "Drop its folder, its files or an archive (.zip, .tar.gz) anywhere on this page, or choose them."), picker), work);
  picker.addEventListener("change", () => {
    if (picker.files.length) prepare([...picker.files], "");
  });
  dropTarget(prepare);

  function prepare(files, folder) {
    const found = sorted(files, folder);
    if (found.problem) return fill(work, failure(new Error(found.problem)));
    const name = h("input", { id: "upload-name", value: found.name, maxlength: 64, spellcheck: "false", autocomplete: "off" });
    const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Sent" });
    const outcome = h("div", { role: "status" });
    const go = h("button", { type: "button", class: "primary small" }, "Upload");
    const start = async (replace) => {
      go.disabled = true;
      bar.hidden = false;
      fill(outcome);
      try {
        const adapter = await send(name.value.trim(), found.body(), { type: found.type, replace, progress: (share) => (bar.value = share) });
        fill(work, h("p", { role: "status" }, "Uploaded ", h("b", {}, adapter.name), "."));
        picker.value = "";
        done(adapter);
      } catch (error) {
        fill(outcome, failure(error), error.status === 412 && h("button", { type: "button", class: "quiet small", onclick: () => start(true) }, "Make it the new version"));
      }
      go.disabled = false;
      bar.hidden = true;
    };
    go.addEventListener("click", () => start(false));
    fill(work, h("ul", {}, found.files.map((file) => h("li", {}, `${file.name}, ${bytes(file.size)}`))),
      h("label", { for: "upload-name" }, "Name"), name, bar, outcome,
      h("div", { class: "row" }, go, h("button", { type: "button", class: "quiet small", onclick: () => { fill(work); picker.value = ""; } }, "Cancel")));
    name.focus();
  }
}

/** What these files are: an archive, or the parts of an adapter. */
function sorted(files, folder) {
  const [archive] = files.filter((file) => /\.(zip|tgz|tar\.gz)$/i.test(file.name));
  if (archive && files.length === 1) {
    const type = /\.zip$/i.test(archive.name) ? "application/zip" : "application/gzip";
    return { name: named(archive.name.replace(/\.(zip|tgz|tar\.gz)$/i, "")), files, type, body: () => archive };
  }
  const parts = files.filter((file) => PARTS[file.name]);
  const has = (part) => parts.some((file) => PARTS[file.name] === part);
  if (!has("config") || !has("weights")) {
    return { problem: "An adapter is adapter_config.json and adapter_model.safetensors (or .bin), maybe with card.toml; or one .zip or .tar.gz of them." };
  }
  const body = () => {
    const form = new FormData();
    for (const file of parts) form.append(PARTS[file.name], file);
    return form;
  };
  return { name: named(folder), files: parts, body };
}

/** A name that the server takes, made of what the files are called. */
const named = (text) => text.toLowerCase().replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+/, "").slice(0, 64) || "my-adapter";

/** Takes what is dropped anywhere on the page. */
function dropTarget(take) {
  const over = (on) => document.body.classList.toggle("over", on);
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && over(false));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    over(false);
    // The list is empty after the first wait.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    const folder = entries.find((entry) => entry.isDirectory);
    if (!folder) return plain.length && take(plain, "");
    take(await filesOf(folder), folder.name);
  });
}

/** The files that lie in a folder itself. */
async function filesOf(folder) {
  const reader = folder.createReader();
  const files = [];
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return files;
    for (const entry of entries) if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
  }
}
