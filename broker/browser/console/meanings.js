/**
 * What names of gaps, endings and refusals mean, in a few words: for who reads them at night.
 *
 * Law: a name that is not here is shown as it is; the daemon may be newer than these words.
 * Source: docs/delivery.md "Gaps", docs/endings.md, docs/metrics.md.
 */

/** @type {Record<string, Record<string, string>>} */
const MEANINGS = {
  gap: {
    epoch_changed: "the channel's history began anew",
    rolled_back: "Redis came back with an older state",
    trimmed: "a client missed more than is kept",
    redis_away: "Redis was away, and the channel has no history",
    overflow: "events were dropped for a slow client",
    recorder_changed: "nobody recorded plain events for a moment",
    unknown_position: "a client came with a position of no event",
    no_history: "a client asked to resume where nothing is kept",
    not_kept: "Redis took no writes",
  },
  ended: {
    left: "the client closed",
    complete: "the stream had its last event",
    vanished: "the connection broke",
    silent: "no pong and no message in time",
    protocol_error: "bytes that the WebSocket protocol forbids",
    bad_text: "text that is not UTF-8",
    frame_too_big: "a message over the size limit",
    internal_error: "the daemon's fault; it is in its log",
    shutdown: "the daemon stopped",
    outbox_full: "too many bytes waited for a slow client",
    outbox_stale: "a slow client did not read in time",
    outbox_total: "too many bytes waited for all clients",
    disconnected: "by the operator",
    too_many_commands: "more messages than allowed",
    unauthenticated: "no valid token in time",
    token_expired: "the token was over",
    revoked: "the token was revoked",
    too_many_connections: "the user has too many",
    upstream_refused: "Redis does not let the daemon listen",
    request_too_big: "bytes behind a stream's request",
    cancelled: "cut off at the end of the drain",
  },
  "refused message": {
    too_big: "larger than channels.message_max_bytes",
    not_utf8: "not UTF-8",
    not_json: "not JSON",
    not_an_event: "no event with the fields of its type",
    bad_stamp: "the stamp of the history cannot be read",
  },
  "refused publish": {
    400: "no event, or no channel",
    401: "no token, or one that does not count",
    403: "no right to publish there",
    413: "too large",
    422: "an Idempotency-Key with another body",
    502: "Redis took only some",
    503: "Redis did not confirm",
  },
  "fell behind": {
    disconnect: "such clients are ended",
    drop_oldest: "their oldest events are dropped",
    latest: "they get the newest event only",
    catch_up: "they read on from history",
  },
};

/**
 * @param {string} kind
 * @param {string} name such as trimmed, or `job_progress: not_json`
 * @returns {string} empty where it is not known
 */
export function meaning(kind, name) {
  return MEANINGS[kind]?.[name.slice(name.lastIndexOf(" ") + 1)] ?? "";
}
