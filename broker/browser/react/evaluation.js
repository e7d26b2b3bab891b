/**
 * An evaluation: asked for with one request, answered in pieces, ended by `complete` or `error`.
 *
 * Laws: it is asked for by `start`, never by rendering. A cut goes on behind the last event. While
 * it runs its id is in the session of the page: who reloads, or comes back to the component,
 * watches it from the beginning. `stop`, and another argument, end the watching; the daemon ends
 * the evaluation when nobody watches any more.
 *
 * Bounds: `REMEMBERED_MAX` ids in the session; those of the fold. It is always asked for by POST: a
 * transcript may be longer than a URL may be, and does not belong in access logs.
 */

import { useSyncExternalStore } from "react";

import { BrokerError, tell } from "../errors.js";
import { openEventStream } from "../eventstream.js";
import { Board } from "./board.js";
import { useKept, useNewest } from "./kept.js";
import { useBroker } from "./provider.js";
import { routeOf } from "./source.js";
import { read } from "./sse.js";

const LINGER_MS = 1000;
const REMEMBERED_MAX = 20;
const STORED_AS = "broker.evaluations";
const NOT_FOUND = 404;

/**
 * @typedef {import("../index.js").Client} Client
 * @typedef {import("../index.js").ClientStatus} Status
 */

/**
 * @typedef {object} EvaluationOptions
 * @property {(event: any) => void} [onMessage] every event
 * @property {(result: any) => void} [onComplete] the data of `complete`
 * @property {(error: BrokerError) => void} [onError]
 */

/**
 * @template T
 * @typedef {object} Seen
 * @property {T} value
 * @property {any} result the data of `complete`
 * @property {BrokerError | null} error
 * @property {string | null} evaluationId
 * @property {boolean} isStreaming it was asked for, and has not ended
 * @property {boolean} wasAnswered
 * @property {Pick<Status, "state" | "attempt" | "nextRetryAt">} link
 */

/**
 * @template T
 * @typedef {object} Kind
 * @property {string} path
 * @property {T} first
 * @property {(value: T, event: any) => T} take
 */

/** @type {Pick<Status, "state" | "attempt" | "nextRetryAt">} */
const IDLE = { state: "idle", attempt: 0, nextRetryAt: null };

/** @template T */
class Evaluation {
  /** @type {{ close(): void } | null} */
  #stream = null;
  #lastId = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #linger;
  #client;
  #kind;
  #request;
  #newest;

  /**
   * @param {Client} client
   * @param {Kind<T>} kind
   * @param {string} request the parameters as JSON
   * @param {{ current: EvaluationOptions }} newest
   */
  constructor(client, kind, request, newest) {
    this.#client = client;
    this.#kind = kind;
    this.#request = request;
    this.#newest = newest;
    /** @type {Board<Seen<T>>} */
    this.board = new Board({
      value: kind.first,
      result: null,
      error: null,
      evaluationId: null,
      isStreaming: false,
      wasAnswered: false,
      link: IDLE,
    });
  }

  /** @param {() => void} watcher */
  watch = (watcher) => {
    const stop = this.board.watch(watcher);
    clearTimeout(this.#linger);
    if (!this.#stream) this.#resume();
    return () => {
      stop();
      if (!this.board.isWatched) this.#linger = setTimeout(() => this.#rest(), LINGER_MS);
    };
  };

  read = () => this.board.shown;

  readFirst = () => this.board.first;

  start = () => {
    this.#begin();
    this.#open(this.#kind.path, { method: "POST", body: this.#request });
    this.board.show();
  };

  stop = () => {
    if (!this.board.value.isStreaming) return;
    this.#finish({});
    this.board.show();
  };

  /** Watch what ran when the page was reloaded, or when this component went. */
  #resume() {
    const { evaluationId, isStreaming } = this.board.value;
    const id = isStreaming ? evaluationId : recall(this.#name());
    if (!id) return;
    if (!isStreaming) this.#begin();
    const lastEventId = this.#lastId ? { lastEventId: this.#lastId } : {};
    this.#open(`${this.#kind.path}/${id}`, lastEventId);
  }

  #begin() {
    this.#close();
    this.#lastId = "";
    this.board.change({ ...this.board.first, isStreaming: true });
  }

  /**
   * @param {string} path
   * @param {object} options
   */
  #open(path, options) {
    const isResumed = !("body" in options);
    const { address, getToken } = routeOf(path, this.#client);
    const stream = openEventStream(address, {
      ...options,
      getToken,
      onEvent: (message) => this.#take(message),
      onStatus: (link) => this.#follow(link),
      onError: (error) => {
        if (error.willRetry) this.#change({ error });
        else if (isResumed && error.status === NOT_FOUND) this.#forgetAll();
        else this.#fail(error);
      },
    });
    this.#stream = stream;
  }

  #close() {
    const stream = this.#stream;
    this.#stream = null;
    stream?.close();
    if (stream) this.#change({ link: IDLE });
  }

