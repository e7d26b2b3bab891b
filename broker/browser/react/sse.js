/** Any event stream of the daemon, by its URL. */

import { BrokerError } from "../errors.js";
import { openEventStream } from "../eventstream.js";
import { Member, routeOf, shapeOf, Source, useSource } from "./source.js";

/**
 * @typedef {import("./source.js").SourceOptions} SourceOptions
 */

// What the daemon says of the stream itself; it is no event of a channel.
const OWN_WORDS = new Set(["connected", "server_shutdown"]);

class StreamSource extends Source {
  /** What the stream itself said last, where it said why it ends. @type {BrokerError | null} */
  #said = null;

  dial() {
    const { address, getToken } = routeOf(this.url, this.client);
    return openEventStream(address, {
      getToken,
      onEvent: (message) => this.#take(message),
      onError: (error) => this.fail(error),
      onStatus: (status) => this.follow(status),
      ...shapeOf(this.options),
    });
  }

  /** @param {import("../index.js").ClientStatus} status */
  follow(status) {
    if (status.state === "open") this.#said = null;
    super.follow(status);
    const isOver = status.state === "closed" || status.state === "failed";
    if (this.#said && isOver) this.tell({ error: new BrokerError("stream_error", this.#said.message) });
  }

  /** @param {BrokerError} error */
  fail(error) {
    // That the stream has ended says less than what it said before.
    if (!this.#said) super.fail(error);
  }

  /** @param {{ type: string, data: string, id: string }} message */
  #take({ type, data, id }) {
    const event = read(data);
    if (type === "gap") return this.miss(event);
    if (type === "error") {
      const words = String(event?.error ?? data);
      const said = new BrokerError("stream_error", words, { willRetry: true });
      this.fail(said);
      this.#said = said;
      return undefined;
    }
    if (type === "message" && OWN_WORDS.has(event?.type)) return undefined;
    if (type === "message") this.tell({ data: event });
    return this.each((hears) => hears.onMessage?.(event, { type, id }));
  }
}

/**
 * The JSON of a message; its text where it is none.
 *
 * @param {string} text
 */
export function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/**
 * Follow an event stream of the daemon: `useSSE("/api/stream?channel=job_progress:42")`. Components
 * with the same URL share one connection. `onMessage(data, {type, id})` gets every event; `data` is
 * the latest one of type `message`.
 *
 * @template [T=any]
 * @param {string | URL | null | undefined} url null: nothing is connected
 * @param {SourceOptions} [options]
 */
export function useSSE(url, options = {}) {
  const { result } = useSource(
    "stream",
    url,
    options,
    (address, client, given, drop) => new StreamSource(address, client, given, drop),
    /** @type {typeof Member<StreamSource>} */ (Member),
  );
  return { ...result, data: /** @type {T | null} */ (result.data) };
}
