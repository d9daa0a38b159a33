import { copier, failure, fill, h, id } from "./dom.js";
import { inline, prose } from "./prose.js";
import { schemas } from "./schema.js";

const VERBS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
const base = new URL(".", document.baseURI);

/** The operations under their tags, in the order of the tags. */
function grouped(document) {
  const groups = new Map((document.tags ?? []).map((tag) => [tag.name, { ...tag, operations: [] }]));
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const verb of VERBS.filter((verb) => item[verb])) {
      const operation = item[verb];
      const tag = operation.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, { name: tag, operations: [] });
      const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])];
      groups.get(tag).operations.push({ ...operation, path, verb, parameters, anchor: operation.operationId ?? `${verb}-${path}` });
    }
  }
  return [...groups.values()].filter((group) => group.operations.length);
}

/** A path that may break behind its slashes. */
const breakable = (path) => path.split(/(?<=\/)/).flatMap((part) => [part, h("wbr")]);

const verb = (name) => h("span", { class: `verb ${name}` }, name.toUpperCase());

function contents(groups, names) {
  return [
    ...groups.map((group) => h("div", {}, h("h2", {}, group.name), h("ul", {}, group.operations.map((operation) =>
      h("li", {}, h("a", { href: `#${operation.anchor}`, title: operation.summary }, verb(operation.verb), h("span", {}, breakable(operation.path)))))))),
    h("div", {}, h("h2", {}, "schemas"), h("ul", { class: "plain" }, names.map((name) => h("li", {}, h("a", { href: `#schema-${name}` }, name))))),
  ];
}

