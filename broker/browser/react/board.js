/**
 * A board: a value that many events change, and what components see of it.
 *
 * Laws: `value` is always the newest; `shown` follows at the next frame, and is the same object
 * until then, as useSyncExternalStore wants it. Nothing is opened or asked for here.
 *
 * Bounds: one value; who changes it keeps it small.
 */

import { showAtNextFrame } from "./frame.js";

/** @template T */
export class Board {
  /** @type {Set<() => void>} */
  #watchers = new Set();

  /** @param {T} value what is shown first, on a server too */
  constructor(value) {
    /** The newest. */
    this.value = value;
    /** What components see. */
    this.shown = value;
    this.first = value;
  }

  /**
   * Change the value; it is shown at the next frame.
   *
   * @param {T} value
   */
  change(value) {
    if (value === this.value) return;
    this.value = value;
    showAtNextFrame(this);
  }

  /** Show what changed at once: somebody pressed a button and waits for it. */
  show() {
    if (this.shown === this.value) return;
    this.shown = this.value;
    for (const watcher of [...this.#watchers]) watcher();
  }

  /**
   * @param {() => void} watcher called when `shown` is another
   * @returns {() => void} stops it
   */
  watch(watcher) {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  get isWatched() {
    return this.#watchers.size > 0;
  }
}
