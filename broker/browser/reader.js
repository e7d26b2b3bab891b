// How far somebody has read a channel, and which of its events and gaps are news to them.
//
// Laws: an event at or before the place is none; a gap is, where its end is ahead of the place or
// cannot be compared with it, where it tells that what was read is undone, and where it says
// nothing of places.

import { distance, isSame } from "./place.js";

/** One reader of one channel. */
export class Reader {
  /** The daemon has yet to be asked from its place; until then it hears nothing. */
  isDeaf = false;
  /** It had a place when the daemon was asked. */
  hadPlace = false;
  #lastGap = "";

  /** @param {string | null} place null: it did not begin */
  constructor(place) {
    this.place = place;
  }

  /**
   * It is placed.
   * @param {string | null} position
   * @param {boolean} recovered
   * @param {number} replay
   */
  begin(position, recovered, replay) {}

  /**
   * @param {string | null} position of an event; null where it has none
   * @returns {boolean} whether it is news
   */
  take(position) {
    if (this.isDeaf || distance(position, this.place) <= 0) return false;
    this.place = position ?? this.place;
    this.#lastGap = "";
    return true;
  }

  /**
   * @param {import("./index.js").Gap} gap
   * @param {boolean} mayRepeat somebody else's question may have this told twice
   * @returns {boolean} whether it concerns this reader
   */
  miss({ reason, from, to }, mayRepeat) {
    if (this.isDeaf || this.place === null) return false;
    if (to === null) return this.hadPlace || reason !== "no_history";
    if (from === to && isSame(to, this.place)) {
      // Events are missing here, or nobody knows where.
      const gap = `${reason} ${to}`;
      const isRepeated = mayRepeat && this.#lastGap === gap;
      this.#lastGap = gap;
      return !isRepeated;
    }
    const isUndone = reason === "rolled_back";
    if (isUndone ? isSame(to, this.place) : distance(to, this.place) <= 0) return false;
    this.place = to;
    return true;
  }
}
