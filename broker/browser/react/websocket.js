/**
 * A WebSocket of the daemon, by its URL: what is sent and subscribed there.
 *
 * Laws: what is sent before the socket is open waits until it is. A channel is the core's `Topic`:
 * subscribed again after a cut from where each component is, so that channels with history miss
 * nothing, and who comes later gets what is replayed. A component hears the events of channels that
 * it subscribed, and of those that nobody here did.
 *
 * Bounds: `QUEUE_MAX` messages of a component wait; one more is not sent, and `onError` says so.
 */

import { BrokerError, tell } from "../errors.js";
import { openSocket } from "../socket.js";
import { Subscription } from "../subscription.js";
import { Topic } from "../topic.js";
import { Member, routeOf, shapeOf, Source, useSource } from "./source.js";
import { read } from "./sse.js";

/**
 * @typedef {import("../index.js").Client} Client
 * @typedef {import("./source.js").SourceOptions} SourceOptions
 * @typedef {import("../index.js").ChannelLike} ChannelLike
 * @typedef {SourceOptions & { onNotice?: (message: any) => void }} SocketOptions
 *   `onNotice`: what the daemon says besides events
 */

const QUEUE_MAX = 100;

/**
 * A channel that is subscribed here.
 *
 * @typedef {object} Followed
 * @property {ChannelLike} channel
 * @property {Topic} topic
 * @property {boolean} isAsked the daemon was asked for it on this connection
 * @property {number} leaving answers to `unsubscribe` that are to come: until then what comes is old
 */

/** @extends {Source<SocketMember>} */
class SocketSource extends Source {
  /** @type {Map<string, Followed>} */
  #followed = new Map();
  /** @type {{ send(text: string): boolean } | null} */
  #socket = null;

  dial() {
    const { address, getToken } = routeOf(this.url, this.client);
    const socket = openSocket(address, {
      protocols: ["broker.v1"],
      getToken,
      onMessage: (text) => this.#take(read(text)),
      onOpen: () => this.#greet(),
      onError: (error) => this.fail(error),
      onStatus: (status) => this.follow(status),
      ...shapeOf(this.options),
    });
    this.#socket = socket;
    return socket;
  }

  /** @param {import("../index.js").ClientStatus} status */
  follow(status) {
    if (status.state !== "open") for (const { topic } of this.#followed.values()) topic.cut();
    super.follow(status);
  }

  /**
   * @param {string} text
   * @returns {boolean} whether it was sent
   */
  send(text) {
    return this.seen.isConnected && this.#socket?.send(text) === true;
  }

  /** @param {SocketMember} member */
  join(member) {
    super.join(member);
    member.subscribeAll(this);
    if (this.seen.isConnected) member.flush();
  }

  /** @param {SocketMember} member */
  leave(member) {
    member.unsubscribeAll();
    super.leave(member);
  }

  /**
   * @param {string} name
   * @param {ChannelLike} channel
   * @param {import("../index.js").SubscribeOptions} handlers
   */
  subscribe(name, channel, handlers) {
    const there = this.#followed.get(name);
    const topic = there?.topic ?? new Topic(() => this.#ask(name));
    const subscription = new Subscription(name, handlers, (gone) => this.#leave(name, gone));
    topic.add(subscription);
    if (!there) {
      this.#followed.set(name, { channel, topic, isAsked: false, leaving: 0 });
      if (this.seen.isConnected) this.#ask(name);
    }
    return subscription;
  }

  /**
   * @param {string} name
   * @param {Subscription} subscription
   */
  #leave(name, subscription) {
    const followed = this.#followed.get(name);
    if (!followed?.topic.subscriptions.delete(subscription)) return;
    if (followed.topic.subscriptions.size > 0) return;
    this.#followed.delete(name);
    if (!followed.isAsked || !this.seen.isConnected) return;
    this.#say({ type: "unsubscribe", channel: followed.channel });
    // For the daemon a type alone is all channels of that type.
    for (const [other, { isAsked }] of this.#followed) {
      if (isAsked && other.startsWith(`${name}:`)) this.#ask(other);
    }
  }

  #greet() {
    for (const [name, followed] of this.#followed) {
      followed.isAsked = false;
      followed.leaving = 0;
      this.#ask(name);
    }
    for (const member of this.members) member.flush();
  }

  /** @param {string} name */
  #ask(name) {
    const followed = /** @type {Followed} */ (this.#followed.get(name));
    const { channel, topic } = followed;
    if (followed.isAsked) {
      // Who is subscribed already cannot go back to another place.
      followed.leaving += 1;
      this.#say({ type: "unsubscribe", channel });
    }
    followed.isAsked = true;
    this.#say({ type: "subscribe", channel, since: topic.sinceOf() });
  }

  /** @param {object} command */
  #say(command) {
    this.#socket?.send(JSON.stringify(command));
  }

