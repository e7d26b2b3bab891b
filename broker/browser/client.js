// A client: one connection, however many subscribers, and what they are told.
//
// Laws: it connects with its first subscriber; a channel, and the connection with the last of them,
// is left `lingerMs` after its last subscriber. Nothing is touched before: a client may be made
// while a page is rendered on a server. With `share` the connection is one of several tabs
// (tabs.js).

import { BrokerError, tell } from "./errors.js";
import { openLink } from "./link.js";
import { IDLE } from "./redial.js";
import { Subscription } from "./subscription.js";
import { Topic } from "./topic.js";

const NAME = /^[\w\-.@=+~]{1,128}(:[\w\-.@=+~]{1,128}){0,2}$/;

/** With a host, or a path of the page's own; or nothing. */
const ADDRESS = /^((http|ws)s?:\/\/[^/]|\/|$)/i;

/** One client. */
export class Client {
  /** A snapshot, replaced on change. @type {import("./index.js").ClientStatus} */
  status = IDLE;
  #options;
  /** @type {Map<string, Topic>} */
  #topics = new Map();
  /** @type {Set<(status: import("./index.js").ClientStatus) => void>} */
  #listeners = new Set();
  /** @type {import("./link.js").Link | undefined} */
  #link;
  #isLinked = false;

  /** @param {import("./index.js").ClientOptions} options */
  constructor(options) {
    const { transport, getToken, url } = options;
    if (!/^(auto|websocket|sse)$/.test(transport ?? "auto")) {
      throw new TypeError(`transport is "auto", "websocket" or "sse", not ${transport}`);
    }
    if (getToken && typeof getToken !== "function") {
      throw new TypeError("getToken is a function that gives a token");
    }
    if (!ADDRESS.test(url ?? "")) {
      throw new TypeError(`url "${url}": write https://host, or /path of the page's own`);
    }
    this.#options = options;
  }

  /** Where the daemon is, without a slash at the end. */
  get url() {
    const url = this.#options.url || "/";
    const page = globalThis.location?.href;
    if (!page && !/^\w+:/.test(url)) throw new TypeError(`url "${url}": write https://host here`);
    const { origin, pathname } = new URL(url, page);
    return (origin + pathname).replace(/^ws/, "http").replace(/\/+$/, "");
  }

  get getToken() {
    return this.#options.getToken;
  }

  /**
   * Follow a channel.
   * @param {import("./index.js").ChannelLike} channel
   * @param {import("./index.js").SubscribeOptions} [options]
   */
  subscribe(channel, options = {}) {
    const { url } = this;
    const { type, id, userId } = typeof channel === "object" ? channel : { type: channel };
    const name = [type, id, userId].filter((part) => part != null).join(":");
    const subscription = new Subscription(name, options, (gone) => this.#leave(gone));
    const isClosed = this.status.state === "closed";
    if (isClosed || !NAME.test(name)) {
      const error = isClosed
        ? new BrokerError("closed", "the client is closed; make another")
        : new BrokerError("bad_channel", `"${name}": write type:id, of letters, digits, _-.@=+~`);
      // No microtask: a page that subscribes again and again would be frozen by it.
      setTimeout(() => subscription.fail(error), 0);
      return subscription;
    }
    let topic = this.#topics.get(name);
    const isNew = !topic;
    topic ??= new Topic(() => this.#link?.ask(name));
    this.#topics.set(name, topic);
    clearTimeout(topic.lingering);
    topic.add(subscription);
    if (isNew && this.#isLinked) this.#link?.ask(name);
    else if (!this.#isLinked) this.#open({ ...this.#options, url });
    return subscription;
  }

  /**
   * @param {(status: import("./index.js").ClientStatus) => void} listener
   * @returns {() => void} stop
   */
  onStatus(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Connect at once, whatever was; not where nothing is subscribed, and not once it is closed. */
  reconnect() {
    this.#link?.reconnect();
  }

  /** Let go of everything, for good. */
  close() {
    this.#link?.close();
    this.#show({ ...IDLE, state: "closed" });
    for (const topic of this.#topics.values()) {
      for (const subscription of topic.subscriptions) subscription.unsubscribe();
      clearTimeout(topic.lingering);
    }
    this.#topics.clear();
  }

  /** @param {import("./link.js").LinkOptions} options */
  async #open(options) {
    this.#isLinked = true;
    /** @type {import("./link.js").LinkEvents} */
    const events = {
      sinceOf: (name) => this.#topics.get(name)?.sinceOf(),
      onStatus: (status) => this.#show(status),
      onOpen: () => this.#askAll(),
      onSubscribed: (start) => this.#topics.get(start.name)?.answered(start),
      onEvent: (name, position, event) =>
        name === null
          ? tell(options.onUserEvent, event)
          : this.#topics.get(name)?.heard(event, position),
      onGap: (gap) => this.#topics.get(gap.channel)?.missed(gap),
      onRefused: (name, error) => {
        const topic = this.#topics.get(name);
        // First, as whoever is told may subscribe again, on this connection.
        this.#topics.delete(name);
        for (const subscription of [...(topic?.subscriptions ?? [])]) subscription.fail(error);
        clearTimeout(topic?.lingering);
        if (!this.#topics.has(name)) this.#link?.drop(name);
      },
    };
    if (options.share) {
      this.#show({ ...IDLE, state: "connecting" });
      try {
        const { canShare, openSharedLink } = await import("./tabs.js");
        if (await canShare()) this.#link = openSharedLink(options, events);
      } catch (error) {
        console.warn("broker: no tabs.js; this tab connects by itself:", error);
      }
    }
    this.#link ??= openLink(options, events);
    if (this.status.state === "closed") this.#link.close();
    this.#askAll();
    // All may have gone while tabs.js was on its way.
    if (!this.#topics.size) this.#show(IDLE);
  }

  #askAll() {
    for (const [name, topic] of this.#topics) {
      topic.cut();
      this.#link?.ask(name);
    }
  }

  /** @param {Subscription} subscription */
  #leave(subscription) {
    const name = subscription.channel;
    const topic = this.#topics.get(name);
    if (!topic?.subscriptions.delete(subscription) || topic.subscriptions.size) return;
    clearTimeout(topic.lingering);
    topic.lingering = setTimeout(() => this.#forget(name), this.#options.lingerMs ?? 1000);
  }

  /** @param {string} name */
  #forget(name) {
    clearTimeout(this.#topics.get(name)?.lingering);
    this.#topics.delete(name);
    this.#link?.drop(name);
  }

  /** @param {import("./index.js").ClientStatus} status */
  #show(status) {
    if (this.status.state === "closed") return;
    this.status = Object.freeze(status);
    // A shared link says itself when everything is to be asked for again.
    if (status.state !== "open" && !this.#link?.isShared) {
      for (const topic of this.#topics.values()) topic.cut();
    }
    for (const listener of this.#listeners) tell(listener, status);
  }
}
