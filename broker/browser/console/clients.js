/**
 * The clients: those first for whom most bytes wait, which are the slow ones.
 */

import { ago, count, size, text } from "./figures.js";
import { element, part, write } from "./element.js";
import { Listing } from "./listing.js";

const LIMIT = 50;

export class Clients {
  /** @param {import("./daemon.js").Daemon} daemon */
  constructor(daemon) {
    const search = part("clients-search", HTMLInputElement);
    const by = part("clients-by", HTMLSelectElement);
    /** @type {import("./listing.js").Column[]} */
    const columns = [
      { title: "Client", fill: fillName },
      { title: "Waiting", sort: "queued", isNumber: true, fill: fillWaiting },
      {
        title: "Events",
        sort: "events",
        isNumber: true,
        fill: (cell, row) => write(cell, count(row.eventCount)),
      },
      { title: "Channels", isNumber: true, extra: "1", fill: fillChannels },
      {
        title: "Here for",
        sort: "connected",
        isNumber: true,
        extra: "1",
        fill: (cell, row) => write(cell, ago(row.connectedAt, Date.now())),
      },
    ];
    const parts = {
      table: part("clients-table", HTMLDivElement),
      counted: part("clients-count", HTMLSpanElement),
      note: part("clients-note", HTMLParagraphElement),
    };
    this.listing = new Listing(
      daemon,
      "api/realtime/clients",
      "clients",
      "id",
      columns,
      parts,
      () => ({ limit: LIMIT, [by.value]: search.value.trim() }),
      "queued",
    );
    search.addEventListener("input", () => this.listing.refreshSoon());
    by.addEventListener("change", () => void this.listing.refresh());
  }
}

/**
 * @param {HTMLElement} cell
 * @param {import("./listing.js").Row} row
 */
function fillName(cell, row) {
  const who = row.userId ? String(row.userId) : text(row.id);
  const id = row.userId ? ` ${text(row.id)}` : "";
  const rest = ` ${text(row.transport)}${id}${row.isAlive === false ? ", not alive" : ""}`;
  if (cell.textContent === who + rest) return;
  cell.replaceChildren(element("b", {}, who), element("span", { class: "quiet" }, rest));
  cell.title = `${who}${rest}, at ${text(row.node)}`;
}

/**
 * @param {HTMLElement} cell
 * @param {import("./listing.js").Row} row
 */
function fillWaiting(cell, row) {
  const waiting = Number(row.queuedBytes ?? 0) + Number(row.backlogBytes ?? 0);
  cell.classList.toggle("warn", waiting > 0);
  write(cell, size(waiting));
}

/**
 * @param {HTMLElement} cell
 * @param {import("./listing.js").Row} row
 */
function fillChannels(cell, row) {
  write(cell, count(row.channelCount));
  const names = Array.isArray(row.subscribedChannels) ? row.subscribedChannels.map(String) : [];
  cell.title = names.length < row.channelCount ? `${names.join("\n")}\n…` : names.join("\n");
}
