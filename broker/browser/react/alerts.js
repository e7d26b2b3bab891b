/** A user's alerts. Bounds: the last `ALERTS_MAX`. */

import { useCallback } from "react";

import { channelOf, isObject, useFeed } from "./feed.js";

const ALERTS_MAX = 50;
let unnamed = 0;

/** @typedef {import("../events.d.ts").Alert} Alert */

/** @type {import("./feed.js").Fold<readonly Alert[]>} */
const alerts = {
  first: [],
  take: (before, event) => {
    if (event?.type !== "alert") return before;
    // Who publishes by hand may leave the name out; then the alert is like no other.
    const alertId = event.alertId || (event.id ?? `unnamed_${++unnamed}`);
    const alert = { ...event, alertId };
    const hasActions = Array.isArray(event.actions) && event.actions.every(isObject);
    if ("actions" in event && !hasActions) alert.actions = null;
    // One that comes again has changed: it takes the place of what it was, as the newest.
    const others = before.filter((other) => other.alertId !== alertId);
    return [alert, ...others].slice(0, ALERTS_MAX);
  },
};

/**
 * The last 50 alerts of a user, newest first. Where some may have been missed, `gap` says so.
 *
 * @param {string | number | null | undefined} userId
 * @param {import("./feed.js").FeedOptions} [options]
 */
export function useRealtimeAlerts(userId, options = {}) {
  const { value, feed, connection } = useFeed(channelOf("alerts", userId), alerts, options);
  return {
    ...connection,
    alerts: value,
    clearAlerts: useCallback(() => feed.edit(() => alerts.first), [feed]),
    dismissAlert: useCallback(
      /** @param {string} alertId */
      (alertId) => feed.edit((before) => before.filter((alert) => alert.alertId !== alertId)),
      [feed],
    ),
  };
}
