// How a connection ends, and whether it is worth coming back from. docs/endings.md has the whole
// table.

import { BrokerError } from "./errors.js";

/**
 * Close codes after which the same again would end the same, and what each is called.
 * @type {Record<number, string>}
 */
const FINAL = {
  1002: "protocol_error",
  1007: "bad_text",
  1009: "frame_too_big",
  4006: "disconnected",
  4401: "unauthenticated",
  4403: "revoked",
};

/**
 * How a WebSocket ended.
 * @param {{ code: number, reason: string }} event
 * @returns {import("./redial.js").Ending}
 */
export function socketEnding({ code, reason }) {
  const message = reason || `the connection broke (${code})`;
  return {
    error: new BrokerError(FINAL[code] ?? "closed", message, { status: code }),
    isFinal: code in FINAL,
    // The token is over: another one is asked for at once.
    waitMs: code === 4402 ? 0 : undefined,
  };
}
