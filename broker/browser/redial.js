// Keeps a connection: dials, waits after a failure, dials again, until it is closed or of no use.
//
//   idle ── start ──> connecting ── opened ──> open
//                      ^   │ ended               │ ended
//                      │   v                     v
//                      └─ waiting <──────────────┘     ended for good: failed     close: closed
//
// Laws: one call at a time, and what an old call says is not heard. Failures are counted until a
// connection lasted `STEADY_MS`, so a server that accepts and drops is not hammered. No wait is
// over `WAIT_MAX_MS`, whatever the server asks for. A page that comes back does not wait. A page
// that is left hangs up, so that the browser may keep it for the way back.

import { jitterMs } from "./backoff.js";
import { tell } from "./errors.js";
import { watchPage } from "./wake.js";

const STEADY_MS = 5000;
const HIDDEN_MS = 1000;
const WAIT_MAX_MS = 3600000;

/**
 * How a call ended. `isFinal`: no use to come back. `isDone`: all came, and that is well.
 * `waitMs`: what the other end asks for. `channel`: which one is to blame.
 * @typedef {object} Ending
 * @property {import("./errors.js").BrokerError} error
 * @property {boolean} [isFinal]
 * @property {boolean} [isDone]
 * @property {number} [waitMs]
 * @property {string} [channel]
 */

/** @typedef {Partial<import("./index.js").ClientStatus>} Facts */
/** @typedef {{ opened(facts: Facts): void, ended(ending: Ending): void }} Call */
/** @typedef {{ hangUp(): void, wake(): void }} Line */
/**
 * @typedef {object} RedialOptions
 * @property {import("./index.js").Backoff} [backoff]
 * @property {(status: import("./index.js").ClientStatus) => void} [onStatus]
 * @property {() => void} [onOpen]
 * @property {(error: import("./errors.js").BrokerError) => void} [onError]
 */

/** @type {import("./index.js").ClientStatus} */
export const IDLE = Object.freeze({
  state: "idle",
  transport: null,
  attempt: 0,
  nextRetryAt: null,
  error: null,
  clientId: null,
});

/** One connection that is kept. */
export class Redial {
  status = IDLE;
  /** @type {Call | null} */
  #call = null;
  /** @type {Line | null} */
  #line = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {(() => void) | undefined} */
  #stopPage;
  #failures = 0;
  #openedAt = 0;
  #dial;
  #options;

  /**
   * @param {(call: Call) => Line} dial
   * @param {RedialOptions} options
   */
  constructor(dial, options) {
    this.#dial = dial;
    this.#options = options;
  }

  /** Connect, if it was never tried or was stopped. */
  start() {
    if (this.status.state === "idle") this.#connect();
  }

  /** Connect at once, whatever was; but not once it is closed. */
  reconnect() {
    if (this.status.state === "closed") return;
    this.#failures = 0;
    this.#connect();
  }

  /** Let go; `start` begins anew. */
  stop() {
    this.#rest({ state: "idle" });
  }

  /** Let go for good. */
  close() {
    this.#rest({ state: "closed" });
  }

  #connect() {
    this.#hangUp();
    this.#stopPage ??= watchPage(
      () => this.#wake(),
      () => this.#call && this.#wait(HIDDEN_MS, null),
    );
    this.#openedAt = Infinity;
    /** @type {Call} */
    const call = {
      opened: (facts) => {
        if (this.#call !== call) return;
        this.#openedAt = Date.now();
        this.#show({ state: "open", ...facts });
      },
      ended: (ending) => {
        if (this.#call === call) this.#ended(ending);
      },
    };
    this.#call = call;
    this.#show({ state: "connecting", attempt: this.#failures, error: this.status.error });
    // Whoever was told may have closed it.
    if (this.#call !== call) return;
    const line = this.#dial(call);
    if (this.#call === call) this.#line = line;
    else line.hangUp();
  }

  /** @param {Ending} ending */
  #ended({ error, isFinal, isDone, waitMs }) {
    const { backoff = {} } = this.#options;
    if (Date.now() - this.#openedAt >= STEADY_MS) this.#failures = 0;
    const attempt = (this.#failures += 1);
    error.willRetry = !isFinal && attempt <= (backoff.attempts ?? Infinity);
    if (isDone) return this.close();
    if (!error.willRetry) return this.#rest({ state: "failed", error, attempt });
    // What the other end asks for holds once; who is cut off again and again waits longer.
    const jitter = jitterMs(backoff, attempt);
    const askedMs = (waitMs ?? -1) >= 0 ? waitMs : undefined;
    this.#wait(attempt > 1 ? Math.max(askedMs ?? 0, jitter) : askedMs ?? jitter, error);
  }

  /**
   * @param {number} waitMs
   * @param {import("./errors.js").BrokerError | null} error
   */
  #wait(waitMs, error) {
    const ms = Math.min(waitMs, WAIT_MAX_MS);
    this.#hangUp();
    this.#timer = setTimeout(() => this.#connect(), ms);
    this.#show({ state: "waiting", attempt: this.#failures, error, nextRetryAt: Date.now() + ms });
  }

  #wake() {
    if (this.status.state === "waiting") this.#connect();
    else this.#line?.wake();
  }

  #hangUp() {
    clearTimeout(this.#timer);
    const line = this.#line;
    this.#call = this.#line = null;
    line?.hangUp();
  }

  /** @param {Facts & { state: string }} facts */
  #rest(facts) {
    this.#hangUp();
    this.#stopPage?.();
    this.#stopPage = undefined;
    if (![facts.state, "closed"].includes(this.status.state)) this.#show(facts);
  }

  /** @param {Facts} facts */
  #show(facts) {
    const { onStatus, onOpen, onError } = this.#options;
    const status = Object.freeze({ ...IDLE, ...facts });
    this.status = status;
    tell(onStatus, status);
    // Nothing is said of a state that a handler has just changed.
    if (this.status !== status) return;
    if (status.state === "open") tell(onOpen);
    else if (status.error && status.state !== "connecting") tell(onError, status.error);
  }
}
