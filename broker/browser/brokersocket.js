// A session over WebSocket, in `broker.v1`: who the client is, which channels it is on, what comes.
//
// Laws: the token comes first (credential.js). What comes for a channel between `unsubscribe` and
// its answer is of an old subscription, and passed over: its subscribers go on from their places.
// Bounds: channels are asked for at a pace, to stay below `limits.commands_burst` and
// `limits.commands_per_second` of the daemon; where it is too quick for it (4008), at half of it.

import { asBrokerError, BrokerError } from "./errors.js";
import { Credential } from "./credential.js";
import { openLine } from "./socketline.js";

/** @type {import("./link.js").OpenSession} */
export function openSocketSession(call, { url, getToken, userId, pace }, events, names) {
  /** Channels that were asked for here. @type {Set<string>} */
  const on = new Set();
  /** How many answers to `unsubscribe` are still to come. @type {Map<string, number>} */
  const leaving = new Map();
  /** Channels that are to be asked for, or left. @type {Set<string>} */
  const queue = new Set(names);
  /** @type {import("./socketline.js").SocketLine | null} */
  let line = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let pumping;
  let clientId = "";
  /** @type {number | undefined} */
  let reconnectInMs;
  let isOpen = false;
  let isOver = false;
  let asked = 0;

  /** @param {object} command */
  const say = (command) => line?.send(JSON.stringify(command));
  const credential = new Credential(getToken, (text) => line?.send(text), opened, end);

  /** @param {import("./redial.js").Ending} ending */
  function end(ending) {
    if (isOver) return;
    hangUp();
    if (ending.error.status === 4008) {
      pace.burst /= 2;
      pace.waitMs *= 2;
    }
    call.ended({ ...ending, waitMs: reconnectInMs ?? ending.waitMs });
  }

  function hangUp() {
    isOver = true;
    clearTimeout(pumping);
    credential.stop();
    line?.hangUp();
  }

  function opened() {
    isOpen = true;
    call.opened({ transport: "websocket", clientId });
    pump();
  }

  /** Ask for what is queued, as quickly as the daemon allows. */
  function pump() {
    pumping = undefined;
    for (const name of queue) {
      queue.delete(name);
      sync(name);
      asked += 1;
      if (asked > pace.burst) {
        pumping = setTimeout(pump, pace.waitMs);
        return;
      }
    }
  }

  /** Ask for a channel, ask for it again, or leave it. @param {string} name */
  function sync(name) {
    const isWanted = names.has(name);
    if (on.has(name)) {
      // For the daemon a type alone is all channels of that type.
      const others = [...on].filter((other) => other.startsWith(`${name}:`));
      if (others.length && !isWanted) return;
      on.delete(name);
      leaving.set(name, (leaving.get(name) ?? 0) + 1);
      say({ type: "unsubscribe", channel: name });
      for (const other of others) {
        on.delete(other);
        queue.add(other);
      }
    }
    if (isWanted) {
      on.add(name);
      say({ type: "subscribe", channel: name, since: events.sinceOf(name) });
    }
  }

  /** @param {string} text */
  function hear(text) {
    /** @type {any} */
    let message;
    try {
      message = { ...JSON.parse(text) };
    } catch {
      return end({ error: new BrokerError("bad_text", "no JSON came") });
    }
    const name = message.name ?? message.channel;
    const isOld = leaving.has(name);
    clientId = message.clientId ?? clientId;
    if ("event" in message) {
      if (!isOld) events.onEvent(name, message.position, message.event);
    } else if (credential.hear(message)) {
      // It was about the token.
    } else if (message.type === "subscribed") {
      if (!isOld) events.onSubscribed(message);
    } else if (message.type === "unsubscribed") {
      const left = (leaving.get(name) ?? 0) - 1;
      if (left > 0) leaving.set(name, left);
      else leaving.delete(name);
    } else if (message.type === "gap") {
      if (!isOld) events.onGap(message);
    } else if (message.type === "disconnected") {
      reconnectInMs = message.reconnectInMs;
    } else if (message.type === "error") {
      const { code } = message;
      if (code !== "upstream_unavailable" && !isOld && on.delete(name)) {
        events.onRefused(name, new BrokerError(code, message.message));
      }
    }
  }

  async function run() {
    await credential.ask();
    if (isOver) return;
    line = openLine({
      url: `${url}/ws${userId ? `?userId=${encodeURIComponent(userId)}` : ""}`,
      protocols: "broker.v1",
      onMessage: hear,
      onEnd: end,
    });
  }

  run().catch((cause) => end({ error: asBrokerError(cause) }));
  return {
    hangUp,
    wake: () => line?.wake(),
    sync(name) {
      queue.add(name);
      if (isOpen && !pumping) pump();
    },
  };
}
