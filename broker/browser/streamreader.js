// One reading of a text/event-stream, from the request to its end.
//
// Laws: `onEnd` comes once, and nothing after it or after `hangUp`. A token that does not count is
// asked for once more; the same one is not tried twice. A stream that says nothing is cut: at first
// after `OPEN_MS`, so that a proxy that holds it back is found, and later by the watchdog.

import { askToken } from "./credential.js";
import { asBrokerError, BrokerError } from "./errors.js";
import { EventParser } from "./eventparser.js";
import { refusal, streamEnding } from "./streamendings.js";
import { Watchdog } from "./watchdog.js";

const OPEN_MS = 10000;
const SILENCE_MS = 45000;
const SILENCE_MIN_MS = 10000;

/**
 * `expect`: so often something comes.
 * @typedef {import("./redial.js").Line & { expect(everyMs: number): void }} StreamLine
 */

/**
 * @typedef {object} Reading
 * @property {string} url
 * @property {import("./index.js").GetToken} [getToken]
 * @property {Record<string, string>} [headers]
 * @property {string} [lastEventId]
 * @property {string} [method]
 * @property {string} [body] sent where there is no `lastEventId`
 * @property {RequestCredentials} [credentials]
 * @property {number} [heartbeatMs]
 * @property {() => void} [onOpen]
 * @property {(event: import("./eventstream.js").StreamEvent) => void} onEvent
 * @property {(ending: import("./redial.js").Ending) => void} onEnd
 */

/**
 * @param {Reading} reading
 * @returns {StreamLine}
 */
export function readStream(reading) {
  const { url, getToken, lastEventId, body, onOpen, onEvent, onEnd } = reading;
  const aborter = new AbortController();
  const { signal } = aborter;
  /** @type {import("./redial.js").Ending | null} */
  let farewell = null;
  const parser = new EventParser(lastEventId, (event) => {
    if (signal.aborted) return;
    farewell = streamEnding(event) ?? farewell;
    onEvent(event);
    if (farewell?.isDone) end(farewell);
  });
  /** While the page is asked for its token there is nothing to watch. @type {Watchdog | null} */
  let watchdog = null;

  function hangUp() {
    watchdog?.stop();
    aborter.abort();
  }

  /** @param {import("./redial.js").Ending} ending */
  function end(ending) {
    if (signal.aborted) return;
    hangUp();
    onEnd({ waitMs: parser.retryMs, ...ending, ...farewell });
  }

  async function ask() {
    watchdog?.stop();
    const token = await askToken(getToken);
    watchdog = new Watchdog(OPEN_MS, reading.heartbeatMs ?? SILENCE_MS, null, () =>
      end({ error: new BrokerError("silent", `nothing was heard from ${url}`) }),
    );
    // It may have been hung up meanwhile.
    if (signal.aborted) watchdog.stop();
    return token;
  }

  /** @param {string | null | undefined} token */
  function request(token) {
    const hasBody = body !== undefined && !lastEventId;
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream" };
    if (token) headers.Authorization = `Bearer ${token}`;
    if (lastEventId) headers["Last-Event-ID"] = lastEventId;
    if (hasBody) headers["Content-Type"] = "application/json";
    return fetch(url, {
      method: hasBody ? reading.method ?? "POST" : "GET",
      body: hasBody ? body : undefined,
      headers: { ...headers, ...reading.headers },
      credentials: reading.credentials,
      cache: "no-store",
      signal,
    });
  }

  async function run() {
    const token = await ask();
    if (signal.aborted) return;
    let response = await request(token);
    if (response.status === 401) {
      const fresh = await ask();
      if (fresh && fresh !== token) response = await request(fresh);
    }
    if (response.status === 204) farewell = streamEnding({ type: "complete", data: "" });
    else if (!response.ok) return end(await refusal(response));
    if (!/^text\/event-stream/.test(response.headers.get("Content-Type") ?? "")) {
      throw new TypeError(`${url} is no event stream`);
    }
    onOpen?.();
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new TypeError("the stream ended");
      watchdog?.heard();
      parser.feed(decoder.decode(value, { stream: true }));
    }
  }

  run().catch((cause) => end({ error: asBrokerError(cause) }));
  return {
    hangUp,
    wake: () => watchdog?.wake(),
    expect(everyMs) {
      if (watchdog) watchdog.silenceMs = Math.max(3 * everyMs, SILENCE_MIN_MS);
    },
  };
}
