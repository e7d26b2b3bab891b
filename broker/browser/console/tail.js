/**
 * The live tail: what comes on a few channels, newest first.
 *
 * Laws: what is dropped from view is said. Events reach the page once a frame, and no longer than
 * FRAME_BUDGET_MS of it, so that a flood does not freeze it; what comes faster waits, and of too
 * many that wait the oldest go, counted. A payload is shown as text; it is laid out in full only
 * when a row is opened.
 * Bounds: CHANNELS_MAX channels, ROWS_MAX rows in view, WAITING_MAX events that wait (also while it
 * is paused).
 */

import { clock, count } from "./figures.js";
import { element, part, write } from "./element.js";

/** @typedef {import("../index.js").Client} Client */
/** @typedef {"event" | "gap" | "error"} Kind */
/** @typedef {{ atMs: number, channel: string, kind: Kind, value: unknown }} Entry */
/** @typedef {{ chip: HTMLLIElement, stop: () => void, settled: Promise<void> }} Followed */

export const CHANNELS_MAX = 20;
const ROWS_MAX = 300;
const WAITING_MAX = 1000;
const FRAME_BUDGET_MS = 6;
const LINE_MAX = 400;
const SETTLED_MS = 2000;
const FORBIDDEN =
  "To follow a channel the token needs the right to subscribe to it, such as --subscribe '*'.";
const UNSAID = new Set(["type", "channel", "timestamp", "id"]);

