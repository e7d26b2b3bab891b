/**
 * A feed: one component's subscription to one channel, and what it makes of the events.
 *
 * Laws: every event is folded into the value and goes to `onMessage`; the component sees the value
 * at the next frame. Somebody who unmounts and comes back (StrictMode, a tab of the page) goes on
 * behind the last event that it had. A feed that is over subscribes no more. What is not there (an
 * id of null, undefined or "") is not subscribed to.
 *
 * Bounds: those of the fold.
 */

import { useSyncExternalStore } from "react";

import { Board } from "./board.js";
import { useKept, useNewest } from "./kept.js";
import { useBroker } from "./provider.js";

/**
 * @typedef {import("../index.js").Client} Client
 * @typedef {import("../index.js").ClientStatus} ClientStatus
 * @typedef {import("../index.js").Gap} Gap
 * @typedef {import("../errors.js").BrokerError} BrokerError
 * @typedef {import("../index.js").Subscription} Subscription
 * @typedef {string | { type: string, id?: string | null, userId?: string | null }} ChannelName
 */

/**
 * @typedef {object} FeedOptions
 * @property {boolean} [autoConnect] false: only `connect()` begins
 * @property {(event: any, place: { channel: string, position: string | null }) => void} [onMessage]
 *   every event
 * @property {(gap: Gap) => void} [onGap] events may be missing: fetch the state anew
 * @property {(error: BrokerError) => void} [onError]
 * @property {() => void} [onOpen] the channel is subscribed, also after a cut
 */

/**
 * @typedef {object} Connection
 * @property {boolean} isConnected the events come
 * @property {boolean} isLoading it is wanted, and was not connected yet
 * @property {ClientStatus["state"]} status of the connection
 * @property {number} attempt how often it was tried since it was open last
 * @property {number | null} nextRetryAt when it is tried again, in ms since 1970
 * @property {BrokerError | null} error `error.willRetry` says whether it is tried again
 * @property {Gap | null} gap the last one: events may be missing
 * @property {() => void} connect
 * @property {() => void} disconnect what was shown stays
 * @property {() => void} reconnect try again at once
 */

/**
 * @template T
 * @typedef {object} Seen
 * @property {T} value
 * @property {Gap | null} gap
 * @property {BrokerError | null} error
 * @property {boolean} isWanted
 * @property {boolean} isHeard the channel is subscribed
 * @property {boolean} wasHeard
 * @property {ClientStatus | null} link
 */

/**
 * What a hook makes of its channel's events.
 *
 * @template T
 * @typedef {object} Fold
 * @property {T} first the value before the first event
 * @property {(value: T, event: any, options: any) => T} take the value after an event; the same one
 *   where the event does not concern it. The events come from others: they may be anything, and
 *   one without what the hook's type promises is passed over.
 * @property {(value: T) => boolean} [isOver] nothing more will come
 */

/** @template T */
class Feed {
  /** @type {Subscription | null} */
  #subscription = null;
  /** @type {(() => void) | null} */
  #stopStatus = null;
  /** Of the last event that was folded in; to go on from. @type {string | null} */
  #position = null;
  #client;
  #channel;
  #fold;
  #newest;

  /**
   * @param {Client} client
   * @param {ChannelName | null} channel
   * @param {Fold<T>} fold
   * @param {FeedOptions & { since?: string }} options those that it begins with
   * @param {{ current: FeedOptions }} newest
   */
  constructor(client, channel, fold, options, newest) {
    this.#client = client;
    this.#channel = channel;
    this.#fold = fold;
    this.#newest = newest;
    this.#position = options.since ?? null;
    /** @type {Board<Seen<T>>} */
    this.board = new Board({
      value: fold.first,
      gap: null,
      error: null,
      isWanted: channel !== null && options.autoConnect !== false,
      isHeard: false,
      wasHeard: false,
      link: null,
    });
  }

  /** @param {() => void} watcher */
  watch = (watcher) => {
    const stop = this.board.watch(watcher);
    this.#open();
    return () => {
      stop();
      if (!this.board.isWatched) this.#close();
    };
  };

  read = () => this.board.shown;

  readFirst = () => this.board.first;

