// A watchdog: finds a connection that is silent, at its beginning or after sleep or a change of
// network.
//
// At first something must come within `openMs`. Later whoever is not heard for `silenceMs` is
// asked, and cut if nothing comes until the next tick. So it is after a wake, and after a tick that
// came much too late: then the machine slept or the page was frozen, and an answer may be waiting
// already, so the first such tick cuts nobody. In hidden pages all ticks are late. A stream cannot
// be asked; at a wake it is left alone if it was heard lately.

const TICK_MS = 5000;
const LATE_MS = 2000;

/** Watches one connection until it is stopped. */
export class Watchdog {
  /** How many questions are open; to be opened is one. */
  #asked = 1;
  #heardAt = Date.now();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #ask;
  #cut;

  /**
   * @param {number} openMs
   * @param {number} silenceMs
   * @param {(() => void) | null} ask make the other end say something; null where there is no way
   * @param {() => void} cut
   */
  constructor(openMs, silenceMs, ask, cut) {
    this.silenceMs = silenceMs;
    this.#ask = ask;
    this.#cut = cut;
    this.#wait(openMs);
  }

  heard() {
    this.#heardAt = Date.now();
    this.#asked = 0;
  }

  /** Is it there? It has until the next tick. */
  wake() {
    if (this.#ask || this.#isSilent(this.silenceMs / 2)) {
      this.#asked += 1;
      this.#ask?.();
    }
    this.#wait(TICK_MS);
  }

  stop() {
    clearTimeout(this.#timer);
  }

  /** @param {number} ms */
  #isSilent(ms) {
    return Date.now() - this.#heardAt >= ms;
  }

  /** @param {number} ms */
  #wait(ms) {
    this.stop();
    const lateAt = Date.now() + ms + LATE_MS;
    this.#timer = setTimeout(() => {
      const isLate = Date.now() > lateAt;
      if (this.#asked && !(isLate && this.#asked < 2)) this.#cut();
      else if (isLate || this.#isSilent(this.silenceMs)) this.wake();
      else this.#wait(TICK_MS);
    }, ms);
  }
}
