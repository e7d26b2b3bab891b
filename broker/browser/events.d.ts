// The events that a page can get, as the classes in broker/events/ declare them.
// Written by `make events-types` from those classes: change them, not this file.
//
// A field with `?` may be missing or null. An event may have more fields than its type says:
// producers add what they like. docs/events.md says when each is sent.

/** An object whose fields are the producer's own. */
export type JsonObject = { [name: string]: unknown };

/** What a piece of an answer has cost so far. */
export interface AiChunkMetadata {
  tokensUsed?: number | null;
  /** In the unit of the producer. */
  thinkingTime?: number | null;
}

/** A part of a final score that is made of several. */
export interface Composite {
  composite: number;
}

/** A part of a final score that is a strength. */
export interface Strength {
  strength: number;
}

/** What a council says in the end. */
export interface FinalScore {
  composite: number;
  psychology: Composite;
  hookStrength: Strength;
  novelty: Composite;
}

/** A campaign's numbers. */
export interface CampaignValues {
  impressions: number;
  clicks: number;
  ctr: number;
  spend: number;
  /** Not a whole number where several ads share one. */
  conversions: number;
  roas: number;
}

/** How far a campaign's numbers have moved since the event before. */
export interface CampaignChange {
  impressions: number;
  clicks: number;
  ctr: number;
  spend: number;
}

/** The numbers of one variant. */
export interface VariantValues {
  impressions: number;
  clicks: number;
  ctr: number;
  /** Not a whole number where several ads share one. */
  conversions: number;
  confidence: number;
}

/** A button under an alert. */
export interface AlertAction {
  label: string;
  action: string;
  url?: string | null;
}

/** How far a job is. */
export interface JobProgress {
  type: "job_progress";
  jobId: string;
  status: "queued" | "processing" | "completed" | "failed";
  stage: string;
  /** 0 to 1. */
  progress: number;
  message: string;
  /** Whatever the producer wants to add. */
  metadata?: JsonObject | null;
  id?: string | null;
  timestamp: string;
}

/**
 * How far the render of a video is. The stage `complete` ends the stream of a browser that watches
 * it.
 */
export interface VideoRenderProgress {
  type: "video_render_progress";
  jobId: string;
  currentFrame: number;
  totalFrames: number;
  /** 0 to 1. */
  progress: number;
  /** Frames rendered a second. */
  fps: number;
  /** Seconds. */
  estimatedTimeRemaining: number;
  stage: "preparing" | "rendering" | "encoding" | "uploading" | "complete";
  id?: string | null;
  timestamp: string;
}

/** A piece of a model's answer. */
export interface AiStreamChunk {
  type: "ai_stream_chunk";
  /** Any name. */
  model: string;
  chunk: string;
  isComplete: boolean;
  metadata?: AiChunkMetadata | null;
  id?: string | null;
  timestamp: string;
}

/** A step of a council's evaluation. */
export interface CouncilScoreStream {
  type: "council_score_stream";
  /** A model's name, `aggregating` or `complete`. */
  stage: string;
  model?: string | null;
  thinking?: string | null;
  score?: number | null;
  reasoning?: string | null;
  /** Why this model failed; it then has no `score`. */
  error?: string | null;
  isComplete: boolean;
  /** With the stage `complete`. */
  finalScore?: FinalScore | null;
  id?: string | null;
  timestamp: string;
}

/** A piece of a creative's evaluation. */
export interface AiEvaluationStream {
  type: "ai_evaluation_stream";
  evaluationType: "creative" | "technical" | "performance";
  model: string;
  chunk: string;
  isComplete: boolean;
  /** Why this model failed; the next one begins anew. */
  error?: string | null;
  id?: string | null;
  timestamp: string;
}

/** A campaign's numbers, and how far they have moved. */
export interface CampaignMetrics {
  type: "campaign_metrics";
  campaignId: string;
  metrics: CampaignValues;
  change: CampaignChange;
  id?: string | null;
  timestamp: string;
}

/** Where one variant of an A/B test stands. */
export interface AbTestResult {
  type: "ab_test_result";
  testId: string;
  variantId: string;
  metrics: VariantValues;
  isWinner: boolean;
  statisticalSignificance: number;
  id?: string | null;
  timestamp: string;
}

/** One number that has moved. */
export interface LiveMetricUpdate {
  type: "live_metric_update";
  entityId: string;
  entityType: "campaign" | "ad" | "variant" | "creative";
  metric: string;
  value: number;
  delta: number;
  deltaPercent: number;
  id?: string | null;
  timestamp: string;
}

/**
 * Something that a person should know. Its channel is `alerts`, which everybody may hear; for one
 * user publish it to `alerts:<userId>` by name.
 */
export interface Alert {
  type: "alert";
  /** The event's `id`, if not given. */
  alertId: string;
  severity: "info" | "warning" | "critical";
  category: "performance" | "budget" | "technical" | "policy";
  title: string;
  message: string;
  entityId?: string | null;
  entityType?: string | null;
  actionRequired: boolean;
  actions?: AlertAction[] | null;
  id?: string | null;
  timestamp: string;
}

