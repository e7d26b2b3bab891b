/**
 * A list that the daemon sorts and cuts: the first rows of what may be ten thousand, asked for anew
 * now and then.
 *
 * Laws: all are never listed; the daemon sorts, searches and cuts, and the page says how many of
 * how many it shows. Of two questions only the answer to the later one is shown. Rows that are
 * there already are changed and not made anew, so that a pressed button or a selection survives.
 * Bounds: the limit that is asked for, at most 1000 rows.
 */

import { Away, Refused } from "./daemon.js";
import { count } from "./figures.js";
import { element } from "./element.js";

const TYPED_MS = 200;

/** @typedef {Record<string, any>} Row */

/**
 * @typedef {object} Column
 * @property {string} title
 * @property {string} [sort] the name of the order that it stands for
 * @property {boolean} [isNumber]
 * @property {string} [extra] "2": left out where there is little room; "1": sooner
 * @property {(cell: HTMLElement, row: Row) => void} fill writes the row's value into its cell
 */

/**
 * @typedef {object} Parts of the page
 * @property {HTMLElement} table
 * @property {HTMLElement} counted
 * @property {HTMLElement} note
 */

export class Listing {
  /**
   * @param {import("./daemon.js").Daemon} daemon
   * @param {string} path
   * @param {string} name of the rows in the answer
   * @param {string} key the field that tells rows apart
   * @param {Column[]} columns
   * @param {Parts} parts
   * @param {() => Record<string, string | number>} query besides the order
   * @param {string} sort the first order
   */
  constructor(daemon, path, name, key, columns, parts, query, sort) {
    this.daemon = daemon;
    this.path = path;
    this.name = name;
    this.key = key;
    this.columns = columns;
    this.parts = parts;
    this.query = query;
    this.sort = sort;
    /** @type {AbortController | null} */
    this.asking = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.typing = undefined;
    /** @type {Map<string, HTMLTableRowElement>} */
    this.rows = new Map();
    this.heads = columns.map((column) => this.#head(column));
    this.#mark();
    this.body = element("tbody");
    parts.table.append(
      element("table", {}, element("thead", {}, element("tr", {}, ...this.heads)), this.body),
    );
  }

  /** Ask soon: somebody types. */
  refreshSoon() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => void this.refresh(), TYPED_MS);
  }

  /** Ask, if no question is under way: a slow answer is waited for and not asked for again. */
  async refreshIfIdle() {
    if (this.asking === null) await this.refresh();
  }

  /** Ask now. Rejects never: what is wrong stands above the list. */
  async refresh() {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    try {
      const found = await this.daemon.ask(
        this.path,
        { sort: this.sort, ...this.query() },
        asking.signal,
      );
      if (this.asking === asking) this.show(found);
    } catch (error) {
      if (this.asking !== asking) return;
      if (!(error instanceof Refused || error instanceof Away)) throw error;
      this.parts.note.textContent = `This list is not new: ${error.message}`;
    } finally {
      if (this.asking === asking) this.asking = null;
    }
  }

  /** @param {Record<string, any>} found */
  show(found) {
    const rows = /** @type {Row[]} */ (Array.isArray(found[this.name]) ? found[this.name] : []);
    const total = typeof found.total === "number" ? found.total : rows.length;
    this.parts.counted.textContent =
      total > rows.length ? `${count(rows.length)} of ${count(total)}` : count(total);
    this.parts.note.textContent = rows.length === 0 ? "None." : "";
    const before = this.rows;
    this.rows = new Map();
    rows.forEach((row, index) => {
      const key = String(row[this.key]);
      const line = before.get(key) ?? this.#line();
      this.rows.set(key, line);
      this.columns.forEach((column, place) =>
        column.fill(/** @type {HTMLElement} */ (line.children[place]), row),
      );
      if (this.body.children[index] !== line)
        this.body.insertBefore(line, this.body.children[index] ?? null);
    });
    while (this.body.children.length > this.rows.size) this.body.lastElementChild?.remove();
  }

  #line() {
    return element(
      "tr",
      {},
      ...this.columns.map((column) => element("td", { class: classOf(column) })),
    );
  }

  /** @param {Column} column */
  #head(column) {
    const head = element("th", { scope: "col", class: classOf(column) });
    if (column.sort === undefined) {
      head.append(column.title);
      return head;
    }
    const button = element("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      this.sort = column.sort ?? this.sort;
      this.#mark();
      void this.refresh();
    });
    head.append(button);
    return head;
  }

  #mark() {
    this.columns.forEach((column, place) => {
      const head = this.heads[place];
      if (column.sort !== this.sort) head?.removeAttribute("aria-sort");
      else head?.setAttribute("aria-sort", column.isNumber ? "descending" : "ascending");
    });
  }
}

/** @param {Column} column */
function classOf(column) {
  return (
    [column.isNumber ? "number" : "", column.extra ? `extra-${column.extra}` : ""]
      .filter(Boolean)
      .join(" ") || null
  );
}