export class Tail {
  /**
   * @param {() => Client} connect
   * @param {Record<string, { channelType: string }>} types of events, and the channels that they
   * are for
   * @param {(channels: string[]) => void} onChannels told of each change
   */
  constructor(connect, types, onChannels) {
    this.connect = connect;
    this.types = types;
    this.onChannels = onChannels;
    /** @type {Client | null} */
    this.client = null;
    /** @type {Map<string, Followed>} */
    this.followed = new Map();
    /** @type {Entry[]} oldest first */
    this.waiting = [];
    this.isDue = false;
    this.isPaused = false;
    this.left = 0;
    this.missed = 0;
    this.unmatched = 0;

    this.rows = part("tail-rows", HTMLDivElement);
    this.note = part("tail-note", HTMLParagraphElement);
    this.state = part("tail-state", HTMLSpanElement);
    this.chips = part("tail-channels", HTMLUListElement);
    this.filter = part("tail-filter", HTMLInputElement);
    this.pause = part("tail-pause", HTMLButtonElement);
    const input = part("tail-channel", HTMLInputElement);
    part("tail-follow", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      const channel = input.value.trim();
      if (channel !== "" && this.follow(channel) !== null) input.value = "";
    });
    this.pause.addEventListener("click", () => this.#setPaused(!this.isPaused));
    part("tail-clear", HTMLButtonElement).addEventListener("click", () => this.#clear());
    this.filter.addEventListener("input", () => this.#refilter());
    this.#say();
  }

  /** The channels that are followed. */
  get channels() {
    return [...this.followed.keys()];
  }

  /**
   * Follow a channel too.
   * @param {string} channel
   * @returns {Promise<void> | null} until it is followed, or cannot be, or SETTLED_MS are over;
   * null: there are too many
   */
  follow(channel) {
    const known = this.followed.get(channel);
    if (known !== undefined) return known.settled;
    if (this.followed.size >= CHANNELS_MAX) {
      const full = `The tail follows at most ${CHANNELS_MAX} channels: take one away first.`;
      this.note.textContent = full;
      return null;
    }
    const chip = element("li", {}, element("span", { class: "name" }, channel));
    const close = element(
      "button",
      { type: "button", "aria-label": `Stop following ${channel}` },
      "×",
    );
    close.addEventListener("click", () => this.unfollow(channel));
    chip.append(close);
    this.chips.append(chip);
    let settle = () => {};
    const settled = new Promise((/** @type {(value: void) => void} */ done) => {
      settle = done;
      setTimeout(done, SETTLED_MS);
    });
    const stop = this.#subscribe(channel, chip, settle);
    this.followed.set(channel, { chip, stop, settled });
    this.#say();
    this.onChannels(this.channels);
    return settled;
  }

  /** @param {string} channel */
  unfollow(channel) {
    const known = this.followed.get(channel);
    if (known === undefined) return;
    this.followed.delete(channel);
    known.stop();
    known.chip.remove();
    this.#say();
    this.onChannels(this.channels);
  }

  /** Follow nothing, and give the connection back. Nobody is told. */
  close() {
    for (const { chip, stop } of this.followed.values()) {
      stop();
      chip.remove();
    }
    this.followed.clear();
    this.client?.close();
    this.client = null;
    this.#say();
  }

  /**
   * @param {string} channel
   * @param {HTMLLIElement} chip
   * @param {() => void} settle
   */
  #subscribe(channel, chip, settle) {
    const fail = (/** @type {unknown} */ error) => {
      chip.classList.add("failed");
      chip.title = messageOf(error);
      chip.dataset.code = codeOf(error);
      this.#add(channel, "error", messageOf(error));
      settle();
    };
    try {
      if (this.client === null) {
        this.client = this.connect();
        this.client.onStatus(() => this.#say());
      }
      const subscription = this.client.subscribe(channel, {
        onEvent: (event) => this.#add(channel, "event", event),
        onGap: (gap) => this.#add(channel, "gap", gap),
        onError: fail,
        onSubscribed: () => {
          chip.classList.remove("failed");
          delete chip.dataset.code;
          settle();
        },
      });
      return () => subscription.unsubscribe();
    } catch (error) {
      fail(error);
      return () => {};
    }
  }

  /**
   * @param {string} channel
   * @param {Entry["kind"]} kind
   * @param {unknown} value
   */
  #add(channel, kind, value) {
    this.waiting.push({ atMs: Date.now(), channel, kind, value });
    if (this.waiting.length > WAITING_MAX) {
      this.waiting.shift();
      this.missed += 1;
    }
    this.#showSoon();
  }

  #showSoon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.#show();
    });
  }

  #show() {
    if (!this.isPaused) {
      const made = document.createDocumentFragment();
      const until = performance.now() + FRAME_BUDGET_MS;
      let taken = 0;
      const wanted = this.filter.value.trim().toLowerCase();
      while (taken < this.waiting.length && performance.now() < until) {
        const entry = /** @type {Entry} */ (this.waiting[taken]);
        taken += 1;
        const row = rowOf(entry, this.types);
        // What does not match takes no room: rare matches would be pushed out by the others.
        if (matches(row, wanted)) made.prepend(row);
        else this.unmatched += 1;
      }
      this.waiting.splice(0, taken);
      this.rows.prepend(made);
      while (this.rows.childElementCount > ROWS_MAX) {
        this.rows.lastElementChild?.remove();
        this.left += 1;
      }
      if (this.waiting.length > 0) this.#showSoon();
    }
    this.#say();
  }

  #refilter() {
    this.unmatched = 0;
    const wanted = this.filter.value.trim().toLowerCase();
    for (const row of this.rows.children) {
      if (row instanceof HTMLElement) row.hidden = !matches(row, wanted);
    }
    this.#say();
  }

  #clear() {
    this.rows.replaceChildren();
    this.waiting = [];
    this.left = 0;
    this.missed = 0;
    this.unmatched = 0;
    this.#say();
  }

  /** @param {boolean} isPaused */
  #setPaused(isPaused) {
    this.isPaused = isPaused;
    this.pause.setAttribute("aria-pressed", String(isPaused));
    this.pause.textContent = isPaused ? "Go on" : "Pause";
    this.#showSoon();
  }

  #say() {
    write(this.state, this.#stateText());
    const said = [];
    if (this.followed.size === 0)
      said.push("Nothing is followed: type a channel, or press one in the list of channels.");
    if (this.chips.querySelector("[data-code=forbidden]") !== null) said.push(FORBIDDEN);
    if (this.isPaused) said.push(`Paused: ${count(this.waiting.length)} wait.`);
    if (this.missed > 0)
      said.push(`${count(this.missed)} came faster than they could be shown, and were left out.`);
    if (this.left > 0)
      said.push(`The newest ${ROWS_MAX} are in view; ${count(this.left)} older ones have left it.`);
    if (this.filter.value.trim() !== "") {
      said.push(
        `Only events with the text are shown; since then ${count(this.unmatched)} others came.`,
      );
    }
    write(this.note, said.join(" "));
  }

  #stateText() {
    if (this.client === null || this.followed.size === 0) return "";
    const { state, transport, nextRetryAt, error } = this.client.status;
    if (state === "open") return `live over ${transport === "sse" ? "SSE" : "WebSocket"}`;
    if (state === "waiting" && nextRetryAt !== null)
      return `connects again at ${clock(nextRetryAt)}`;
    return state === "failed" ? `not connected: ${error?.message ?? "it failed"}` : `${state}`;
  }
}

