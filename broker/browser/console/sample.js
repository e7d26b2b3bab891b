/**
 * Samples: what the daemons said at one moment, and what happened between two of them.
 *
 * Laws: counters are sums over all daemons, since each one's start. Where a daemon came or went in
 * between there is no rate, which is null and not a guess. Where none of the earlier ones is there
 * any more (a restart), what the new ones count is what happened since.
 * Synchronous; no I/O.
 */

import { inside } from "./figures.js";

/** @typedef {Record<string, any>} Stats the body of /api/realtime/stats */

/**
 * @typedef {object} Sample
 * @property {number} atMs by the clock of this machine
 * @property {number} tickMs by a clock that does not jump
 * @property {Stats} stats
 */

/**
 * @typedef {object} Change something that a counter or a state says has happened
 * @property {string} kind what it is, such as gap
 * @property {string} name which one, such as trimmed; empty where there is one only
 * @property {number} count how often
 * @property {"bad" | "warn" | "good" | "quiet"} tone
 * @property {string} [more] what the daemon says about it
 */

/** What is drawn as a rate. @type {Record<string, string[]>} */
const RATES = {
  messages: ["delivery", "messages"],
  deliveries: ["delivery", "deliveries"],
  bytes: ["delivery", "bytes"],
};

/** Endings that are part of an ordinary day. */
const ORDINARY = new Set(["left", "complete", "vanished"]);
/**
 * Limits that are counted a second time elsewhere: as a refused message, an ending or a refused
 * connection.
 */
const COUNTED_ELSEWHERE = new Set([
  "message_max_bytes",
  "outbox_max_bytes",
  "outbox_total_bytes",
  "commands_per_second",
]);

/**
 * Counters, by the kind of what they count: one number, or an object of them by name.
 * @type {readonly { kind: string, path: string[], tone: (name: string) => Change["tone"],
 *   without?: Set<string>, more?: string[] }[]}
 */
const COUNTERS = [
  { kind: "gap", path: ["delivery", "gaps"], tone: () => "warn" },
  { kind: "refused message", path: ["redis", "refusedByType"], tone: () => "warn" },
  { kind: "ended", path: ["delivery", "endings"], tone: toneOfEnding },
  { kind: "not let in", path: ["auth", "refused"], tone: () => "warn" },
  { kind: "limit reached", path: ["limits"], tone: () => "warn", without: COUNTED_ELSEWHERE },
  { kind: "refused publish", path: ["publishing", "refused"], tone: () => "warn" },
  { kind: "fell behind", path: ["delivery", "slow", "fellBehind"], tone: () => "warn" },
  { kind: "dropped for slow clients", path: ["delivery", "slow", "dropped"], tone: () => "warn" },
  { kind: "foreign page refused", path: ["connections", "refusedPages"], tone: () => "warn" },
  { kind: "connection failed", path: ["connections", "failed"], tone: () => "bad" },
  {
    kind: "not kept in history",
    path: ["history", "unkept"],
    tone: () => "bad",
    more: ["history", "lastUnkeptWhy"],
  },
  { kind: "bad control message", path: ["control", "bad"], tone: () => "warn" },
  { kind: "token or user revoked", path: ["control", "revoked"], tone: () => "quiet" },
];

/**
 * What happened a second, by the names of RATES; null where that cannot be said.
 * @param {Sample | null} before @param {Sample} after
 * @returns {Record<string, number | null>}
 */
export function ratesBetween(before, after) {
  const seconds = before === null ? 0 : (after.tickMs - before.tickMs) / 1000;
  const isSame =
    before !== null && seconds > 0 && answered(before).join() === answered(after).join();
  return Object.fromEntries(
    Object.entries(RATES).map(([name, path]) => {
      const begin = isSame ? inside(before.stats, ...path) : undefined;
      const end = inside(after.stats, ...path);
      const isKnown = typeof begin === "number" && typeof end === "number" && end >= begin;
      return [name, isKnown ? (end - begin) / seconds : null];
    }),
  );
}

/**
 * What happened between two samples.
 * @param {Sample} before @param {Sample} after
 * @returns {Change[]}
 */
export function changesBetween(before, after) {
  return [
    ...counted(before, after),
    ...changesOfNodes(before.stats, after.stats),
    ...changesOfRedis(before.stats, after.stats),
  ];
}

/**
 * All that was counted since the daemons' start.
 * @param {Sample} sample
 * @returns {Change[]}
 */
export function totals(sample) {
  return increases({}, sample.stats);
}

/**
 * The daemons whose figures are in the sums.
 * @param {Sample} sample
 * @returns {string[]}
 */
