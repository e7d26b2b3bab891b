/**
 * Any channel: its last events, or only the latest one.
 *
 * Bounds: `limit` events are kept (100; at most 10 000), the oldest go first.
 */

import { useCallback } from "react";

import { useFeed } from "./feed.js";

const KEPT_EVENTS = 100;
const KEPT_EVENTS_MAX = 10_000;

/**
 * @typedef {import("./feed.js").FeedOptions} FeedOptions
 * @typedef {import("./feed.js").ChannelName} ChannelName
 */

/** @type {import("./feed.js").Fold<readonly any[]>} */
const history = {
  first: [],
  take: (events, event, { limit = KEPT_EVENTS }) =>
    [...events, event].slice(-Math.max(1, Math.min(limit, KEPT_EVENTS_MAX))),
};

/** @type {import("./feed.js").Fold<any>} */
const newest = { first: null, take: (_, event) => event };

/**
 * The events of a channel.
 *
 * @template [E=any]
 * @param {ChannelName | null | undefined} channel `"job_progress:42"` or `{type, id, userId}`
 * @param {FeedOptions & { limit?: number, since?: string }} [options]
 *   `limit`: how many are kept; `since`: a position to go on from
 */
export function useChannel(channel, options = {}) {
  const { value, feed, connection } = useFeed(channel, history, options);
  return {
    ...connection,
    /** The last ones, oldest first. */
    events: /** @type {readonly E[]} */ (value),
    /** The latest. */
    data: /** @type {E | null} */ (value.at(-1) ?? null),
    clear: useCallback(() => feed.edit(() => history.first), [feed]),
  };
}

/**
 * The latest event of a channel; null before the first.
 *
 * @template [E=any]
 * @param {ChannelName | null | undefined} channel
 * @param {FeedOptions} [options]
 * @returns {E | null}
 */
export function useLatest(channel, options = {}) {
  return useFeed(channel, newest, options).value;
}
