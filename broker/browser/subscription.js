// One subscriber of one channel: its handlers, its place, and the same as an async iterator.
//
// Laws: nothing is called once it is over, or before `subscribe` has returned. A handler that
// throws is the page's error, and changes nothing here.
// Bound: `QUEUE_MAX` events wait for an iterator; over it the oldest go, and `onGap` says so before
// what follows them.

import { tell } from "./errors.js";
import { NOWHERE } from "./place.js";
import { Reader } from "./reader.js";

const QUEUE_MAX = 10000;

/** One subscriber. */
export class Subscription extends Reader {
  /** It was told `onSubscribed` since the last cut. */
  isTold = false;
  isOver = false;
  /** @type {Error | undefined} */
  #error;
  /** What feeds the iterators. @type {Set<(event?: any, position?: string | null) => void>} */
  #taps = new Set();
  /** @type {string | null} */
  #position;
  /** What is to be told, in order, while `subscribe` has not returned. @type {(() => void)[] | null} */
  #held = null;
  #options;
  #leave;

  /**
   * @param {string} channel its full name
   * @param {import("./index.js").SubscribeOptions} options
   * @param {(subscription: Subscription) => void} leave
   */
  constructor(channel, options, leave) {
    super(options.since ?? null);
    this.channel = channel;
    this.#position = this.place;
    this.#options = options;
    this.#leave = leave;
  }

  /**
   * Of the last event that it was told of, or where it began; to be given back as `since`. Behind
   * `place` while something is yet to be told.
   */
  get position() {
    return this.#position;
  }

  unsubscribe() {
    if (!this.isOver) this.#end();
  }

  /** @param {import("./errors.js").BrokerError} error */
  fail(error) {
    if (this.isOver) return;
    this.#error = error;
    this.#end();
    tell(this.#options.onError, error);
  }

  /** @param {string | null} place @param {boolean} recovered @param {number} replay */
  begin(place, recovered, replay) {
    if (this.isTold) return;
    this.isTold = true;
    const position = place === NOWHERE ? null : place;
    this.#say(place, this.#options.onSubscribed, { position, recovered, replay });
  }

  /** @param {any} event @param {string | null} position */
  onEvent(event, position) {
    this.#say(position, this.#options.onEvent, event, { channel: this.channel, position });
  }

  /** @param {import("./index.js").Gap} gap */
  onGap(gap) {
    this.#say(gap.to, this.#options.onGap, gap);
  }

  /**
   * A gap that this page knows of.
   * @param {string} reason @param {string | null} from @param {string | null} to
   * @param {number} [count]
   */
  lost(reason, from, to, count) {
    const { channel } = this;
    const timestamp = new Date().toISOString();
    this.onGap({ type: "gap", channel, reason, from, to, count, timestamp });
  }

  /** @returns {AsyncGenerator<any, void, void>} */
  async *[Symbol.asyncIterator]() {
    /** @type {[any, string | null][]} */
    const waiting = [];
    let wake = () => {};
    let count = 0;
    let from = this.position ?? this.place;
    /** @type {string | null} */
    let to = null;
    const tap = (event = null, position = /** @type {string | null} */ (null)) => {
      if (!this.isOver) waiting.push([event, position]);
      if (waiting.length > QUEUE_MAX) {
        to = /** @type {[any, string | null]} */ (waiting.shift())[1];
        count += 1;
      }
      wake();
    };
    this.#taps.add(tap);
    try {
      for (;;) {
        if (count) this.lost("overflow", from, to, count);
        count = 0;
        const next = waiting.shift();
        if (next) {
          from = next[1];
          yield next[0];
        } else if (this.#error) {
          throw this.#error;
        } else if (this.isOver) {
          return;
        } else {
          await new Promise((resolve) => {
            wake = () => resolve(undefined);
          });
        }
      }
    } finally {
      this.#taps.delete(tap);
      this.unsubscribe();
    }
  }

  /** What is told until `subscribe` has returned waits; in order. */
  hold() {
    /** @type {(() => void)[]} */
    const held = (this.#held = []);
    queueMicrotask(() => {
      this.#held = null;
      for (const each of held) each();
    });
  }

  /**
   * @param {string | null} position where it is then; null: where it was
   * @param {((fact: any, place: any) => void) | undefined} handler
   * @param {any} fact
   * @param {{ position: string | null, channel: string }} [place] of an event
   */
  #say(position, handler, fact, place) {
    const say = () => {
      if (this.isOver) return;
      this.#position = position ?? this.#position;
      if (place) for (const tap of this.#taps) tap(fact, place.position);
      tell(handler, fact, place);
    };
    if (this.#held) this.#held.push(say);
    else say();
  }

  #end() {
    this.isOver = true;
    for (const tap of this.#taps) tap();
    this.#leave(this);
  }
}
