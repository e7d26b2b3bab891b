/**
 * The watch: asks the daemon for its figures every INTERVAL_MS, one question after the other.
 *
 * Laws: nothing is asked while the page is hidden, and at once when it is seen again. A daemon that
 * does not answer is asked on. One that wants a token is not asked again until there is another
 * (`lookSoon`).
 * Bounds: one question at a time.
 */

import { Away, Refused } from "./daemon.js";

const INTERVAL_MS = 2000;

/**
 * @typedef {object} Listener
 * @property {(sample: import("./sample.js").Sample) => void} onSample
 * @property {(why: Away | Refused) => void} onProblem there is nothing new
 */

export class Watch {
  /**
   * @param {import("./daemon.js").Daemon} daemon
   * @param {Listener} listener
   */
  constructor(daemon, listener) {
    this.daemon = daemon;
    this.listener = listener;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.isLooking = false;
    this.isOn = false;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.lookSoon();
      else clearTimeout(this.timer);
    });
    window.addEventListener("online", () => this.lookSoon());
  }

  start() {
    this.isOn = true;
    this.lookSoon();
  }

  stop() {
    this.isOn = false;
    clearTimeout(this.timer);
  }

  /** Ask now, unless an answer is awaited. */
  lookSoon() {
    clearTimeout(this.timer);
    if (this.isOn && !document.hidden && !this.isLooking) void this.#look();
  }

  async #look() {
    this.isLooking = true;
    try {
      const stats = await this.daemon.ask("api/realtime/stats", { clients: 0, channels: 0 });
      this.listener.onSample({ atMs: Date.now(), tickMs: performance.now(), stats });
    } catch (error) {
      if (!(error instanceof Away || error instanceof Refused)) throw error;
      this.listener.onProblem(error);
    } finally {
      this.isLooking = false;
      clearTimeout(this.timer);
      if (this.isOn && !document.hidden)
        this.timer = setTimeout(() => this.lookSoon(), INTERVAL_MS);
    }
  }
}
