// A session over server-sent events, in `broker.v1`: one stream that names every channel.
//
// Laws: other channels are another stream, asked for once for all changes of a turn, and not while
// one is on its way. The old one is read until the new one has said `connected`, and what comes
// twice is told by its place; without history there are no places, and it is told by its bytes
// (overlap.js). A channel that is refused is left out, and the others go on.
// Bound: `channelsMax` channels, as many as the daemon takes; it is lowered where a daemon or a
// proxy takes less. Those over it wait where there may be a WebSocket, and are refused as soon as
// the others are there where there is none.

import { BrokerError } from "./errors.js";
import { Overlap } from "./overlap.js";
import { NOWHERE } from "./place.js";
import { readStream } from "./streamreader.js";

/** Bad request, and an address that is too long: for the daemon, or for a proxy before it. */
const TOO_MANY = [400, 414, 431];

/**
 * @typedef {object} Stream
 * @property {import("./redial.js").Line} line
 * @property {Set<string>} names
 */

/** @type {import("./link.js").OpenSession} */
export function openStreamSession(call, settings, events, names) {
  const { url, getToken, userId, transport, channelsMax } = settings;
  const overlap = new Overlap();
  /** The one that is read. @type {Stream | null} */
  let current = null;
  /** The one that is asked for. @type {Stream | null} */
  let next = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let gathering;
  let hasChanged = false;
  let isOver = false;

  function hangUp() {
    isOver = true;
    clearTimeout(gathering);
    next?.line.hangUp();
    current?.line.hangUp();
  }

  const taken = () => [...names].slice(0, settings.channelsMax);

  /** @param {string} name */
  function sync(name) {
    if ((next ?? current)?.names.has(name) || taken().includes(name)) gather();
    else if (names.has(name)) setTimeout(turnAway, 0);
  }

  function gather() {
    clearTimeout(gathering);
    hasChanged = next !== null;
    if (!isOver && !next) gathering = setTimeout(reopen, 0);
  }

  /** Those for whom there is no place. */
  function turnAway() {
    const surplus = isOver || !current ? [] : [...names].slice(settings.channelsMax);
    const words = `over SSE at most ${settings.channelsMax} channels`;
    if (transport === "sse" || typeof WebSocket !== "function") {
      const message = `${words}; unsubscribe from some`;
      for (const name of surplus) {
        events.onRefused(name, new BrokerError("too_many_subscriptions", message));
      }
    } else if (surplus.length && !settings.hasWarned) {
      settings.hasWarned = true;
      console.warn(`broker: ${words}; ${surplus.length} more wait for a WebSocket`);
    }
  }

  /**
   * Whether the answer says that fewer channels may do; then fewer are asked for.
   * @param {import("./errors.js").BrokerError} error
   * @param {number} count how many were asked for
   * @param {string} [channel] that is to blame
   */
  function isTooMany({ status = 0, message }, count, channel) {
    const told = Number(/\d+ channels; at most (\d+)/.exec(message)?.[1]);
    const isTold = told > 0 && told < count;
    if (!isTold && (channel || count < 2 || !TOO_MANY.includes(status))) return false;
    // Those that are read already may stay.
    const read = Math.min(current?.names.size ?? 0, count - 1);
    settings.channelsMax = isTold ? told : Math.max(read, count >> 1);
    return true;
  }

  /** @param {{ channel: string | null, position: string | null }} event @param {string} data */
  function isNews({ channel, position }, data) {
    return position !== null || overlap.isNews(channel, data, next !== null);
  }

  function reopen() {
    hasChanged = false;
    const asked = new Set(taken());
    const query = new URLSearchParams({ protocol: "broker.v1" });
    if (userId) query.set("userId", userId);
    for (const name of asked) {
      query.append("channel", name);
      const since = events.sinceOf(name);
      // Without history, and read already: nothing to go on from, and nothing missed.
      const isFlowing = since === NOWHERE && current?.names.has(name);
      if (since && !isFlowing) query.append("since", `${name},${since}`);
    }
    /** @type {string | undefined} */
    let refused;
    const line = readStream({
      url: `${url}/api/stream?${query}`,
      getToken,
      onEvent({ type, data }) {
        const message = JSON.parse(data);
        const { channel } = message;
        if (type === "gap") events.onGap(message);
        else if (type === "error") refused = channel;
        else if (message.type === "connected") connected(message);
        else if ("event" in message && isNews(message, data)) {
          events.onEvent(channel, message.position, message.event);
        }
      },
      onEnd(ending) {
        const { error, channel = refused } = ending;
        const isNext = stream === next;
        const isRefused = channel !== undefined && names.has(channel);
        if (isNext) next = null;
        const isAgain = isNext && isTooMany(error, asked.size, channel);
        if (isRefused && !isAgain) events.onRefused(channel, error);
        if (isOver) return;
        if (isAgain || (isRefused && isNext)) return gather();
        // It was not their number.
        if (TOO_MANY.includes(error.status ?? 0)) settings.channelsMax = channelsMax;
        hangUp();
        call.ended(isRefused ? { error, waitMs: 0 } : ending);
      },
    });
    /** @type {Stream} */
    const stream = { line, names: asked };
    next = stream;
    overlap.begin();

    /** @param {any} message */
    function connected({ clientId, channels, keepAliveMs }) {
      current?.line.hangUp();
      current = stream;
      next = null;
      overlap.end(asked);
      if (keepAliveMs) line.expect(keepAliveMs);
      call.opened({ transport: "sse", clientId });
      if (isOver) return;
      for (const start of channels) events.onSubscribed(start);
      turnAway();
      if (hasChanged) gather();
    }
  }

  reopen();
  return {
    hangUp,
    sync,
    wake() {
      next?.line.wake();
      current?.line.wake();
    },
  };
}
