/**
 * What happened: gaps, refusals, endings and errors, newest first, from the differences of the
 * counters.
 *
 * Laws: counters have no times, so what is told happened between two looks, and the time is that of
 * the later one. The same again within AGAIN_MS adds to the line that is there. Ordinary endings
 * are there on request only, so that they do not push out what matters.
 * Bounds: LINES_MAX lines of each kind, the ordinary and the others; what is older is said to be
 * gone.
 */

import { clock, count } from "./figures.js";
import { element, part } from "./element.js";
import { meaning } from "./meanings.js";

/** @typedef {import("./sample.js").Change} Change */
/** @typedef {{ change: Change, count: number, firstMs: number, lastMs: number }} Line */

const AGAIN_MS = 30_000;
const LINES_MAX = 200;

export class Happenings {
  constructor() {
    this.rows = part("happenings-rows", HTMLOListElement);
    this.note = part("happenings-note", HTMLParagraphElement);
    this.total = part("happenings-totals", HTMLParagraphElement);
    this.all = part("happenings-all", HTMLInputElement);
    this.link = part("happenings-link", HTMLAnchorElement);
    /** @type {Line[]} newest first */
    this.lines = [];
    this.gone = 0;
    this.all.addEventListener("change", () => this.#draw());
    this.#draw();
  }

  /**
   * @param {number} atMs
   * @param {Change[]} changes
   */
  add(atMs, changes) {
    for (const change of changes) {
      const same = this.lines.findIndex(
        (line) =>
          line.change.kind === change.kind &&
          line.change.name === change.name &&
          line.change.more === change.more &&
          atMs - line.lastMs <= AGAIN_MS,
      );
      const [known] = same < 0 ? [] : this.lines.splice(same, 1);
      const line = known ?? { change, count: 0, firstMs: atMs, lastMs: atMs };
      line.count += change.count;
      line.lastMs = atMs;
      this.lines.unshift(line);
    }
    if (changes.length === 0) return;
    this.lines = [...this.#bounded((line) => !isOrdinary(line)), ...this.#bounded(isOrdinary)].sort(
      (one, other) => other.lastMs - one.lastMs,
    );
    this.#draw();
  }

  /** What was counted since the start of the daemons. @param {Change[]} changes */
  showTotals(changes) {
    const sums = new Map();
    for (const change of changes) {
      const name =
        change.tone === "quiet" && change.kind === "ended"
          ? "ordinary endings"
          : (NAMES[change.kind] ?? change.kind);
      sums.set(name, (sums.get(name) ?? 0) + change.count);
    }
    const said = [...sums].map(([name, sum]) => `${name} ${count(sum)}`).join(" · ");
    this.total.textContent = said === "" ? "" : `Since the start of the daemons: ${said}`;
  }

  /** @param {(line: Line) => boolean} is */
  #bounded(is) {
    const found = this.lines.filter(is);
    this.gone += Math.max(0, found.length - LINES_MAX);
    return found.slice(0, LINES_MAX);
  }

  #draw() {
    const shown = this.all.checked ? this.lines : this.lines.filter((line) => !isOrdinary(line));
    this.rows.replaceChildren(...shown.map(row));
    const told = this.lines.filter((line) => !isOrdinary(line)).length;
    this.link.textContent = told > 0 ? `What happened (${count(told)})` : "What happened";
    this.rows.hidden = shown.length === 0;
    this.note.textContent =
      shown.length === 0
        ? "Nothing since this page was opened: no gap, no refusal, no error."
        : this.gone > 0
          ? `${count(this.gone)} older lines are gone from this list.`
          : "";
  }
}

/** @type {Record<string, string>} */
const NAMES = {
  gap: "gaps",
  "refused message": "refused messages",
  ended: "other endings",
  "not let in": "not let in",
  "refused publish": "refused publishes",
  "limit reached": "limits reached",
};

/** @param {Line} line */
function isOrdinary(line) {
  return line.change.tone === "quiet" && line.change.kind === "ended";
}

/** @param {Line} line */
function row({ change, count: times, firstMs, lastMs }) {
  const means = change.more || meaning(change.kind, change.name);
  return element(
    "li",
    {},
    element(
      "time",
      { class: "figure", title: times > 1 ? `since ${clock(firstMs)}` : null },
      clock(lastMs),
    ),
    element("span", { class: `tag ${change.tone}` }, change.kind),
    element(
      "span",
      { class: "what" },
      change.name === "" ? null : element("b", {}, change.name),
      means === "" ? null : ` ${means}`,
      times > 1 ? element("span", { class: "times figure" }, ` ×${count(times)}`) : null,
    ),
  );
}
