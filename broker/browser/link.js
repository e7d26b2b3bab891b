// The client's one connection: WebSocket or server-sent events, whichever works, and back after
// each cut.
//
// Laws: with `auto` the transport that worked last is tried first, and the other at once where it
// fails before the daemon said `connected`; then it waits. Where a WebSocket was open before, SSE
// is tried after `MISSES_MAX` failures in a row only: a restart must not move a thousand clients to
// it. More channels than a stream takes begin with WebSocket. No channels, no connection. The
// connection knows which channels are wanted; from where, it asks when it asks for them.

import { openSocketSession } from "./brokersocket.js";
import { BrokerError } from "./errors.js";
import { Redial } from "./redial.js";

const MISSES_MAX = 3;

/**
 * What is told of a connection. `sinceOf` is asked when a channel is asked for; one answer follows.
 * @typedef {object} LinkEvents
 * @property {(name: string) => string | undefined} sinceOf
 * @property {(status: import("./index.js").ClientStatus) => void} onStatus
 * @property {() => void} onOpen everything is to be asked for again
 * @property {(start: { name: string } & import("./index.js").Start) => void} onSubscribed
 * @property {(name: string | null, position: string | null, event: any) => void} onEvent
 *   `name` null: an event for the user, on no channel
 * @property {(gap: import("./index.js").Gap) => void} onGap
 * @property {(name: string, error: import("./errors.js").BrokerError) => void} onRefused
 */

/**
 * @typedef {object} Link
 * @property {(name: string) => void} ask
 * @property {(name: string) => void} drop
 * @property {() => void} reconnect
 * @property {() => void} close
 * @property {boolean} [isShared] several tabs have it
 */

/** @typedef {import("./index.js").ClientOptions & { url: string }} LinkOptions `url` is whole */
/**
 * So many channels are asked for at once, then one each `waitMs`.
 * @typedef {{ burst: number, waitMs: number }} Pace
 */
/**
 * The same object for all sessions of a link, which learn. `channelsMax`: how many a stream takes.
 * @typedef {LinkOptions & { pace: Pace, channelsMax: number, hasWarned?: boolean }} SessionOptions
 */
/** @typedef {import("./redial.js").Line & { sync(name: string): void }} Session */

/**
 * @callback OpenSession
 * @param {import("./redial.js").Call} call
 * @param {SessionOptions} options
 * @param {LinkEvents} events
 * @param {Set<string>} names the channels that are wanted; the link changes it
 * @returns {Session}
 */

/**
 * @param {LinkOptions} options
 * @param {LinkEvents} events
 * @returns {Link}
 */
export function openLink(options, events) {
  /** @type {Set<string>} */
  const names = new Set();
  /** @type {Session | null} */
  let session = null;
  const { transport = "auto" } = options;
  const hasBoth = transport === "auto" && typeof WebSocket === "function";
  let isSse = transport === "sse" || (transport === "auto" && !hasBoth);
  // In a row, since a WebSocket was open.
  let misses = Infinity;
  // The daemon takes 2000 commands at once and 100 a second, and streams of 32 channels, if its
  // settings do not say otherwise.
  /** @type {SessionOptions} */
  const settings = { ...options, pace: { burst: 900, waitMs: 25 }, channelsMax: 32 };

  /** @param {import("./redial.js").Call} call */
  function dial(call) {
    let isSecond = !hasBoth;
    let isSure = !hasBoth;
    if (hasBoth && names.size > settings.channelsMax) isSse = false;

    function open() {
      let isOpen = false;
      session = (isSse ? loadStreamSession : openSocketSession)(
        {
          opened(facts) {
            if (isSse && !isSure && names.size > settings.channelsMax) {
              // The daemon is there, perhaps only now, and takes more channels over WebSocket.
              isSure = true;
              isSse = isSecond = false;
              session?.hangUp();
              open();
              return;
            }
            isOpen = true;
            if (!isSse) misses = 0;
            call.opened(facts);
          },
          ended({ error, isFinal, waitMs }) {
            session = null;
            const isTransports = !isOpen && !isFinal && waitMs === undefined;
            if (!hasBoth || !isTransports || error.code === "no_token") {
              return call.ended({ error, isFinal, waitMs });
            }
            if (!isSse) misses += 1;
            const isKept = !isSse && misses < MISSES_MAX;
            // Where the other one fails too, it is this one's turn again.
            if (!isKept) isSse = !isSse;
            if (isSecond || isKept) return call.ended({ error });
            isSecond = true;
            open();
          },
        },
        settings,
        events,
        names,
      );
    }

    open();
    return {
      hangUp() {
        session?.hangUp();
        session = null;
      },
      wake: () => session?.wake(),
    };
  }

  const redial = new Redial(dial, { backoff: options.backoff, onStatus: events.onStatus });
  return {
    ask(name) {
      names.add(name);
      session?.sync(name);
      redial.start();
    },
    drop(name) {
      names.delete(name);
      if (names.size) session?.sync(name);
      else redial.stop();
    },
    reconnect() {
      if (names.size) redial.reconnect();
    },
    close: () => redial.close(),
  };
}

/**
 * What reads streams is loaded where it is needed first: most pages never do.
 * @type {OpenSession}
 */
function loadStreamSession(call, ...rest) {
  /** @type {Session | undefined} */
  let session;
  let isOver = false;
  import("./brokerstream.js")
    .then(({ openStreamSession }) => {
      if (!isOver) session = openStreamSession(call, ...rest);
    })
    .catch((cause) => {
      const message = "the daemon cannot be reached";
      if (!isOver) call.ended({ error: new BrokerError("unreachable", message, { cause }) });
    });
  return {
    hangUp() {
      isOver = true;
      session?.hangUp();
    },
    sync: (name) => session?.sync(name),
    wake: () => session?.wake(),
  };
}
