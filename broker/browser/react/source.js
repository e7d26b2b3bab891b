/**
 * A source: one connection to one URL, shared by the components that use it, and a member: one of
 * them.
 *
 * Laws: one connection for each client and URL, however many components; it is opened by the first
 * and closed `LINGER_MS` after the last has left, so that StrictMode's mount, unmount, mount opens
 * one. Options that shape the connection are those of the component that opened it; callbacks are
 * each component's own. Who comes later sees what the others see.
 *
 * Bounds: the latest message alone is kept.
 */

import { useSyncExternalStore } from "react";

import { tell } from "../errors.js";
import { Board } from "./board.js";
import { useKept, useNewest } from "./kept.js";
import { useBroker } from "./provider.js";

const LINGER_MS = 1000;
const LONGEST_WAIT_MS = 20_000;

/**
 * @typedef {import("../errors.js").BrokerError} BrokerError
 * @typedef {import("../index.js").Gap} Gap
 * @typedef {import("../index.js").Client} Client
 */

/**
 * @typedef {object} SourceOptions
 * @property {boolean} [autoConnect] false: only `connect()` begins
 * @property {boolean} [reconnect] false: once cut it stays so
 * @property {number} [reconnectInterval] ms, the shortest wait; waits grow to 20 s
 * @property {number} [maxReconnectAttempts] after so many in a row it gives up
 * @property {number} [heartbeatInterval] ms of silence after which the connection is taken for dead
 * @property {(data: any, message: any) => void} [onMessage] every message
 * @property {(gap: Gap) => void} [onGap] events may be missing: fetch the state anew
 * @property {(error: BrokerError) => void} [onError]
 * @property {() => void} [onOpen]
 * @property {() => void} [onClose] the connection is gone, also where it comes back
 */

/**
 * @typedef {object} Seen
 * @property {any} data
 * @property {BrokerError | null} error
 * @property {Gap | null} gap
 * @property {boolean} isWanted
 * @property {boolean} isConnected
 * @property {boolean} wasConnected
 * @property {"idle" | "connecting" | "open" | "waiting" | "failed" | "closed"} status
 * @property {number} attempt
 * @property {number | null} nextRetryAt
 */

/**
 * @template {Source<any>} S
 * @template M
 * @typedef {{ new (find: (() => S) | null, options: SourceOptions, hears: Newest): M }} MemberKind
 */

/** @typedef {{ current: SourceOptions }} Newest */

/** @type {Seen} */
const NOTHING = {
  data: null,
  error: null,
  gap: null,
  isWanted: false,
  isConnected: false,
  wasConnected: false,
  status: "idle",
  attempt: 0,
  nextRetryAt: null,
};

/** @type {WeakMap<object, Map<string, Source<any>>>} */
const sourcesOf = new WeakMap();

/**
 * The connection. What it is made of is said by those that extend it.
 *
 * @template {Member<any>} [M=Member<any>]
 */
export class Source {
  /** @type {Set<M>} */
  members = new Set();
  seen = { ...NOTHING, isWanted: true };
  /** @type {{ close(): void, reconnect(): void } | null} */
  handle = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #linger;
  #drop;

  /**
   * @param {string} url
   * @param {Client} client
   * @param {SourceOptions} options
   * @param {() => void} drop forget this source
   */
  constructor(url, client, options, drop) {
    this.url = url;
    this.client = client;
    this.options = options;
    this.#drop = drop;
  }

  /**
   * @returns {{ close(): void, reconnect(): void }}
   */
  dial() {
    throw new Error("a source says itself how it connects");
  }

  /** @param {M} member */
  join(member) {
    clearTimeout(this.#linger);
    this.members.add(member);
    member.see(this.seen);
    this.handle ??= this.dial();
  }

  /** @param {M} member */
  leave(member) {
    if (!this.members.delete(member) || this.members.size > 0) return;
    this.#linger = setTimeout(() => {
      this.handle?.close();
      this.#drop();
    }, LINGER_MS);
  }

  redial() {
    const { status } = this.seen;
    if (status === "closed") {
      this.handle?.close();
      this.tell({ error: null, status: "connecting" });
      this.handle = this.dial();
    } else this.handle?.reconnect();
  }

  /** @param {Partial<Seen>} change */
  tell(change) {
    this.seen = { ...this.seen, ...change };
    for (const member of this.members) member.see(this.seen);
  }

  /** @param {{ state: Seen["status"], attempt: number, nextRetryAt: number | null }} status */
  follow({ state, attempt, nextRetryAt }) {
    const wasOpen = this.seen.isConnected;
    const isConnected = state === "open";
    const wasConnected = this.seen.wasConnected || isConnected;
    const error = isConnected ? null : this.seen.error;
    this.tell({ status: state, attempt, nextRetryAt, isConnected, wasConnected, error });
    if (isConnected && !wasOpen) this.each((hears) => hears.onOpen?.());
    if (wasOpen && !isConnected) this.each((hears) => hears.onClose?.());
  }

  /** @param {BrokerError} error */
  fail(error) {
    this.tell({ error });
    this.each((hears) => hears.onError?.(error));
  }

  /** @param {Gap} gap */
  miss(gap) {
    this.tell({ gap });
    this.each((hears) => hears.onGap?.(gap));
  }

  /**
   * Call a callback of every member; one that throws does not keep the others from theirs.
   *
   * @param {(hears: SourceOptions) => void} call
   */
  each(call) {
    for (const member of [...this.members]) tell(call, member.hears.current);
  }
}

