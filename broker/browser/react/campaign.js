/**
 * A campaign's numbers, and the results of its A/B tests. Bounds: `VARIANTS_MAX` variants of a
 * test.
 */

import { channelOf, isObject, useFeed } from "./feed.js";

const VARIANTS_MAX = 100;

/**
 * @typedef {import("../events.d.ts").CampaignMetrics} CampaignMetrics
 * @typedef {import("../events.d.ts").AbTestResult} AbTestResult
 * @typedef {Omit<AbTestResult, "type" | "testId" | "id">} Variant
 * @typedef {object} Standing
 * @property {readonly Variant[]} variants in the order in which they were first heard of
 * @property {string | null} winnerId
 * @property {string | null} updatedAt
 */

/** @type {import("./feed.js").Fold<CampaignMetrics | null>} */
const campaign = {
  first: null,
  take: (before, event) =>
    event?.type === "campaign_metrics" && isObject(event.metrics) ? event : before,
};

/** @type {import("./feed.js").Fold<Standing>} */
const test = {
  first: { variants: [], winnerId: null, updatedAt: null },
  take: (before, event) => {
    if (event?.type !== "ab_test_result") return before;
    const { variantId, metrics, isWinner, statisticalSignificance, timestamp } = event;
    if (typeof variantId !== "string" || !isObject(metrics)) return before;
    const variant = { variantId, metrics, isWinner, statisticalSignificance, timestamp };
    const at = before.variants.findIndex((other) => other.variantId === variantId);
    const variants =
      at < 0
        ? [...before.variants, variant].slice(-VARIANTS_MAX)
        : before.variants.map((other, n) => (n === at ? variant : other));
    // Two may say that they have won, until the loser's next event comes: the later one counts.
    const loser = before.winnerId === variantId ? null : before.winnerId;
    return { variants, winnerId: isWinner ? variantId : loser, updatedAt: timestamp };
  },
};

/**
 * A campaign's numbers, and how far they moved with the last event. It starts by itself (unless
 * `autoConnect` is false); `stopStreaming` leaves what is shown.
 *
 * @param {string | number | null | undefined} campaignId
 * @param {import("./feed.js").FeedOptions} [options]
 */
export function useCampaignMetricsStream(campaignId, options = {}) {
  const channel = channelOf("campaign_metrics", campaignId);
  const { value, connection } = useFeed(channel, campaign, options);
  return {
    ...connection,
    metrics: value?.metrics ?? null,
    change: isObject(value?.change) ? value.change : null,
    /** When the numbers were so (ISO 8601). */
    updatedAt: value?.timestamp ?? null,
    startStreaming: connection.connect,
    stopStreaming: connection.disconnect,
  };
}

/**
 * Where an A/B test stands. An event tells of one variant: the others appear with their next event.
 *
 * @param {string | number | null | undefined} testId
 * @param {import("./feed.js").FeedOptions} [options]
 */
export function useABTestStream(testId, options = {}) {
  const { value, connection } = useFeed(channelOf("ab_test_results", testId), test, options);
  return {
    ...connection,
    variants: value.variants,
    winner: value.variants.find((variant) => variant.variantId === value.winnerId) ?? null,
    updatedAt: value.updatedAt,
    startStreaming: connection.connect,
    stopStreaming: connection.disconnect,
  };
}
