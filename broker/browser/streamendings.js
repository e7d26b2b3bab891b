// How a stream ends, by its last event or by the answer that refused it. docs/endings.md has the
// whole table.

import { BrokerError } from "./errors.js";

/**
 * What an event of a stream says of its ending; null where it says nothing.
 * @param {{ type: string, data: string }} event
 * @returns {import("./redial.js").Ending | null}
 */
export function streamEnding({ type, data }) {
  if (!/^(token_expired|revoked|disconnected|complete)$/.test(type)) return null;
  const [, message = `the stream ended: ${type}`] = /"message":"([^"]*)"/.exec(data) ?? [];
  return {
    error: new BrokerError(type, message),
    isFinal: type !== "token_expired",
    isDone: type === "complete",
    waitMs: 0,
  };
}

/**
 * How a refused request ended, as its answer tells.
 * @param {Response} response
 * @returns {Promise<import("./redial.js").Ending>}
 */
export async function refusal(response) {
  const { status } = response;
  const { error = "", detail = "", hint = "", channel } = await response.json().catch(() => ({}));
  const words = `${error}`.toLowerCase().replace(/\W+/g, "_");
  const code = status === 401 ? "bad_token" : words || "refused";
  return {
    error: new BrokerError(code, `answered ${status}. ${detail}. ${hint}`, { status }),
    isFinal: status < 500 && ![408, 425, 429].includes(status),
    waitMs: Number(response.headers.get("Retry-After")) * 1000 || undefined,
    channel,
  };
}