  /** @param {any} message */
  #take(message) {
    if (typeof message !== "object" || message === null) return;
    const followed = this.#followed.get(message.name ?? message.channel);
    const topic = followed?.leaving ? undefined : followed?.topic;
    if ("event" in message) {
      const { channel, position, event } = message;
      if (!followed) for (const member of [...this.members]) member.hear(event, { channel, position });
      topic?.heard(event, position);
      return;
    }
    if (message.type === "gap") {
      if (!followed) for (const member of [...this.members]) member.miss(message);
      topic?.missed(message);
      return;
    }
    if (message.type === "subscribed") topic?.answered(message);
    if (message.type === "unsubscribed" && followed?.leaving) followed.leaving -= 1;
    if (message.type === "error") this.fail(new BrokerError(message.code, message.message));
    this.each((hears) => /** @type {SocketOptions} */ (hears).onNotice?.(message));
  }
}

/**
 * A component that uses a socket, and the channels that it subscribed.
 *
 * @extends {Member<SocketSource>}
 */
class SocketMember extends Member {
  /** @type {Map<string, { channel: ChannelLike, place: string | null, subscription?: Subscription }>} */
  #channels = new Map();
  /** @type {string[]} */
  #queue = [];

  /** @param {import("./source.js").Seen} seen */
  see(seen) {
    // Events and gaps are each component's own.
    const { data, gap } = this.board.value;
    super.see({ ...seen, data, gap });
  }

  /** @param {import("../index.js").Gap} gap of a channel that nobody here follows */
  miss(gap) {
    this.board.change({ ...this.board.value, gap });
    tell(this.hears.current.onGap, gap);
  }

  /**
   * @param {any} event
   * @param {{ channel: string | null, position: string | null }} place
   */
  hear(event, place) {
    this.board.change({ ...this.board.value, data: event });
    tell(this.hears.current.onMessage, event, place);
  }

  /**
   * @param {unknown} message text, or what is sent as JSON
   * @returns {boolean} false: it is not sent, as too much waits
   */
  send = (message) => {
    const text = typeof message === "string" ? message : JSON.stringify(message);
    if (this.source?.send(text)) return true;
    if (this.#queue.length < QUEUE_MAX) return this.#queue.push(text) > 0;
    const words = `${QUEUE_MAX} messages wait for the connection; one more is not sent`;
    const error = new BrokerError("send_queue_full", words, { willRetry: true });
    this.board.change({ ...this.board.value, error });
    tell(this.hears.current.onError, error);
    return false;
  };

  /** Send what waits: the socket is open. */
  flush() {
    const waiting = this.#queue;
    this.#queue = [];
    for (const text of waiting) this.send(text);
  }

  /** @param {ChannelLike} channel */
  subscribe = (channel) => {
    const name = nameOf(channel);
    if (this.#channels.has(name)) return;
    this.#channels.set(name, { channel, place: null });
    if (this.source) this.#subscribe(this.source, name);
  };

  /** @param {ChannelLike} channel */
  unsubscribe = (channel) => {
    const name = nameOf(channel);
    this.#channels.get(name)?.subscription?.unsubscribe();
    this.#channels.delete(name);
  };

  /** @param {SocketSource} source */
  subscribeAll(source) {
    for (const name of this.#channels.keys()) this.#subscribe(source, name);
  }

  /** The component leaves the socket; if it comes back, it goes on from its places. */
  unsubscribeAll() {
    for (const kept of this.#channels.values()) {
      kept.place = kept.subscription?.position ?? kept.place;
      kept.subscription?.unsubscribe();
    }
  }

  /**
   * @param {SocketSource} source
   * @param {string} name
   */
  #subscribe(source, name) {
    const kept = this.#channels.get(name);
    if (!kept) return;
    kept.subscription = source.subscribe(name, kept.channel, {
      since: kept.place,
      onEvent: (event, place) => this.hear(event, place),
      onGap: (gap) => this.miss(gap),
    });
  }
}

/** @param {ChannelLike} channel */
function nameOf(channel) {
  if (typeof channel === "string") return channel;
  return [channel.type, channel.id, channel.userId].filter(Boolean).join(":");
}

/**
 * A WebSocket of the daemon: `useWebSocket("/ws")`. Components with the same URL share one
 * connection.
 *
 * `data` is the latest event, and `onMessage(event, {channel, position})` gets every one.
 * `onNotice(message)` gets what the daemon says besides: `connected`, `published`, `pong`,
 * `error`...
 *
 * @template [T=any]
 * @param {string | URL | null | undefined} url null: nothing is connected
 * @param {SocketOptions} [options]
 */
export function useWebSocket(url, options = {}) {
  const { member, result } = useSource(
    "socket",
    url,
    options,
    (address, client, given, drop) => new SocketSource(address, client, given, drop),
    SocketMember,
  );
  return {
    ...result,
    data: /** @type {T | null} */ (result.data),
    send: member.send,
    subscribe: member.subscribe,
    unsubscribe: member.unsubscribe,
  };
}
