// What went wrong, as every callback of this package is told it.
//
// `code` is stable: the daemon's own over WebSocket (docs/endings.md), the name of the status over
// HTTP. The message says what to do where the client does not come back by itself.

/** An error with a stable code. */
export class BrokerError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ status?: number, willRetry?: boolean, cause?: unknown }} [facts]
   */
  constructor(code, message, { status, willRetry = false, cause } = {}) {
    super(message, { cause });
    this.name = "BrokerError";
    /** A stable word for a program: `forbidden`, `bad_token`, `unreachable`... */
    this.code = code;
    /** The HTTP status or the WebSocket close code, where there was one. */
    this.status = status;
    /** Whether the client tries again by itself. */
    this.willRetry = willRetry;
  }
}

/**
 * What was thrown on the way to a connection, as one of ours.
 * @param {any} cause
 * @returns {BrokerError}
 */
export function asBrokerError(cause) {
  if (cause instanceof BrokerError) return cause;
  return new BrokerError("unreachable", `${cause}`, { cause });
}

/**
 * Call a handler of the page, if there is one. What it throws the page hears of as of any other
 * uncaught error, and nobody else suffers for it.
 * @template {unknown[]} A
 * @param {((...args: A) => void) | undefined | null} handler
 * @param {A} args
 */
export function tell(handler, ...args) {
  try {
    handler?.(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
