/**
 * The form that publishes an event: with the fields of its type, or as JSON.
 *
 * Laws: JSON goes to the daemon as it was typed; it is read here only to say early that it is none.
 * The daemon's answer is shown as it is. The channel follows the event's type and id until somebody
 * writes another.
 */

import { Away, Refused } from "./daemon.js";
import { clock } from "./figures.js";
import { element, part } from "./element.js";
import { fieldsOf, Unreadable } from "./fields.js";

/**
 * @typedef {object} EventType
 * @property {string} channelType the channels that it is for
 * @property {string | null} channelId its field that is the channel's id
 * @property {Record<string, any>} schema
 */

const OTHER = "";
const ID = "42";
/**
 * What is in a field at first, so that a first event can be published at once.
 * @type {Record<string, string>}
 */
const EXAMPLES = {
  progress: "0.5",
  stage: "testing",
  message: "Hello from the console",
  title: "Hello",
  status: "processing",
  severity: "info",
};

export class PublishForm {
  /**
   * @param {import("./daemon.js").Daemon} daemon
   * @param {Record<string, EventType>} types
   * @param {import("./tail.js").Tail} tail
   */
  constructor(daemon, types, tail) {
    this.daemon = daemon;
    this.types = types;
    this.tail = tail;
    this.hasOwnChannel = false;
    this.isBusy = false;
    /** @type {import("./fields.js").Fields | null} */
    this.fields = null;

    this.type = part("publish-type", HTMLSelectElement);
    this.channel = part("publish-channel", HTMLInputElement);
    this.about = part("publish-about", HTMLParagraphElement);
    this.shown = part("publish-fields", HTMLDivElement);
    this.raw = part("publish-raw", HTMLDivElement);
    this.json = part("publish-json", HTMLTextAreaElement);
    this.asJson = part("publish-as-json", HTMLInputElement);
    this.follows = part("publish-follow", HTMLInputElement);
    this.answer = part("publish-answer", HTMLParagraphElement);
    const form = part("publish-form", HTMLFormElement);

    this.type.replaceChildren(
      ...Object.keys(types).map((name) => element("option", { value: name }, name)),
      element("option", { value: OTHER }, "another, as JSON"),
    );
    this.type.addEventListener("change", () => this.#showType());
    this.channel.addEventListener("input", () => {
      this.hasOwnChannel = this.channel.value !== "";
    });
    this.asJson.addEventListener("change", () => this.#showJson());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#publish();
    });
    this.#showType();
  }

  #showType() {
    const type = this.types[this.type.value];
    this.fields = null;
    this.shown.replaceChildren();
    this.about.textContent =
      type?.schema.description ??
      "Any JSON object; what the daemon takes depends on the channel's type.";
    if (type === undefined) {
      this.asJson.checked = true;
      if (this.json.value.trim() === "") this.json.value = '{"type": "hello"}';
      if (!this.hasOwnChannel) this.channel.value = "hello:1";
    } else {
      this.asJson.checked = false;
      const example = (/** @type {string} */ name, /** @type {Record<string, any>} */ schema) =>
        exampleOf(name, schema, type);
      this.fields = fieldsOf(type.schema, type.schema.$defs ?? {}, example);
      this.shown.replaceChildren(...this.fields.elements);
      this.#showChannel(type);
      if (type.channelId !== null) {
        this.fields.inputs
          .get(type.channelId)
          ?.addEventListener("input", () => this.#showChannel(type));
      }
    }
    this.#showJson();
  }

  /** @param {EventType} type */
  #showChannel(type) {
    if (this.hasOwnChannel) return;
    const id =
      type.channelId === null ? ID : (this.fields?.inputs.get(type.channelId)?.value ?? ID);
    this.channel.value = id === "" ? type.channelType : `${type.channelType}:${id}`;
  }

  #showJson() {
    this.asJson.disabled = this.fields === null;
    if (this.asJson.checked && this.fields !== null) {
      try {
        this.json.value = JSON.stringify(this.fields.read(), null, 2);
      } catch (error) {
        this.#fail(error);
        this.asJson.checked = false;
      }
    }
    this.raw.hidden = !this.asJson.checked;
    this.shown.hidden = this.asJson.checked;
  }

  async #publish() {
    if (this.isBusy) return;
    this.isBusy = true;
    const channel = this.channel.value.trim();
    const isNew = this.follows.checked && channel !== "" && !this.tail.channels.includes(channel);
    try {
      const event = this.#event();
      // First, so that the event is seen on channels too that replay nothing.
      if (isNew) await this.tail.follow(channel);
      this.#say("", "");
      await this.daemon.publish(channel, event);
      this.#say("good", `Published on ${channel} at ${clock(Date.now())}.`);
    } catch (error) {
      if (isNew && error instanceof Refused) this.tail.unfollow(channel);
      this.#fail(error);
    } finally {
      this.isBusy = false;
    }
  }

  /** The event as JSON. Raises Unreadable. */
  #event() {
    if (this.fields === null || this.asJson.checked) {
      try {
        JSON.parse(this.json.value);
      } catch (error) {
        throw new Unreadable(
          "Event",
          `this is no JSON: ${error instanceof Error ? error.message : error}`,
          this.json,
        );
      }
      return this.json.value;
    }
    const event = this.fields.read();
    return JSON.stringify({ ...event, timestamp: event.timestamp ?? new Date().toISOString() });
  }

  /** @param {unknown} error */
  #fail(error) {
    if (error instanceof Unreadable) {
      this.#say("bad", error.message);
      error.input.focus();
    } else if (error instanceof Refused) {
      this.#say("bad", `Not published, ${error.status}: ${error.message}`);
    } else if (error instanceof Away) {
      this.#say("bad", `It is not known whether this was published: ${error.message}.`);
    } else {
      throw error;
    }
  }

  /**
   * @param {string} tone
   * @param {string} text
   */
  #say(tone, text) {
    this.answer.className = `answer ${tone}`;
    this.answer.textContent = text;
  }
}

/**
 * @param {string} name
 * @param {Record<string, any>} schema
 * @param {EventType} type
 */
function exampleOf(name, schema, type) {
  if (schema.format === "date-time") return "";
  if (name === type.channelId) return ID;
  if (schema.type === "number" || schema.type === "integer") return EXAMPLES[name] ?? "1";
  return EXAMPLES[name] ?? (schema.minLength ? name : "");
}
