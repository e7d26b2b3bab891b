/**
 * The channels that somebody follows: the busiest first, with a button to see what comes on each.
 */

import { count, short } from "./figures.js";
import { element, part, write } from "./element.js";
import { Listing } from "./listing.js";

export class Channels {
  /**
   * @param {import("./daemon.js").Daemon} daemon
   * @param {(channel: string) => void} onFollow
   */
  constructor(daemon, onFollow) {
    const search = part("channels-search", HTMLInputElement);
    const limit = part("channels-limit", HTMLSelectElement);
    /** @type {import("./listing.js").Column[]} */
    const columns = [
      {
        title: "Channel",
        sort: "name",
        fill: (cell, row) => fillName(cell, String(row.name), onFollow),
      },
      {
        title: "Per second",
        sort: "rate",
        isNumber: true,
        fill: (cell, row) => write(cell, rate(row.rate)),
      },
      {
        title: "Subscribers",
        sort: "subscribers",
        isNumber: true,
        fill: (cell, row) => write(cell, count(row.subscribers)),
      },
      {
        title: "Messages",
        isNumber: true,
        extra: "1",
        fill: (cell, row) => write(cell, short(row.messages)),
      },
    ];
    const parts = {
      table: part("channels-table", HTMLDivElement),
      counted: part("channels-count", HTMLSpanElement),
      note: part("channels-note", HTMLParagraphElement),
    };
    this.listing = new Listing(
      daemon,
      "api/realtime/channels",
      "channels",
      "name",
      columns,
      parts,
      () => ({ limit: limit.value, prefix: search.value.trim() }),
      "rate",
    );
    search.addEventListener("input", () => this.listing.refreshSoon());
    limit.addEventListener("change", () => void this.listing.refresh());
  }
}

/**
 * @param {HTMLElement} cell
 * @param {string} name
 * @param {(channel: string) => void} onFollow
 */
function fillName(cell, name, onFollow) {
  if (cell.firstChild !== null) return; // a row is of one channel for good
  const button = element(
    "button",
    { type: "button", class: "follow", title: "Follow it in the live tail" },
    name,
  );
  button.addEventListener("click", () => onFollow(name));
  cell.append(button);
}

/** @param {unknown} value */
function rate(value) {
  if (typeof value !== "number") return count(value);
  return value > 0 && value < 10 ? value.toFixed(1) : short(Math.round(value));
}