/** Another worker begins anew: what came before is void. */
export interface EvaluationRestarted {
  type: "evaluation_restarted";
  evaluationId: string;
  /** Which taking this is; at least 2. */
  attempt: number;
  message: string;
  id?: string | null;
  timestamp: string;
}

/** The end of a stream that has one, with its result. */
export interface Complete {
  type: "complete";
  data: JsonObject;
  id?: string | null;
  timestamp: string;
}

/** The first event of every connection. */
export interface Connected {
  type: "connected";
  message: string;
  clientId?: string | null;
  /** The user, where a token says who. */
  userId?: string | null;
  /** When that token is over. */
  expiresAt?: string | null;
  id?: string | null;
  timestamp: string;
}

/** The answer to `authenticate`: from now on the connection is that user's. */
export interface Authenticated {
  type: "authenticated";
  /** Null where the token names no user. */
  userId?: string | null;
  /** When the token is over; null for never. */
  expiresAt?: string | null;
  id?: string | null;
  timestamp: string;
}

/** The last event of a stream whose token is over. */
export interface TokenExpired {
  type: "token_expired";
  message: string;
  id?: string | null;
  timestamp: string;
}

/** The last event of a WebSocket connection that the daemon ends. */
export interface Disconnected {
  type: "disconnected";
  message: string;
  clientId?: string | null;
  /** How long to wait before coming back, in milliseconds; each client's own. */
  reconnectInMs?: number | null;
  id?: string | null;
  timestamp: string;
}

/** What went wrong, and what to do. */
export interface ErrorEvent {
  type: "error";
  /** On a stream of Server-Sent Events `error` has the text, and `message` is read from it. */
  message?: string | null;
  error?: string | null;
  /** Stable; WebSocket only. `docs/endings.md` has all of them. */
  code?: string | null;
  clientId?: string | null;
  id?: string | null;
  timestamp: string;
}

/** Said at an interval, so that a client can tell a quiet connection from a dead one. */
export interface Heartbeat {
  type: "heartbeat";
  serverTime: string;
  id?: string | null;
  timestamp: string;
}

/** The answer to `subscribe`. `id` and `userId` are the channel's. */
export interface Subscribed {
  type: "subscribed";
  /** The channel's type. */
  channel: string;
  userId?: string | null;
  /** The channel's whole name. */
  name?: string | null;
  success: boolean;
  id?: string | null;
  timestamp: string;
}

/** The answer to `unsubscribe`. `id` and `userId` are the channel's. */
export interface Unsubscribed {
  type: "unsubscribed";
  /** The channel's type. */
  channel: string;
  userId?: string | null;
  name?: string | null;
  /** False where there was no such subscription. */
  success: boolean;
  id?: string | null;
  timestamp: string;
}

/** The answer to `publish`. `id` and `userId` are the channel's. */
export interface Published {
  type: "published";
  /** The channel's type. */
  channel: string;
  userId?: string | null;
  /** The channel's whole name. */
  name?: string | null;
  success: boolean;
  id?: string | null;
  timestamp: string;
}

/** Events of a channel may be missing: behind one position, up to another. */
export interface Gap {
  type: "gap";
  /** The channel's whole name. */
  channel: string;
  /** Why; `docs/events.md` says what each means. */
  reason:
    | "epoch_changed"
    | "rolled_back"
    | "trimmed"
    | "redis_away"
    | "overflow"
    | "recorder_changed"
    | "unknown_position"
    | "no_history"
    | "not_kept";
  /** The last position before the gap, `from` on the wire; null where it is not known. */
  from?: string | null;
  /** The last position in it; null where it is not known. */
  to?: string | null;
  /** How many are missing, where that is known. */
  count?: number | null;
  id?: string | null;
  timestamp: string;
}

/** The events by their `type`. */
export interface EventMap {
  "job_progress": JobProgress;
  "video_render_progress": VideoRenderProgress;
  "ai_stream_chunk": AiStreamChunk;
  "council_score_stream": CouncilScoreStream;
  "ai_evaluation_stream": AiEvaluationStream;
  "campaign_metrics": CampaignMetrics;
  "ab_test_result": AbTestResult;
  "live_metric_update": LiveMetricUpdate;
  "alert": Alert;
  "evaluation_restarted": EvaluationRestarted;
  "complete": Complete;
  "connected": Connected;
  "authenticated": Authenticated;
  "token_expired": TokenExpired;
  "disconnected": Disconnected;
  "error": ErrorEvent;
  "heartbeat": Heartbeat;
  "subscribed": Subscribed;
  "unsubscribed": Unsubscribed;
  "published": Published;
  "gap": Gap;
}

/** Any event. Its `type` tells which: `if (event.type === "alert") event.severity`. */
export type BrokerEvent = EventMap[EventType];

/** The `type` of an event. */
export type EventType = keyof EventMap;

/** The event of one type: `EventOf<"alert">`. */
export type EventOf<Type extends EventType> = EventMap[Type];