  connect = () => {
    if (this.#channel === null) return;
    if (this.#client.status.state === "failed") this.#client.reconnect();
    if (this.#fold.isOver?.(this.board.value.value)) {
      // What was over may be running again: what comes behind its end is of another run.
      this.#change({ value: this.#fold.first, wasHeard: false });
    }
    this.#change({ isWanted: true });
    if (this.board.isWatched) this.#open();
    this.board.show();
  };

  disconnect = () => {
    this.#close();
    this.#change({ isWanted: false });
    this.board.show();
  };

  reconnect = () => {
    // An open connection is others' too: then this channel alone is asked for again.
    if (this.#client.status.state === "open") this.#close();
    else this.#client.reconnect();
    this.connect();
  };

  /**
   * Change what is shown, at once: a person asked for it.
   *
   * @param {(value: T) => T} change
   */
  edit(change) {
    this.#change({ value: change(this.board.value.value) });
    this.board.show();
  }

  #open() {
    const { isWanted, value } = this.board.value;
    if (this.#subscription || this.#channel === null || !isWanted) return;
    if (this.#fold.isOver?.(value)) return;
    this.#change({ error: null });
    let isRefused = false;
    this.#stopStatus = this.#client.onStatus(() => this.#follow());
    this.#subscription = this.#client.subscribe(this.#channel, {
      since: this.#position ?? undefined,
      onEvent: (event, place) => this.#take(event, place),
      onGap: (gap) => {
        this.#position = gap.to ?? this.#position;
        this.#change({ gap });
        this.#newest.current.onGap?.(gap);
      },
      onError: (error) => {
        isRefused = true;
        this.#close();
        this.#change({ error });
        this.#newest.current.onError?.(error);
      },
      onSubscribed: ({ position }) => {
        this.#position = position ?? this.#position;
        this.#change({ isHeard: true, wasHeard: true, error: null });
        this.#newest.current.onOpen?.();
      },
    });
    // It may have been told before there was a subscription.
    if (isRefused) this.#close();
    else this.#follow();
  }

  #close() {
    if (!this.#subscription) return;
    const subscription = this.#subscription;
    this.#subscription = null;
    // On a channel without history: so that it is told of the gap when it comes back.
    if (this.board.value.isHeard) this.#position ??= subscription.position;
    this.#stopStatus?.();
    subscription.unsubscribe();
    this.#change({ isHeard: false, link: null });
  }

  #follow() {
    const link = this.#client.status;
    this.#change(link.state === "open" ? { link } : { link, isHeard: false });
  }

  /**
   * @param {any} event
   * @param {{ channel: string, position: string | null }} place
   */
  #take(event, place) {
    const options = this.#newest.current;
    this.#position = place.position ?? this.#position;
    const value = this.#fold.take(this.board.value.value, event, options);
    this.#change({ value });
    if (this.#fold.isOver?.(value)) this.#close();
    options.onMessage?.(event, place);
  }

  /** @param {Partial<Seen<T>>} change */
  #change(change) {
    this.board.change({ ...this.board.value, ...change });
  }
}

/**
 * Follow a channel with the client of the page.
 *
 * @template T
 * @param {ChannelName | null | undefined} channel
 * @param {Fold<T>} fold the same one at each render
 * @param {FeedOptions & { since?: string }} options
 * @param {string | null} [part] what else makes it another feed
 * @returns {{ value: T, connection: Connection, feed: Pick<Feed<T>, "edit"> }}
 */
export function useFeed(channel, fold, options, part = null) {
  const client = useBroker();
  const newest = useNewest(options);
  const name = channel || null;
  const feed = useKept(
    [client, typeof name === "string" ? name : JSON.stringify(name), part],
    () => new Feed(client, name, fold, options, newest),
  );
  const seen = useSyncExternalStore(feed.watch, feed.read, feed.readFirst);
  const isOver = fold.isOver?.(seen.value) ?? false;
  const error = seen.error ?? seen.link?.error ?? null;
  return {
    value: seen.value,
    feed,
    connection: {
      isConnected: seen.isHeard && !isOver,
      isLoading: seen.isWanted && !seen.wasHeard && (error === null || error.willRetry),
      status: seen.link?.state ?? "idle",
      attempt: seen.link?.attempt ?? 0,
      nextRetryAt: seen.link?.nextRetryAt ?? null,
      error,
      gap: seen.gap,
      connect: feed.connect,
      disconnect: feed.disconnect,
      reconnect: feed.reconnect,
    },
  };
}

/**
 * @template T
 * @param {T} value
 * @returns {value is NonNullable<T>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null;
}

/**
 * The channel of a thing, or none where there is no thing.
 *
 * @param {string} type
 * @param {string | number | null | undefined} id
 */
export function channelOf(type, id) {
  return id === null || id === undefined || id === "" ? null : `${type}:${id}`;
}