/**
 * A row. Its line leaves out what says nothing: the type where the channel says it, the time, the
 * id.
 * @param {Entry} entry @param {Record<string, { channelType: string }>} types
 */
function rowOf({ atMs, channel, kind, value }, types) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const type = kind === "event" ? typeOf(value) : kind;
  const isImplied =
    Object.hasOwn(types, type) && types[type]?.channelType === channel.split(":")[0];
  const summary = element(
    "summary",
    {},
    element("time", { class: "figure" }, clock(atMs)),
    element("span", { class: "channel", title: channel }, channel),
    element(
      "span",
      { class: "payload" },
      isImplied
        ? null
        : element(
            "span",
            { class: `tag ${kind === "event" ? "quiet" : kind === "gap" ? "warn" : "bad"}` },
            type,
          ),
      line(value, text),
    ),
  );
  const row = element("details", { class: `row ${kind}` }, summary);
  searched.set(row, `${channel} ${text}`.toLowerCase());
  row.addEventListener("toggle", () => {
    if (row.open && row.childElementCount === 1) {
      row.append(
        element(
          "pre",
          { tabindex: 0 },
          typeof value === "string" ? value : JSON.stringify(value, null, 2),
        ),
      );
    }
  });
  return row;
}

/**
 * A value in one line.
 * @param {unknown} value
 * @param {string} text the same as JSON
 */
function line(value, text) {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return text.slice(0, LINE_MAX);
  // What an event says in words comes first, as a line has little room.
  const said = "message" in value && typeof value.message === "string" ? value.message : "";
  const parts = said === "" ? [] : [said.slice(0, LINE_MAX)];
  let length = said.length;
  for (const [name, inner] of Object.entries(value)) {
    if (length > LINE_MAX || UNSAID.has(name) || (name === "message" && said !== "")) continue;
    const part = `${name} ${typeof inner === "string" ? inner : JSON.stringify(inner)}`;
    parts.push(part.slice(0, LINE_MAX));
    length += part.length;
  }
  return parts.join(" · ");
}

/** What the filter looks at, for as long as the row is there. @type {WeakMap<Element, string>} */
const searched = new WeakMap();

/**
 * @param {Element} row
 * @param {string} wanted in lower case
 */
function matches(row, wanted) {
  return wanted === "" || (searched.get(row) ?? "").includes(wanted);
}

/** @param {unknown} value */
function typeOf(value) {
  const type = typeof value === "object" && value !== null && "type" in value ? value.type : null;
  return typeof type === "string"
    ? type.slice(0, 40)
    : typeof value === "string"
      ? "text"
      : "no type";
}

/** @param {unknown} error */
function messageOf(error) {
  if (!(error instanceof Error)) return String(error);
  const code = codeOf(error);
  return code === "" ? error.message : `${code}: ${error.message}`;
}

/**
 * @param {unknown} error
 * @returns {string} such as forbidden; empty where it has none
 */
function codeOf(error) {
  const found = error instanceof Error && "code" in error ? error.code : "";
  return typeof found === "string" ? found : "";
}
