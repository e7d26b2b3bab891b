/**
 * Single numbers as they move. Bounds: `METRICS_MAX` numbers of an entity, the longest unchanged
 * go first.
 */

import { useMemo } from "react";

import { channelOf, useFeed } from "./feed.js";

const METRICS_MAX = 200;

/** @typedef {import("../events.d.ts").LiveMetricUpdate} LiveMetricUpdate */

/** @type {import("./feed.js").Fold<ReadonlyMap<string, LiveMetricUpdate>>} */
const numbers = {
  first: new Map(),
  take: (before, event, { entityType }) => {
    if (event?.type !== "live_metric_update" || typeof event.metric !== "string") return before;
    if (entityType && event.entityType !== entityType) return before;
    const after = new Map(before);
    // Behind the others, as the newest.
    after.delete(event.metric);
    after.set(event.metric, event);
    for (const metric of after.keys()) {
      if (after.size <= METRICS_MAX) break;
      after.delete(metric);
    }
    return after;
  },
};

/**
 * The numbers of an entity, each as it was told last.
 *
 * @param {string | number | null | undefined} entityId
 * @param {LiveMetricUpdate["entityType"] | null} [entityType] only those of such an entity
 * @param {import("./feed.js").FeedOptions} [options]
 */
export function useLiveMetrics(entityId, entityType, options = {}) {
  const channel = channelOf("live_metrics", entityId);
  const given = { ...options, entityType };
  const { value, connection } = useFeed(channel, numbers, given, entityType);
  return {
    ...connection,
    /** By name: `{ctr: {value, delta, deltaPercent, ...}}`. */
    metrics: useMemo(
      () => /** @type {Record<string, LiveMetricUpdate>} */ (Object.fromEntries(value)),
      [value],
    ),
    /** The number that moved last. */
    latest: [...value.values()].at(-1) ?? null,
  };
}
