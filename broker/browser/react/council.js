/**
 * A council's evaluation: models side by side, thinking as it streams, a final score.
 *
 * Bounds: `STAGES_MAX` models, `THINKING_MAX` characters of each one's thinking (the first go).
 */

import { useEvaluation } from "./evaluation.js";

const STAGES_MAX = 32;
const THINKING_MAX = 200_000;

/**
 * @typedef {import("../events.d.ts").FinalScore} FinalScore
 * @typedef {object} CouncilStage what one model has said
 * @property {string} stage the model's name here
 * @property {string | null} model
 * @property {string} thinking all of it so far
 * @property {number | null} score
 * @property {string | null} reasoning
 * @property {string | null} error why it failed; it then has no score
 * @property {boolean} isComplete
 */

/**
 * @typedef {object} Council
 * @property {readonly CouncilStage[]} stages
 * @property {string | null} currentStage
 * @property {FinalScore | null} finalScore
 */

/** @type {import("./evaluation.js").Kind<Council>} */
const council = {
  path: "/api/stream/council-score",
  first: { stages: [], currentStage: null, finalScore: null },
  take: (before, event) => {
    if (event?.type !== "council_score_stream" || typeof event.stage !== "string") return before;
    const { stage } = event;
    if (stage === "complete") {
      return { ...before, currentStage: stage, finalScore: event.finalScore ?? null };
    }
    if (stage === "aggregating") return { ...before, currentStage: stage };
    return { ...before, currentStage: stage, stages: withStage(before.stages, event) };
  },
};

/**
 * @param {readonly CouncilStage[]} stages
 * @param {import("../events.d.ts").CouncilScoreStream} event
 */
function withStage(stages, event) {
  const before = stages.find((stage) => stage.stage === event.stage);
  const after = {
    stage: event.stage,
    model: event.model ?? before?.model ?? null,
    thinking: ((before?.thinking ?? "") + (event.thinking ?? "")).slice(-THINKING_MAX),
    score: event.score ?? before?.score ?? null,
    reasoning: event.reasoning ?? before?.reasoning ?? null,
    error: event.error ?? before?.error ?? null,
    isComplete: event.isComplete || (before?.isComplete ?? false),
  };
  if (before) return stages.map((stage) => (stage === before ? after : stage));
  return [...stages, after].slice(0, STAGES_MAX);
}

/**
 * Have a council judge a video. It begins with `startStreaming()`; a reload of the page goes on
 * watching what runs.
 *
 * @param {string | null | undefined} videoUrl
 * @param {string | null | undefined} transcript
 * @param {Record<string, unknown> | null} [features] may be another object with the same content
 * @param {import("./evaluation.js").EvaluationOptions} [options]
 */
export function useCouncilScoreStream(videoUrl, transcript, features, options = {}) {
  const parameters = { videoUrl, transcript, ...(features ? { features } : {}) };
  const key = [videoUrl, transcript, JSON.stringify(features ?? null)];
  const { value, result, evaluation } = useEvaluation(council, parameters, key, options);
  return {
    ...evaluation,
    /** The models, in the order in which they began. */
    stages: value.stages,
    /** The stage that the latest event was of: a model, `aggregating` or `complete`. */
    currentStage: value.currentStage,
    finalScore: value.finalScore,
    /** What the evaluation ended with: `scores`, `compositeScore`, `failed`. */
    result: /** @type {CouncilResult | null} */ (result),
  };
}

/**
 * @typedef {object} CouncilResult
 * @property {{ model: string, score: number, reasoning: string }[]} scores
 * @property {number} compositeScore
 * @property {{ model: string, error: string }[]} failed
 */