/**
 * A component that uses a source.
 *
 * @template {Source<any>} [S=Source<any>]
 */
export class Member {
  /** @type {S | null} */
  source = null;
  #find;

  /**
   * @param {(() => S) | null} find the source, opened or not; null: there is none
   * @param {SourceOptions} options
   * @param {Newest} hears
   */
  constructor(find, options, hears) {
    this.#find = find;
    this.hears = hears;
    const isWanted = find !== null && options.autoConnect !== false;
    this.board = new Board({ ...NOTHING, isWanted });
  }

  /** @param {() => void} watcher */
  watch = (watcher) => {
    const stop = this.board.watch(watcher);
    this.#join();
    return () => {
      stop();
      if (!this.board.isWatched) this.#leave();
    };
  };

  read = () => this.board.shown;

  readFirst = () => this.board.first;

  /** @param {Seen} seen */
  see(seen) {
    this.board.change(seen);
  }

  connect = () => {
    if (this.source) {
      if (/^(closed|failed)$/.test(this.source.seen.status)) this.source.redial();
      return;
    }
    this.board.change({ ...this.board.value, isWanted: this.#find !== null });
    if (this.board.isWatched) this.#join();
    this.board.show();
  };

  disconnect = () => {
    const wasOpen = this.board.value.isConnected;
    this.#leave();
    const { data, gap } = this.board.value;
    this.board.change({ ...NOTHING, data, gap });
    this.board.show();
    if (wasOpen) this.hears.current.onClose?.();
  };

  reconnect = () => {
    if (this.source) this.source.redial();
    else this.connect();
  };

  #join() {
    if (this.source || !this.#find || !this.board.value.isWanted) return;
    this.source = this.#find();
    this.source.join(this);
  }

  #leave() {
    this.source?.leave(this);
    this.source = null;
  }
}

/**
 * Find the source of a URL, or make it.
 *
 * @template {Source<any>} S
 * @param {object} owner the client
 * @param {string} key
 * @param {(drop: () => void) => S} make
 * @returns {S}
 */
function findSource(owner, key, make) {
  let sources = sourcesOf.get(owner);
  if (!sources) sourcesOf.set(owner, (sources = new Map()));
  const there = sources;
  const found = there.get(key) ?? make(() => there.delete(key));
  there.set(key, found);
  return /** @type {S} */ (found);
}

/**
 * Be a member of the source of a URL.
 *
 * @template {Source<any>} S
 * @param {string} kind
 * @param {string | URL | null | undefined} url
 * @param {SourceOptions} options
 * @template {Member<S>} M
 * @param {(url: string, client: Client, options: SourceOptions, drop: () => void) => S} make
 * @param {MemberKind<S, M>} Kind
 */
export function useSource(kind, url, options, make, Kind) {
  const client = useBroker();
  const hears = useNewest(options);
  const address = url ? String(url) : null;
  const member = useKept([client, address], () => {
    const find =
      address === null
        ? null
        : () =>
            findSource(client, `${kind} ${address}`, (drop) =>
              make(address, client, hears.current, drop),
            );
    return new Kind(find, options, hears);
  });
  const seen = useSyncExternalStore(member.watch, member.read, member.readFirst);
  const { isConnected, isWanted, wasConnected, ...rest } = seen;
  const isOver = seen.status === "failed" || seen.status === "closed";
  return {
    member,
    result: {
      data: rest.data,
      error: rest.error,
      isConnected,
      isLoading: isWanted && !wasConnected && !isOver,
      status: rest.status,
      attempt: rest.attempt,
      nextRetryAt: rest.nextRetryAt,
      gap: rest.gap,
      connect: member.connect,
      disconnect: member.disconnect,
      reconnect: member.reconnect,
    },
  };
}

/**
 * The core's words for the options of a connection.
 *
 * @param {SourceOptions} options
 */
export function shapeOf({ reconnect = true, reconnectInterval = 500, ...options }) {
  return {
    backoff: {
      minMs: reconnectInterval,
      maxMs: Math.max(reconnectInterval, LONGEST_WAIT_MS),
      attempts: reconnect ? (options.maxReconnectAttempts ?? Infinity) : 0,
    },
    ...(options.heartbeatInterval ? { heartbeatMs: options.heartbeatInterval } : {}),
  };
}

/**
 * Where a connection of its own goes, and with what token. A URL without a host is the daemon's,
 * behind the path that it may have there; the token is for the daemon alone.
 *
 * @param {string} url
 * @param {Client} client
 */
export function routeOf(url, client) {
  const daemon = new URL(client.url);
  const hasHost = /^([a-z]+:|\/\/)/i.test(url);
  const address = new URL(hasHost ? url : `${client.url}/${url.replace(/^\//, "")}`, daemon);
  const isDaemon = address.origin.replace(/^ws/, "http") === daemon.origin;
  const getToken = isDaemon ? client.getToken : undefined;
  return { address: address.href, getToken };
}
