import { h } from "./dom.js";
import { inline } from "./prose.js";

/** Levels of nested objects that are drawn; deeper ones are links to where they stand by themselves. */
const DEPTH = 4;

/** Reads the schemas of one document. */
export function schemas(document) {
  /** What a reference points to; anything else is itself. */
  function resolve(node) {
    const seen = new Set();
    while (node?.$ref && !seen.has(node.$ref)) {
      seen.add(node.$ref);
      const { $ref, ...beside } = node;
      const path = $ref.startsWith("#/") ? $ref.slice(2).split("/").map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~")) : [];
      const target = path.reduce((at, part) => at?.[part], document);
      if (target === undefined) return { description: `${$ref} is not in this document` };
      // What stands beside a reference adds to it.
      node = { ...target, ...beside };
    }
    return node ?? {};
  }

  const name = (node) => node?.$ref?.split("/").pop();

  /** Where all alternatives but one are null: that one. */
  function only(node) {
    const schema = resolve(node);
    const parts = (schema.oneOf ?? schema.anyOf ?? []).filter((part) => resolve(part).type !== "null");
    return parts.length === 1 && !schema.properties ? parts[0] : null;
  }

  /** The type in a word or two. */
  function kind(node, depth = 0) {
    const own = name(node);
    const schema = resolve(node);
    if (schema === true) return "anything";
    const parts = schema.oneOf ?? schema.anyOf;
    if (parts && depth < 3) return [...new Set(parts.map((part) => kind(part, depth + 1)))].join(" or ");
    if ("const" in schema) return JSON.stringify(schema.const);
    const types = [schema.type ?? (schema.properties || schema.allOf ? "object" : schema.enum ? "string" : "anything")].flat();
    return types.map((type) => {
      if (type === "array") return schema.items ? `list of ${kind(schema.items, depth + 1)}` : "list";
      if (type === "object") return own ?? (map(schema) ? `object of ${kind(schema.additionalProperties, depth + 1)}` : "object");
      return schema.format && type === "string" ? `${type} (${schema.format})` : type;
    }).join(" or ");
  }

  const map = (schema) => schema.additionalProperties && typeof schema.additionalProperties === "object" && !schema.properties;

  function limits(schema) {
    const said = [];
    const say = (field, word) => schema[field] !== undefined && said.push(`${word} ${JSON.stringify(schema[field])}`);
    say("minimum", "at least");
    say("exclusiveMinimum", "more than");
    say("maximum", "at most");
    say("exclusiveMaximum", "less than");
    say("minLength", "shortest");
    say("maxLength", "longest");
    say("minItems", "fewest");
    say("maxItems", "most");
    say("pattern", "matches");
    if (schema.enum) said.push(schema.enum.map((value) => JSON.stringify(value)).join(", "));
    say("default", "default");
    return said.join(" · ");
  }

  /** The fields of an object, those of its parts together. */
  function fields(node, seen = new Set()) {
    const schema = resolve(node);
    if (seen.has(schema)) return { properties: {}, required: [] };
    seen.add(schema);
    const parts = (schema.allOf ?? []).map((part) => fields(part, seen));
    return {
      properties: Object.assign({}, ...parts.map((part) => part.properties), schema.properties),
      required: [...parts.flatMap((part) => part.required), ...(schema.required ?? [])],
    };
  }

  /** The alternatives and lists that a schema has inside, as long as they are objects. */
  function inside(node) {
    const schema = resolve(node);
    const parts = [...(schema.oneOf ?? []), ...(schema.anyOf ?? []), ...(schema.allOf ?? []).filter((part) => resolve(part).oneOf || resolve(part).anyOf)];
    return parts.filter((part) => resolve(part).type !== "null");
  }

  /** A schema as a list of its fields, each with its type, limits and meaning. `above` are the names drawn around it. */
  function draw(node, above = []) {
    const own = name(node);
    if (own && above.includes(own)) return h("p", { class: "note" }, "as ", h("a", { href: `#schema-${own}` }, own), " above");
    if (only(node)) return draw(only(node), above);
    if (above.length > DEPTH) return own ? h("a", { href: `#schema-${own}` }, own) : null;
    const path = [...above, own ?? ""];
    const schema = resolve(node);
    const { properties, required } = fields(node);
    const rows = Object.entries(properties).map(([field, value]) => row(field, value, required.includes(field), path));
    // A text with JSON inside.
    const packed = schema.contentSchema ?? schema["x-content-schema"];
    if (packed) return draw(packed, path);
    const inner = schema.items ? draw(schema.items, path) : map(schema) ? draw(schema.additionalProperties, path) : null;
    const choices = inside(node).map((part) => {
      const drawn = draw(part, path);
      const said = resolve(part).description;
      return h("li", {}, h("span", { class: "type" }, "or ", kind(part)), said && h("div", {}, inline(said)), drawn);
    });
    if (!rows.length && !choices.length) return inner;
    return h("ul", { class: "schema" }, rows, choices);
  }

  function row(field, node, must, path) {
    const schema = resolve(node);
    const [type, nested] = [kind(node), draw(node, path)];
    const said = schema.description ?? resolve(only(node)).description ?? "";
    const limited = limits(only(node) ? { ...resolve(only(node)), ...schema } : schema);
    return h("li", {},
      h("code", {}, field), " ", h("span", { class: "type" }, type), must && h("span", { class: "must" }, " required"),
      schema.deprecated && h("span", { class: "must" }, " deprecated"),
      (said || limited) && h("div", {}, inline(said.replaceAll("\n", " ")), limited && h("div", { class: "note" }, limited)),
      nested && nested.tagName === "UL" ? h("details", {}, h("summary", { class: "note" }, nested.querySelector(":scope > li > code") ? "fields" : "forms"), nested) : nested);
  }

  /** A value that the schema describes: its own example, or one made of its fields. */
  function example(node, seen = []) {
    const schema = resolve(node);
    if (schema.example !== undefined) return schema.example;
    if (schema.examples?.length) return schema.examples[0];
    if (schema.default !== undefined) return schema.default;
    if ("const" in schema) return schema.const;
    if (schema.enum) return schema.enum[0];
    if (seen.includes(schema)) return {};
    const path = [...seen, schema];
    const [first] = (schema.oneOf ?? schema.anyOf ?? []).filter((part) => resolve(part).type !== "null");
    const { properties } = fields(node);
    const own = Object.fromEntries(Object.entries(properties).map(([field, value]) => [field, example(value, path)]));
    if (first) {
      const chosen = example(first, path);
      return Object.keys(own).length && typeof chosen === "object" ? { ...own, ...chosen } : chosen;
    }
    if (Object.keys(own).length) {
      return Object.assign(own, ...(schema.allOf ?? []).map((part) => example(part, path)).filter((part) => typeof part === "object"));
    }
    switch ([schema.type].flat().find((type) => type !== "null")) {
      case "string": return "text";
      case "integer": return schema.minimum ?? 0;
      case "number": return schema.minimum ?? 0;
      case "boolean": return false;
      case "array": return schema.items ? [example(schema.items, path)] : [];
      case "object": return map(schema) ? { name: example(schema.additionalProperties, path) } : {};
      default: return null;
    }
  }

  return { resolve, kind, draw, example, limits };
}