function drawer(document) {
  const read = schemas(document);

  function parameters(list) {
    const rows = list.map(read.resolve).map((one) => h("tr", {},
      h("td", {}, h("code", {}, one.name), one.required && h("span", { class: "must" }, " required")), h("td", {}, one.in),
      h("td", {}, read.kind(one.schema ?? {})), h("td", {}, inline(one.description ?? ""), h("div", { class: "note" }, read.limits(read.resolve(one.schema ?? {}))))));
    return rows.length > 0 && [h("h4", {}, "Parameters"), scrolled(h("table", { class: "grid" }, head("Name", "In", "Type", "Meaning"), h("tbody", {}, rows)), "Parameters")];
  }

  /** A media type's example, by hand or made of its schema. */
  function exampleOf(media) {
    const [named] = Object.values(media.examples ?? {}).map(read.resolve);
    return media.example ?? named?.value ?? (media.schema ? read.example(media.schema) : undefined);
  }

  function body(operation) {
    const request = read.resolve(operation.requestBody);
    const contents = Object.entries(request.content ?? {});
    return contents.length > 0 && [h("h4", {}, "Body"), request.description && prose(request.description), contents.map(([type, media]) => [
      h("p", { class: "note" }, type, media.schema && [", ", read.kind(media.schema)]), media.schema && read.draw(media.schema),
    ])];
  }

  function responses(operation) {
    const rows = Object.entries(operation.responses ?? {}).map(([status, node]) => {
      const response = read.resolve(node);
      const bodies = Object.entries(response.content ?? {}).map(([type, media]) => {
        const example = type.includes("json") ? exampleOf(media) : undefined;
        return h("details", {}, h("summary", { class: "note" }, `${type}${media.schema ? `, ${read.kind(media.schema)}` : ""}`),
          media.schema && read.draw(media.schema), example !== undefined && code(JSON.stringify(example, null, 2), "Example of a response"));
      });
      return h("tr", {}, h("td", {}, h("b", {}, status)), h("td", {}, prose(response.description), bodies));
    });
    return rows.length > 0 && [h("h4", {}, "Answers"), scrolled(h("table", { class: "grid answers" }, head("Status", "Meaning"), h("tbody", {}, rows)), "Answers")];
  }

  function curl(operation) {
    const filled = operation.path.replace(/\{(\w+)\}/g, (place, name) => {
      const parameter = operation.parameters.map(read.resolve).find((one) => one.name === name);
      return parameter?.example ?? Object.values(parameter?.examples ?? {}).map(read.resolve)[0]?.value ?? place;
    });
    const lines = [`curl ${operation.verb === "get" ? "" : `-X ${operation.verb.toUpperCase()} `}${new URL(`.${filled}`, base)}`];
    const content = read.resolve(operation.requestBody).content ?? {};
    if ((operation.security ?? document.security ?? []).some((one) => Object.keys(one).length)) lines.push('-H "authorization: Bearer $DEPT_API_KEY"');
    if (content["application/json"]) {
      lines.push("-H 'content-type: application/json'", `-d '${JSON.stringify(exampleOf(content["application/json"]) ?? {}).replaceAll("'", "'\\''")}'`);
    } else if (content["multipart/form-data"]) {
      const parts = Object.keys(read.resolve(content["multipart/form-data"].schema).properties ?? {});
      lines.push(...parts.map((part) => `-F ${part}=@${part}`));
    } else if (Object.keys(content).length) {
      lines.push(`-H 'content-type: ${Object.keys(content)[0]}'`, "--data-binary @FILE");
    }
    const text = lines.join(" \\\n  ");
    return [h("div", { class: "row spread" }, h("h4", {}, "curl"), copier(() => text, `the command of ${operation.anchor}`)), code(text, "Command")];
  }

  const scopes = (operation) => (operation.security ?? document.security ?? []).flatMap(Object.values).flat();

  function operation(one) {
    const needs = scopes(one);
    return h("article", { class: "panel op", id: one.anchor },
      h("h3", {}, verb(one.verb), h("span", { class: "mono" }, breakable(one.path)), one.deprecated && h("span", { class: "must" }, "deprecated")),
      one.summary && h("p", {}, inline(one.summary)), one.description && prose(one.description),
      needs.length > 0 && h("p", { class: "note" }, "Where the server has keys: scope ", needs.map((scope) => h("code", {}, scope))),
      parameters(one.parameters), body(one), curl(one), responses(one));
  }

  /** Every failure that any operation declares. */
  function errors() {
    const rows = Object.values(document.components?.responses ?? {}).map((response) => read.resolve(response)).flatMap((response) => {
      const codes = [...(response.description ?? "").matchAll(/`(\w+)`: ([^\n]+)/g)];
      return codes.map(([, code, meaning]) => [code, meaning]);
    });
    const table = [...new Map(rows)].sort().map(([code, meaning]) => h("tr", {}, h("td", {}, h("code", {}, code)), h("td", {}, inline(meaning))));
    return table.length > 0 && [h("h2", { id: "errors" }, "Errors"), h("article", { class: "panel op" },
      scrolled(h("table", { class: "grid" }, head("Code", "Meaning"), h("tbody", {}, table)), "Errors"))];
  }

  const component = ([name, schema]) => h("article", { class: "panel op", id: `schema-${name}` },
    h("h3", { class: "mono" }, name), schema.description && prose(schema.description),
    read.draw(schema) ?? h("p", { class: "note" }, read.kind(schema), " ", read.limits(schema)));

  return { operation, errors, component };
}

const head = (...names) => h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name))));

/** What may be wider than the page can be scrolled by the keyboard too. */
const scrolled = (table, label) => h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, table);
const code = (text, label) => h("pre", { class: "code", tabindex: "0", role: "group", "aria-label": label }, text);

async function show() {
  const response = await fetch(new URL("openapi.json", base));
  if (!response.ok) throw new Error(`The server answered ${response.status} for openapi.json.`);
  const document = await response.json();
  const [groups, draw] = [grouped(document), drawer(document)];
  const components = Object.entries(document.components?.schemas ?? {}).sort(([a], [b]) => a.localeCompare(b));
  id("model").textContent = `${document.info.title} ${document.info.version}`;
  fill(id("toc"), contents(groups, components.map(([name]) => name)));
  fill(id("docs"), h("h1", { class: "sr" }, document.info.title),
    h("div", { class: "panel op" }, prose(document.info.description), h("p", {}, "As it is: ", h("a", { href: "openapi.json" }, "openapi.json"), ".")),
    groups.map((group) => [h("h2", {}, group.name), group.description && h("p", { class: "note" }, group.description), group.operations.map(draw.operation)]),
    draw.errors(), components.length > 0 && h("h2", {}, "Schemas"), components.map(draw.component));
  if (location.hash) globalThis.document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

show().catch((error) => fill(id("docs"), failure(error)));
