/**
 * React hooks of the client (React 18 or newer): `import { useJobProgress } from
 * "@broker/client/react"`.
 *
 * Each hook's file is in react/; docs/browser.md has the guide.
 */

export { useRealtimeAlerts } from "./react/alerts.js";
export { useABTestStream, useCampaignMetricsStream } from "./react/campaign.js";
export { useChannel, useLatest } from "./react/channel.js";
export { useCouncilScoreStream } from "./react/council.js";
export { useCreativeEvaluation } from "./react/creative.js";
export { useJobProgress } from "./react/job.js";
export { useLiveMetrics } from "./react/metrics.js";
export { BrokerProvider, useBroker } from "./react/provider.js";
export { useRenderProgressStream } from "./react/render.js";
export { useSSE } from "./react/sse.js";
export { useWebSocket } from "./react/websocket.js";

/**
 * @typedef {import("./react/campaign.js").Variant} Variant
 * @typedef {import("./react/council.js").CouncilResult} CouncilResult
 * @typedef {import("./react/council.js").CouncilStage} CouncilStage
 * @typedef {import("./react/creative.js").CreativeResult} CreativeResult
 * @typedef {import("./react/evaluation.js").EvaluationOptions} EvaluationOptions
 * @typedef {import("./react/feed.js").Connection} Connection
 * @typedef {import("./react/feed.js").FeedOptions} FeedOptions
 * @typedef {import("./react/source.js").SourceOptions} SourceOptions
 * @typedef {import("./react/websocket.js").SocketOptions} SocketOptions
 */
