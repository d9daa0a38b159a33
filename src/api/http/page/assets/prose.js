import { h } from "./dom.js";

/** `code`, **strong** and [links](…) in a line of text. Only links into the web or this page are links. */
export function inline(text) {
  const parts = [];
  let last = 0;
  for (const found of text.matchAll(/`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(((?:https?:\/\/|#)[^)\s]*)\)/g)) {
    parts.push(text.slice(last, found.index));
    if (found[1]) parts.push(h("code", {}, found[1]));
    else if (found[2]) parts.push(h("strong", {}, found[2]));
    else parts.push(h("a", { href: found[4], rel: "noreferrer" }, found[3]));
    last = found.index + found[0].length;
  }
  parts.push(text.slice(last));
  return parts;
}

/** Paragraphs, lists and indented or fenced code: as much of Markdown as descriptions use. */
export function prose(text) {
  const blocks = (text ?? "").trim().split(/\n{2,}/).filter(Boolean);
  return h("div", { class: "prose" }, blocks.map((block) => {
    const fenced = block.match(/^```\w*\n([\s\S]*?)\n?```$/);
    if (fenced) return h("pre", { class: "code" }, fenced[1]);
    const lines = block.split("\n");
    if (lines.every((line) => /^( {4}|\t)/.test(line))) return h("pre", { class: "code" }, lines.map((line) => line.replace(/^( {4}|\t)/, "")).join("\n"));
    if (/^[-*] /.test(block)) return h("ul", {}, block.split(/\n(?=[-*] )/).map((item) => h("li", {}, inline(item.slice(2).replaceAll("\n", " ")))));
    return h("p", {}, inline(lines.join(" ")));
  }));
}