function answered(sample) {
  return nodesOf(sample.stats)
    .filter((node) => node.answered !== false)
    .map((node) => String(node.id))
    .sort();
}

/**
 * @param {Stats} stats
 * @returns {Record<string, any>[]}
 */
export function nodesOf(stats) {
  const found = inside(stats, "nodes");
  return Array.isArray(found)
    ? found.filter((node) => typeof node === "object" && node !== null)
    : [];
}

/**
 * @param {Sample} before
 * @param {Sample} after
 * @returns {Change[]}
 */
function counted(before, after) {
  const [earlier, now] = [answered(before), answered(after)];
  if (earlier.join() === now.join()) return increases(before.stats, after.stats);
  // Sums of other daemons: no difference says anything, unless they are all new.
  return earlier.some((id) => now.includes(id)) ? [] : increases({}, after.stats);
}

/**
 * @param {Stats} before
 * @param {Stats} after
 * @returns {Change[]}
 */
function increases(before, after) {
  /** @type {Change[]} */
  const found = [];
  for (const { kind, path, tone, without, more } of COUNTERS) {
    const now = inside(after, ...path);
    const earlier = inside(before, ...path);
    const was = new Map(numbersIn(earlier));
    for (const [name, value] of numbersIn(now)) {
      const count = value - (was.get(name) ?? 0);
      if (count <= 0 || without?.has(name)) continue;
      const said = more === undefined ? null : inside(after, ...more);
      found.push({ kind, name, count, tone: tone(name), ...(said ? { more: String(said) } : {}) });
    }
  }
  return found;
}

/**
 * The counters in a value: one without a name, or those of an object by name, such as
 * `job_progress: not_json`.
 * @param {unknown} value @param {string} [under]
 * @returns {[string, number][]}
 */
function numbersIn(value, under = "") {
  if (typeof value === "number") return [[under, value]];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) =>
    numbersIn(inner, under === "" ? name : `${under}: ${name}`),
  );
}

/**
 * @param {Stats} before
 * @param {Stats} after
 * @returns {Change[]}
 */
function changesOfNodes(before, after) {
  /** @type {Change[]} */
  const found = [];
  const earlier = new Map(nodesOf(before).map((node) => [node.id, node]));
  const now = new Map(nodesOf(after).map((node) => [node.id, node]));
  for (const [id, node] of now) {
    const was = earlier.get(id);
    const name = String(id);
    if (was === undefined) found.push({ kind: "daemon came", name, count: 1, tone: "good" });
    if (node.answered === false && was?.answered !== false) {
      found.push({
        kind: "daemon does not answer",
        name,
        count: 1,
        tone: "bad",
        more: String(node.why ?? ""),
      });
    }
    if (node.answered !== false && was?.answered === false) {
      found.push({ kind: "daemon answers again", name, count: 1, tone: "good" });
    }
    if (node.state === "stopping" && was?.state !== "stopping") {
      found.push({ kind: "daemon stops", name, count: 1, tone: "quiet" });
    }
    if (node.isRecorder === true && was?.isRecorder === false) {
      found.push({ kind: "recorder changed", name, count: 1, tone: "quiet" });
    }
  }
  for (const id of earlier.keys()) {
    if (!now.has(id))
      found.push({ kind: "daemon left", name: String(id), count: 1, tone: "quiet" });
  }
  return found;
}

/**
 * @param {Stats} before
 * @param {Stats} after
 * @returns {Change[]}
 */
function changesOfRedis(before, after) {
  const [was, is] = [
    inside(before, "redis", "awaySince") ?? null,
    inside(after, "redis", "awaySince") ?? null,
  ];
  const outages =
    Number(inside(after, "redis", "outages") ?? 0) -
    Number(inside(before, "redis", "outages") ?? 0);
  /** @type {Change[]} */
  const found = [];
  if (was === null && is !== null)
    found.push({ kind: "Redis is away", name: "", count: 1, tone: "bad" });
  else if (was === null && outages > 0)
    found.push({ kind: "Redis was away", name: "", count: outages, tone: "bad" });
  if (was !== null && is === null)
    found.push({ kind: "Redis is back", name: "", count: 1, tone: "good" });
  const [wasRefused, refused] = [
    inside(before, "history", "refusedWhy"),
    inside(after, "history", "refusedWhy"),
  ];
  if (refused && refused !== wasRefused) {
    found.push({
      kind: "Redis refuses history",
      name: "",
      count: 1,
      tone: "bad",
      more: String(refused),
    });
  }
  return found;
}

/**
 * @param {string} name
 * @returns {Change["tone"]}
 */
function toneOfEnding(name) {
  if (ORDINARY.has(name)) return "quiet";
  return name === "internal_error" ? "bad" : "warn";
}
