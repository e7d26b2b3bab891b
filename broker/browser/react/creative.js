/**
 * A creative's evaluation: one model's text as it streams. Bounds: `TEXT_MAX` characters (the
 * first go).
 */

import { useEvaluation } from "./evaluation.js";

const TEXT_MAX = 400_000;
const FAILED_MAX = 32;

/**
 * @typedef {{ model: string, error: string }} Failed
 * @typedef {{ text: string, model: string | null, failed: readonly Failed[] }} Creative
 */

/** @type {import("./evaluation.js").Kind<Creative>} */
const creative = {
  path: "/api/stream/evaluate-creative",
  first: { text: "", model: null, failed: [] },
  take: (before, event) => {
    if (event?.type !== "ai_evaluation_stream") return before;
    const { model, chunk, error } = event;
    if (error) {
      // The next model begins anew.
      const failed = [...before.failed, { model, error }].slice(-FAILED_MAX);
      return { text: "", model: null, failed };
    }
    return { ...before, model, text: (before.text + (chunk ?? "")).slice(-TEXT_MAX) };
  },
};

/**
 * Have a creative judged. It begins with `startStreaming()`; a reload of the page goes on watching
 * what runs.
 *
 * @param {string | null | undefined} creativeId
 * @param {string | null | undefined} content
 * @param {"creative" | "technical" | "performance"} [type]
 * @param {import("./evaluation.js").EvaluationOptions} [options]
 */
export function useCreativeEvaluation(creativeId, content, type = "creative", options = {}) {
  const parameters = { creativeId, content, type };
  const key = [creativeId, content, type];
  const { value, result, evaluation } = useEvaluation(creative, parameters, key, options);
  return {
    ...evaluation,
    /** What the model has said so far. */
    text: value.text,
    /** The model that is speaking; null before the first word. */
    model: value.model,
    /** Models that failed before it. */
    failed: value.failed,
    /** What the evaluation ended with. */
    result: /** @type {CreativeResult | null} */ (result),
  };
}

/**
 * @typedef {object} CreativeResult
 * @property {string} creativeId
 * @property {string} evaluationType
 * @property {string} model
 * @property {string} content
 * @property {readonly Failed[]} failed
 */
