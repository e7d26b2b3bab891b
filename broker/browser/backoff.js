// How long to wait before the next attempt: full jitter between `minMs` and a bound that doubles.
//
// Whoever was cut off with ten thousand others must not come back with them.

/**
 * @param {import("./index.js").Backoff} backoff
 * @param {number} failures in a row, 1 or more
 */
export function jitterMs({ minMs = 500, maxMs = 20000 }, failures) {
  return minMs + Math.random() * (Math.min(maxMs, minMs * 2 ** failures) - minMs);
}
