// A channel that the page follows: its subscribers, how far each of them is, and its last events.
//
// One subscription at the daemon serves them all. Each has a place of its own (reader.js), so
// nobody gets an event twice or out of order, or a gap that does not concern it:
//
// * Who comes without a place gets what a new subscriber gets: the last `replay` events, kept here.
// * Who comes with another place is deaf until the channel was asked for from there, and the others
//   pass over what they had. Who is then behind, or in another epoch, is deaf too, and asked for
//   next.
// * After a cut the channel is asked for from its own place first, then from that of each who is
//   not there: only the daemon knows whether a place still counts.
// * A channel without history has no places: who comes back says `NOWHERE`, and is told of a gap.
//
// Bounds: `REPLAY_MAX` events are kept; one question to the daemon at a time.

import { before, distance, isSame, NOWHERE } from "./place.js";
import { Reader } from "./reader.js";

const REPLAY_MAX = 100;
/** How long after a question for one of them the others may be told a gap again. */
const REPEAT_MS = 5000;

/** @typedef {import("./subscription.js").Subscription} Subscription */

/** One channel. */
export class Topic {
  /** @type {Set<Subscription>} */
  subscriptions = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  lingering;
  /** How far the channel itself was read; newcomers go on from there. */
  #front = new Reader(null);
  /** The last events. @type {[any, string | null][]} */
  #ring = [];
  #replay = 0;
  /** From where it was asked for last. @type {string | null} */
  #asked = null;
  #isAsking = false;
  #owesGap = false;
  #isLive = false;
  #askedAgainAt = -Infinity;
  #ask;

  /** @param {() => void} ask ask the daemon for it; `sinceOf` is called when that is done */
  constructor(ask) {
    this.#ask = ask;
  }

  /** @param {Subscription} subscription */
  add(subscription) {
    this.subscriptions.add(subscription);
    const front = this.#front.place;
    const since = subscription.place;
    if (front === null) {
      subscription.isDeaf = since !== null;
    } else if (since !== null && front !== NOWHERE && !isSame(since, front)) {
      subscription.isDeaf = true;
      this.#settle();
    } else {
      const replayed = since === null ? this.#ring : [];
      const isUnknown = since !== null && front === NOWHERE;
      const begun = replayed[0]?.[1] ? before(replayed[0][1]) : front;
      subscription.place = front;
      subscription.isDeaf = this.#front.isDeaf;
      subscription.hold();
      if (this.#isLive) subscription.begin(begun, since !== null && !isUnknown, this.#replay);
      if (isUnknown) subscription.lost("no_history", null, null);
      for (const [event, position] of replayed) subscription.onEvent(event, position);
    }
  }

  /** The connection is gone. */
  cut() {
    this.#isLive = this.#isAsking = false;
    for (const subscription of this.subscriptions) {
      const { place } = subscription;
      subscription.isTold = false;
      subscription.isDeaf = place !== null && !isSame(place, this.#front.place);
    }
  }

  /** The daemon is asked now: from where. */
  sinceOf() {
    const readers = this.#readers();
    const [front, ...others] = readers;
    const isAnew = front.place !== null || others.some(({ place }) => place === null);
    const first = !this.#isLive && isAnew
      ? front
      : readers.find(({ isDeaf }) => isDeaf) ??
        readers.reduce((last, each) => (distance(each.place, last.place) < 0 ? each : last));
    const asked = first.place;
    for (const reader of readers) reader.hadPlace = reader.place !== null;
    this.#asked = asked;
    this.#isAsking = true;
    this.#owesGap = false;
    return asked ?? undefined;
  }

  /** @param {import("./index.js").Start} start */
  answered({ position, recovered, replay = 0 }) {
    if (!this.#isAsking) {
      if (!this.#isLive) return;
      // A connection that several tabs share came back by itself.
      for (const subscription of this.subscriptions) {
        // Who is deaf has a question of its own.
        subscription.isTold = subscription.isDeaf;
        subscription.begin(subscription.place, recovered, replay);
      }
      return;
    }
    this.#isLive = true;
    this.#replay = Math.min(replay, REPLAY_MAX);
    const asked = this.#asked;
    for (const reader of this.#readers()) {
      // Until now somebody who asked for less was deaf: an old stream may have been read on.
      const { place } = reader;
      const isCovered = !reader.isDeaf && distance(place, asked) >= 0;
      reader.isDeaf = place !== null && place !== asked && !isCovered;
      if (reader.isDeaf) continue;
      if (place === null || position === null) reader.place = position ?? NOWHERE;
      reader.begin(reader.place, recovered, this.#replay);
    }
    // Then the next question has to wait for the gap, or whom it concerns never hears of it.
    this.#owesGap = asked !== null && !recovered;
    this.#isAsking = this.#owesGap;
    this.#settle();
  }

  /** @param {any} event @param {string | null} position */
  heard(event, position) {
    if (!this.#isLive && !this.#isAsking) return;
    if (this.#front.take(position)) this.#ring.push([event, position]);
    if (this.#ring.length > this.#replay) this.#ring.shift();
    for (const subscription of this.subscriptions) {
      if (subscription.take(position)) subscription.onEvent(event, position);
    }
  }

  /** @param {import("./index.js").Gap} gap */
  missed(gap) {
    const mayRepeat = Date.now() - this.#askedAgainAt < REPEAT_MS;
    if (this.#front.miss(gap, mayRepeat) && gap.to !== gap.from) this.#ring = [];
    for (const subscription of this.subscriptions) {
      if (subscription.miss(gap, mayRepeat)) subscription.onGap(gap);
    }
    if (this.#owesGap) this.#isAsking = this.#owesGap = false;
    this.#settle();
  }

  #readers() {
    return [this.#front, ...this.subscriptions];
  }

  /** Ask again, if somebody was left out. */
  #settle() {
    if (this.#isAsking || !this.#isLive || !this.#readers().some(({ isDeaf }) => isDeaf)) return;
    this.#isAsking = true;
    this.#askedAgainAt = Date.now();
    this.#ask();
  }
}