  /** Nobody looks: go on from the session when somebody does. */
  #rest() {
    if (this.board.value.evaluationId) this.#close();
    else this.stop();
  }

  /** @param {Partial<Seen<T>>} change */
  #finish(change) {
    this.#close();
    forget(this.#name());
    this.#change({ ...change, isStreaming: false });
  }

  /** What ran is not there any more, and nobody asked for it again. */
  #forgetAll() {
    this.#finish({});
    this.board.change(this.board.first);
  }

  /** @param {BrokerError} error */
  #fail(error) {
    this.#finish({ error });
    tell(this.#newest.current.onError, error);
  }

  /** @param {Status} link */
  #follow(link) {
    this.#change(link.state === "open" ? { link, error: null } : { link });
    // The daemon says that there is nothing more (204), and `complete` was not heard.
    if (link.state === "closed" && this.#stream && this.board.value.isStreaming) {
      const words = "the rest of the evaluation is not there any more; start it again";
      this.#fail(new BrokerError("evaluation_gone", words));
    }
  }

  /** @param {{ type: string, data: string, id: string }} message */
  #take({ type, data, id }) {
    const event = read(data);
    const isNew = id !== this.#lastId;
    if (id) this.#lastId = id;
    if (type === "complete") {
      const result = event?.data ?? null;
      this.#finish({ result, wasAnswered: true });
      tell(this.#newest.current.onComplete, result);
    } else if (type === "error") {
      // Without an id of its own it is the connection's end, not the evaluation's.
      if (isNew) this.#fail(new BrokerError("evaluation_failed", String(event?.error ?? data)));
    } else if (type === "message") this.#hear(event);
  }

  /** @param {any} event */
  #hear(event) {
    if (event?.type === "connected") {
      this.#change({ evaluationId: event.evaluationId });
      remember(this.#name(), event.evaluationId);
      return;
    }
    if (event?.type === "server_shutdown") return;
    const { value } = this.board.value;
    const isAnew = event?.type === "evaluation_restarted";
    const after = isAnew ? this.#kind.first : this.#kind.take(value, event);
    this.#change({ value: after, wasAnswered: !isAnew });
    tell(this.#newest.current.onMessage, event);
  }

  /** @param {Partial<Seen<T>>} change */
  #change(change) {
    this.board.change({ ...this.board.value, ...change });
  }

  /** By which it is found again after a reload. */
  #name() {
    return `${this.#client.url}${this.#kind.path} ${digest(this.#request)}`;
  }
}

/**
 * @template T
 * @param {Kind<T>} kind
 * @param {Record<string, unknown>} parameters
 * @param {readonly unknown[]} key what is compared to see whether they are others
 * @param {EvaluationOptions} options
 */
export function useEvaluation(kind, parameters, key, options) {
  const client = useBroker();
  const newest = useNewest(options);
  const evaluation = useKept(
    [client, ...key],
    () => new Evaluation(client, kind, JSON.stringify(parameters), newest),
  );
  const { value, link, isStreaming, wasAnswered, ...seen } = useSyncExternalStore(
    evaluation.watch,
    evaluation.read,
    evaluation.readFirst,
  );
  return {
    value,
    result: seen.result,
    evaluation: {
      /** `error.willRetry` says whether it goes on by itself. */
      error: seen.error,
      evaluationId: seen.evaluationId,
      isStreaming,
      isConnected: link.state === "open",
      /** Asked for, and nothing was answered yet. */
      isLoading: isStreaming && !wasAnswered,
      status: link.state,
      attempt: link.attempt,
      nextRetryAt: link.nextRetryAt,
      /** Ask for it; what was shown of the one before is gone. */
      startStreaming: evaluation.start,
      /** Watch no more; what is shown stays. */
      stopStreaming: evaluation.stop,
    },
  };
}

/** @returns {[string, string][]} what runs: a name and an id each, oldest first */
function remembered() {
  try {
    const stored = JSON.parse(sessionStorage.getItem(STORED_AS) ?? "[]");
    return Array.isArray(stored) ? stored.filter((entry) => entry?.length === 2) : [];
  } catch {
    // A page may be denied its storage; then a reload begins with nothing.
    return [];
  }
}

/** @param {[string, string][]} entries */
function store(entries) {
  try {
    if (entries.length) sessionStorage.setItem(STORED_AS, JSON.stringify(entries));
    else sessionStorage.removeItem(STORED_AS);
  } catch {
    // As above.
  }
}

/** @param {string} name */
const others = (name) => remembered().filter(([other]) => other !== name);

/** @param {string} name */
const recall = (name) => remembered().find(([other]) => other === name)?.[1];

/**
 * @param {string} name
 * @param {string} id
 */
function remember(name, id) {
  store([...others(name), /** @type {[string, string]} */ ([name, id])].slice(-REMEMBERED_MAX));
}

/** @param {string} name */
function forget(name) {
  if (recall(name)) store(others(name));
}

/**
 * A short name of a text: its length and two hashes (FNV-1a from two starts). Not against those who
 * look for two texts with one name: all they get is their own evaluation.
 *
 * @param {string} text
 */
function digest(text) {
  let [one, two] = [0x811c9dc5, 0x5bd1e995];
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    one = Math.imul(one ^ unit, 0x01000193);
    two = Math.imul(two ^ unit, 0x01000193);
  }
  return [text.length, one >>> 0, two >>> 0].map((number) => number.toString(36)).join(".");
}
