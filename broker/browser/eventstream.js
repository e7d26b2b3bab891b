// A stream of server-sent events, read with fetch: unlike EventSource it tells what status was
// answered, sends headers, and hears comments, so that a silent connection is found.
//
// Laws: it comes back with the id of the last event, after a wait that the server asks for or with
// full jitter; it does not come back from what cannot succeed; 204 and `event: complete` end it for
// good. A body is sent until an event had an id, then GET goes on behind that event.
// Bounds: one request at a time; an event of 16 Mi characters.

import { tell } from "./errors.js";
import { Redial } from "./redial.js";
import { readStream } from "./streamreader.js";

/** @typedef {{ type: string, data: string, id: string }} StreamEvent */

/**
 * @typedef {object} StreamOptions
 * @property {import("./index.js").GetToken} [getToken]
 * @property {Record<string, string>} [headers]
 * @property {string} [lastEventId] go on behind this event
 * @property {string} [method] of the first request, where there is a body: POST
 * @property {string} [body]
 * @property {RequestCredentials} [credentials]
 * @property {number} [heartbeatMs] how long nothing at all may be heard
 * @property {(event: StreamEvent) => void} [onEvent]
 * @property {() => void} [onEnd] it ended well: nothing more will come
 */

/** @typedef {StreamOptions & import("./redial.js").RedialOptions} EventStreamOptions */
/** @typedef {Redial & { readonly lastEventId: string }} EventStream */

/**
 * Read a stream, and come back to it for as long as that makes sense.
 * @param {string | ((lastEventId: string) => string)} url
 * @param {EventStreamOptions} [options]
 * @returns {EventStream}
 */
export function openEventStream(url, options = {}) {
  let { lastEventId = "" } = options;
  const redial = new Redial(
    (call) =>
      readStream({
        ...options,
        url: typeof url === "function" ? url(lastEventId) : url,
        lastEventId,
        onOpen: () => call.opened({ transport: "sse" }),
        onEvent(event) {
          lastEventId = event.id;
          tell(options.onEvent, event);
        },
        onEnd(ending) {
          call.ended(ending);
          if (ending.isDone) tell(options.onEnd);
        },
      }),
    options,
  );
  Object.defineProperty(redial, "lastEventId", { get: () => lastEventId });
  redial.start();
  return /** @type {EventStream} */ (redial);
}
