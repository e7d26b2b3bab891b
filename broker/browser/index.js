// @broker/client: events of a broker in a page, a worker or Node >= 20.
//
//   import { createClient } from "@broker/client";
//   const client = createClient();
//   const subscription = client.subscribe("job_progress:42", { onEvent: (event) => show(event) });
//
// docs/browser.md is the guide. Nothing here opens a connection before the first subscribe. Any
// other stream or socket of a daemon: stream.js.

import { Client } from "./client.js";

export { Client } from "./client.js";
export { BrokerError } from "./errors.js";

/**
 * How long to wait between attempts: between `minMs` and a bound that doubles up to `maxMs`.
 * @typedef {{ minMs?: number, maxMs?: number, attempts?: number }} Backoff
 */

/**
 * Asked for a token at each connect, before the token is over, and once more after `bad_token`.
 * @typedef {() => string | null | undefined | Promise<string | null | undefined>} GetToken
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] where the daemon is: an origin or a path prefix; else the page's origin
 * @property {GetToken} [getToken]
 * @property {"auto" | "websocket" | "sse"} [transport]
 * @property {boolean} [share] tabs of one origin share one connection
 * @property {string} [shareKey] only tabs with the same key share
 * @property {string} [userId] who the page says it is, for daemons without authentication
 * @property {number} [lingerMs] how long a channel, and the connection, outlive the last subscriber
 * @property {Backoff} [backoff]
 * @property {(event: any) => void} [onUserEvent] an event for the user, on no channel
 */

/**
 * A snapshot; it is replaced, never changed.
 * @typedef {object} ClientStatus
 * @property {"idle" | "connecting" | "open" | "waiting" | "failed" | "closed"} state
 * @property {"websocket" | "sse" | null} transport
 * @property {number} attempt how many attempts failed in a row
 * @property {number | null} nextRetryAt milliseconds since 1970, while it waits
 * @property {import("./errors.js").BrokerError | null} error why it waits or failed
 * @property {string | null} clientId what the daemon calls this connection
 */

/**
 * Events may be missing here; docs/delivery.md says for each reason what to do.
 * @typedef {object} Gap
 * @property {"gap"} type
 * @property {string} channel
 * @property {string} reason
 * @property {string | null} from
 * @property {string | null} to
 * @property {number} [count]
 * @property {string} timestamp
 */

/** @typedef {string | { type: string, id?: string | null, userId?: string | null }} ChannelLike */

/** @typedef {{ position: string | null, recovered: boolean, replay: number }} Start */

/**
 * @typedef {object} SubscribeOptions
 * @property {string | null} [since] a position to go on from
 * @property {(event: any, place: { channel: string, position: string | null }) => void} [onEvent]
 * @property {(gap: Gap) => void} [onGap]
 * @property {(error: import("./errors.js").BrokerError) => void} [onError]
 * @property {(start: Start) => void} [onSubscribed]
 */

/** @typedef {import("./subscription.js").Subscription} Subscription */

/**
 * A client. It connects with its first subscriber and lets go `lingerMs` after its last.
 * @param {ClientOptions} [options]
 * @returns {Client}
 */
export function createClient(options = {}) {
  return new Client(options);
}
