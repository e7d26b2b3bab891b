/** How far the render of a video is. */

import { channelOf, useFeed } from "./feed.js";

/** @typedef {import("../events.d.ts").VideoRenderProgress} VideoRenderProgress */

/** @type {import("./feed.js").Fold<VideoRenderProgress | null>} */
const render = {
  first: null,
  take: (before, event) => (event?.type === "video_render_progress" ? event : before),
  isOver: (event) => event?.stage === "complete",
};

/**
 * How far a render is. It ends with the stage `complete`: then nothing is subscribed to any more.
 *
 * @param {string | number | null | undefined} jobId
 * @param {import("./feed.js").FeedOptions} [options]
 */
export function useRenderProgressStream(jobId, options = {}) {
  const { value, connection } = useFeed(channelOf("video_render", jobId), render, options);
  return {
    ...connection,
    /** 0 to 1. */
    progress: value?.progress ?? 0,
    currentFrame: value?.currentFrame ?? 0,
    totalFrames: value?.totalFrames ?? 0,
    stage: value?.stage ?? null,
    /** Frames rendered a second. */
    fps: value?.fps ?? 0,
    /** Seconds; null before the first event. */
    estimatedTime: value?.estimatedTimeRemaining ?? null,
    isComplete: render.isOver?.(value) ?? false,
  };
}
