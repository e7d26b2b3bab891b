/** How far a job is. */

import { channelOf, useFeed } from "./feed.js";

/** @typedef {import("../events.d.ts").JobProgress} JobProgress */

/** @type {import("./feed.js").Fold<JobProgress | null>} */
const job = {
  first: null,
  take: (before, event) => (event?.type === "job_progress" ? event : before),
};

/**
 * How far a job is. `status` is the connection's, `jobStatus` the job's. It stays subscribed when
 * the job has ended, as a job may be run again.
 *
 * @param {string | number | null | undefined} jobId
 * @param {import("./feed.js").FeedOptions} [options]
 */
export function useJobProgress(jobId, options = {}) {
  const { value, connection } = useFeed(channelOf("job_progress", jobId), job, options);
  return {
    ...connection,
    /** The latest event. */
    job: value,
    /** 0 to 1. */
    progress: value?.progress ?? 0,
    stage: value?.stage ?? null,
    message: value?.message ?? null,
    jobStatus: value?.status ?? null,
    metadata: value?.metadata ?? null,
    isComplete: value?.status === "completed",
    isFailed: value?.status === "failed",
  };
}
