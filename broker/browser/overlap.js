// What comes on two streams while one takes the other's place, on channels that have no places.
//
// Law: the new stream begins with what the old one ended with, as far as both have it. That is
// passed over, for `WINDOW_MS`. Not where the bytes are no evidence, as a channel repeats
// itself: better twice than never.
// Bound: `KEPT_MAX` events of each channel that is read.

const KEPT_MAX = 1000;
const WINDOW_MS = 1000;

/** The overlap of the streams of one session. */
export class Overlap {
  /** What came since the new stream was asked for, by channel. @type {Map<any, string[]>} */
  #later = new Map();
  /** The same, once the new stream is read. @type {Map<any, string[]>} */
  #had = new Map();
  #endsAt = 0;
  /** The last event of each channel. @type {Map<any, string>} */
  #last = new Map();
  /** Channels that said the same twice in a row. */
  #repeating = new Set();

  /** Another stream is asked for. */
  begin() {
    this.#later = new Map();
  }

  /**
   * It is read now, and the old one is no more.
   * @param {Set<string>} names its channels; the others are forgotten
   */
  end(names) {
    this.#had = this.#later;
    this.#later = new Map();
    this.#endsAt = Date.now() + WINDOW_MS;
    for (const channel of this.#last.keys()) {
      if (channel === null || names.has(channel)) continue;
      this.#last.delete(channel);
      this.#repeating.delete(channel);
    }
  }

  /**
   * @param {string | null} channel
   * @param {string} data
   * @param {boolean} isAsking another stream is asked for
   * @returns {boolean} whether it did not come before
   */
  isNews(channel, data, isAsking) {
    const had = this.#had.get(channel) ?? [];
    const index = had.indexOf(data);
    const isSure = index === had.lastIndexOf(data) && !this.#repeating.has(channel);
    if (index >= 0 && isSure && Date.now() < this.#endsAt) {
      had.splice(0, index + 1);
      return false;
    }
    this.#had.delete(channel);
    if (this.#last.get(channel) === data) this.#repeating.add(channel);
    this.#last.set(channel, data);
    if (isAsking) {
      const later = this.#later.get(channel) ?? [];
      later.push(data);
      if (later.length > KEPT_MAX) later.shift();
      this.#later.set(channel, later);
    }
    return true;
  }
}
