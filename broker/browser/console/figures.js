/**
 * Figures as people read them.
 *
 * Law: a figure that is not there is a dash, never 0: another version of the daemon may not tell
 * it.
 */

export const NOTHING = "–";
const THIN = "\u202f";
const BYTES = ["B", "KB", "MB", "GB", "TB"];
const COUNTS = ["", "k", "M", "G", "T"];
/** @type {readonly (readonly [number, string])[]} */
const SPANS = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

/** A whole number in groups of three. @param {unknown} value */
export function count(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NOTHING;
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, THIN);
}

/** Such as 12.3k. @param {unknown} value */
export function short(value) {
  return typeof value === "number" ? scaled(value, 1000, COUNTS, "") : NOTHING;
}

/** Bytes, such as 1.2 MB (of 1024). @param {unknown} value */
export function size(value) {
  return typeof value === "number" ? scaled(value, 1024, BYTES, THIN) : NOTHING;
}

/** Such as 0.4 ms, 12 s, 3 min, 5 h. @param {unknown} seconds */
export function duration(seconds) {
  if (typeof seconds !== "number") return NOTHING;
  for (const [least, unit] of SPANS) {
    if (seconds >= least) return `${(seconds / least).toFixed(seconds < 10 ? 1 : 0)}${THIN}${unit}`;
  }
  return `${(Math.max(0, seconds) * 1000).toFixed(seconds < 0.01 ? 1 : 0)}${THIN}ms`;
}

/**
 * How long ago an ISO time was.
 * @param {unknown} time
 * @param {number} nowMs
 */
export function ago(time, nowMs) {
  const then = typeof time === "string" ? Date.parse(time) : Number.NaN;
  return Number.isNaN(then) ? NOTHING : duration(Math.max(0, Math.round((nowMs - then) / 1000)));
}

/** The time of day here, such as 03:12:05. @param {number} atMs */
export function clock(atMs) {
  return new Date(atMs).toTimeString().slice(0, 8);
}

/** A text of the daemon's; a dash where it is empty. @param {unknown} value */
export function text(value) {
  return value === null || value === undefined || value === "" ? NOTHING : String(value);
}

/**
 * What stands at a path in JSON; undefined where there is no such thing.
 * @param {unknown} value @param {...string} path
 * @returns {any}
 */
export function inside(value, ...path) {
  let found = /** @type {any} */ (value);
  for (const name of path) {
    if (typeof found !== "object" || found === null || !Object.hasOwn(found, name))
      return undefined;
    found = found[name];
  }
  return found;
}

/**
 * @param {number} value
 * @param {number} step
 * @param {string[]} units
 * @param {string} gap
 */
function scaled(value, step, units, gap) {
  let unit = 0;
  let left = value;
  while (Math.abs(left) >= step && unit < units.length - 1) {
    left /= step;
    unit += 1;
  }
  const digits = Math.abs(left) >= 100 || Number.isInteger(left) ? 0 : 1;
  return `${left.toFixed(digits)}${units[unit] === "" ? "" : gap}${units[unit]}`;
}
