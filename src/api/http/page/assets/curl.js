import { copier, fill, h } from "./dom.js";
import { base, key } from "./server.js";

/** Quoted for a shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A request as a command. The key is named and not shown: commands end up in histories. */
export function command(path, body) {
  const lines = [`curl ${path === "v1/generate" ? "-N " : ""}${new URL(path, base)}`, "-H 'content-type: application/json'"];
  if (key.get()) lines.push('-H "authorization: Bearer $DEPT_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

/** Shows the present request as commands. */
export function requests(section, jobs) {
  const commands = jobs.flatMap(({ generate, classify }) => [
    ["Generate", command("v1/generate", { ...generate, stream: true })],
    ...(classify ? [["Score labels", command("v1/classify", classify)]] : []),
  ]);
  fill(section, commands.map(([name, text]) => [
    h("div", { class: "row spread" }, h("h3", {}, name), copier(() => text, `the command: ${name}`)),
    h("pre", {}, h("code", {}, text)),
  ]));
}
