/**
 * Fields of a form, from the JSON Schema of an event.
 *
 * Laws: a field that is left empty is left out, so that the daemon says what is missing. What the
 * form has no field for (a list, an object of anything) is typed as JSON. The form checks nothing
 * itself, but that such JSON can be read and that a number is one: what an event must be is the
 * daemon's to say.
 */

import { element } from "./element.js";

/** @typedef {Record<string, any>} Schema */

/** What was typed cannot be read. */
export class Unreadable extends Error {
  /**
   * @param {string} name
   * @param {string} why
   * @param {HTMLElement} input
   */
  constructor(name, why, input) {
    super(`${name}: ${why}`);
    this.name = "Unreadable";
    this.input = input;
  }
}

/**
 * @typedef {object} Fields
 * @property {HTMLElement[]} elements
 * @property {() => Record<string, unknown>} read raises Unreadable
 * @property {Map<string, HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement>} inputs by
 * path
 */

/**
 * The fields of an object.
 * @param {Schema} schema
 * @param {Schema} definitions `$defs` of the event's schema
 * @param {(name: string, schema: Schema) => string} example what is in a field at first
 * @param {string} [path] where the object is, such as `metrics.`
 * @returns {Fields}
 */
export function fieldsOf(schema, definitions, example, path = "") {
  const required = new Set(schema.required ?? []);
  /** @type {Fields["inputs"]} */
  const inputs = new Map();
  /** @type {[string, () => unknown][]} */
  const readers = [];
  /** @type {{ needed: HTMLElement[], optional: HTMLElement[] }} */
  const made = { needed: [], optional: [] };
  for (const [name, given] of Object.entries(
    /** @type {Record<string, Schema>} */ (schema.properties ?? {}),
  )) {
    const { schema: found, isOptional } = plain(given, definitions);
    if ("const" in found) {
      readers.push([name, () => found.const]);
      continue;
    }
    const isNeeded = required.has(name) && !isOptional;
    const where = isNeeded ? made.needed : made.optional;
    if (isNeeded && found.properties) {
      const inner = fieldsOf(found, definitions, example, `${path}${name}.`);
      for (const [key, input] of inner.inputs) inputs.set(key, input);
      readers.push([name, inner.read]);
      where.push(element("fieldset", {}, element("legend", {}, name), ...inner.elements));
      continue;
    }
    const field = fieldOf(
      `${path}${name}`,
      name,
      found,
      isNeeded ? example(name, found) : "",
      isNeeded,
    );
    inputs.set(`${path}${name}`, field.input);
    readers.push([name, field.read]);
    where.push(field.element);
  }
  const optional =
    made.optional.length === 0
      ? []
      : [
          element(
            "details",
            { class: "optional" },
            element("summary", {}, `${made.optional.length} more, not needed`),
            element("div", { class: "fields" }, ...made.optional),
          ),
        ];
  const read = () => {
    /** @type {Record<string, unknown>} */
    const found = {};
    for (const [name, reader] of readers) {
      const value = reader();
      if (value !== undefined) found[name] = value;
    }
    return found;
  };
  return { elements: [...made.needed, ...optional], read, inputs };
}

/**
 * @param {string} path
 * @param {string} name
 * @param {Schema} schema
 * @param {string} first
 * @param {boolean} isNeeded
 */
function fieldOf(path, name, schema, first, isNeeded) {
  const id = `field-${path}`;
  if (schema.type === "boolean") {
    const input = element("input", { id, type: "checkbox" });
    return {
      input,
      element: element("label", { class: "check field" }, input, ` ${name}`),
      read: () => input.checked || (isNeeded ? false : undefined),
    };
  }
  const label = element(
    "label",
    { for: id },
    name,
    element("span", { class: "quiet" }, ` ${about(schema)}`),
  );
  if (Array.isArray(schema.enum)) {
    const options = schema.enum.map((value) =>
      element("option", { value: String(value), selected: value === first }, String(value)),
    );
    const input = element(
      "select",
      { id },
      ...(isNeeded ? [] : [element("option", { value: "" })]),
      ...options,
    );
    return {
      input,
      element: element("div", { class: "field" }, label, input),
      read: () => input.value || undefined,
    };
  }
  const isNumber = schema.type === "number" || schema.type === "integer";
  if (schema.type === "string" || isNumber) {
    const input = element("input", {
      id,
      value: first,
      inputmode: isNumber ? "decimal" : null,
      autocomplete: "off",
    });
    const read = () => {
      if (input.value === "")
        return isNeeded && !isNumber && schema.format !== "date-time" ? "" : undefined;
      return isNumber ? number(path, input) : input.value;
    };
    return { input, element: element("div", { class: "field" }, label, input), read };
  }
  const input = element("textarea", { id, rows: 2, spellcheck: "false" });
  const read = () => (input.value.trim() === "" ? undefined : json(path, input));
  return { input, element: element("div", { class: "field" }, label, input), read };
}

/**
 * A schema without its reference and its null.
 * @param {Schema} given
 * @param {Schema} definitions
 */
function plain(given, definitions) {
  const choices = Array.isArray(given.anyOf) ? given.anyOf : [given];
  const isOptional = choices.some((choice) => choice.type === "null");
  let schema = /** @type {Schema} */ (choices.find((choice) => choice.type !== "null") ?? given);
  if (typeof schema.$ref === "string")
    schema = definitions[schema.$ref.replace("#/$defs/", "")] ?? {};
  return { schema, isOptional };
}

/** @param {Schema} schema */
function about(schema) {
  if (schema.format === "date-time") return "now, if empty";
  if (Array.isArray(schema.enum)) return "";
  if (schema.type === "array") return "a list, as JSON";
  if (schema.type === "object" || schema.type === undefined) return "an object, as JSON";
  const hasBounds = typeof schema.minimum === "number" && typeof schema.maximum === "number";
  return hasBounds
    ? `${schema.minimum} to ${schema.maximum}`
    : schema.type === "integer"
      ? "whole number"
      : "";
}

/**
 * @param {string} path
 * @param {HTMLInputElement} input
 */
function number(path, input) {
  const value = Number(input.value.replace(",", "."));
  if (!Number.isFinite(value)) throw new Unreadable(path, "this is no number", input);
  return value;
}

/**
 * @param {string} path
 * @param {HTMLTextAreaElement} input
 */
function json(path, input) {
  try {
    return JSON.parse(input.value);
  } catch (error) {
    throw new Unreadable(
      path,
      `this is no JSON: ${error instanceof Error ? error.message : error}`,
      input,
    );
  }
}
