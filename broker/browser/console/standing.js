/**
 * How Redis and the daemons stand: facts of the last sample, and a line for each daemon.
 */

import { ago, clock, count, duration, inside, NOTHING, size, text } from "./figures.js";
import { element, part, write } from "./element.js";
import { nodesOf } from "./sample.js";

/** @typedef {import("./sample.js").Stats} Stats */

export class Standing {
  constructor() {
    this.facts = part("redis-facts", HTMLDListElement);
    this.body = element("tbody");
    const titles = ["Daemon", "State", "Clients", "Channels", "Version", "Up for"];
    const numbers = new Set(["Clients", "Channels", "Up for"]);
    const heads = titles.map((title) =>
      element("th", { scope: "col", class: numbers.has(title) ? "number" : null }, title),
    );
    part("nodes-table", HTMLDivElement).append(
      element("table", {}, element("thead", {}, element("tr", {}, ...heads)), this.body),
    );
  }

  /**
   * @param {Stats} stats
   * @param {number} nowMs
   */
  show(stats, nowMs) {
    const facts = factsOf(stats, nowMs);
    if (this.facts.childElementCount !== facts.length) {
      this.facts.replaceChildren(
        ...facts.map(() => element("div", {}, element("dt"), element("dd", { class: "figure" }))),
      );
    }
    facts.forEach(([name, value, tone], index) => {
      const [title, said] = this.facts.children[index]?.children ?? [];
      if (title === undefined || said === undefined) return;
      write(title, name);
      write(said, value);
      said.className = `figure ${tone}`;
    });
    this.body.replaceChildren(...nodesOf(stats).map((node) => nodeRow(node, nowMs)));
  }
}

/**
 * @param {Stats} stats
 * @param {number} nowMs
 * @returns {[string, string, string][]} name, value, tone
 */
function factsOf(stats, nowMs) {
  const at = (/** @type {string[]} */ ...path) => inside(stats, ...path);
  const awaySince = at("redis", "awaySince");
  const outages = at("redis", "outages");
  const last = at("redis", "lastOutage");
  const recorder = nodesOf(stats).find((node) => node.isRecorder === true);
  const refused = Object.values(at("redis", "refusedMessages") ?? {}).reduce(
    (sum, each) => sum + Number(each),
    0,
  );
  const slow = at("delivery", "slow", "now");
  return [
    [
      "Redis",
      awaySince
        ? `away for ${ago(awaySince, nowMs)}, since ${clock(Date.parse(awaySince))}`
        : at("channels", "isConnected") === false
          ? "away"
          : "connected",
      awaySince ? "bad" : "good",
    ],
    [
      "Outages",
      count(outages) +
        (last ? `, the last ${ago(last.endedAt, nowMs)} ago, for ${lasted(last)}` : ""),
      outages > 0 ? "warn" : "",
    ],
    [
      "Records plain events",
      recorder ? text(recorder.id) : at("history", "isRecorder") ? "this daemon" : "nobody",
      recorder || at("history", "isRecorder") ? "" : "warn",
    ],
    ["Kept by it", count(at("history", "recorded")), ""],
    [
      "Not kept",
      count(at("history", "unkept")) +
        (at("history", "lastUnkeptWhy") ? `, ${at("history", "lastUnkeptWhy")}` : ""),
      at("history", "unkept") > 0 ? "bad" : "",
    ],
    ["Refused messages", count(refused), refused > 0 ? "warn" : ""],
    ["Channels in Redis", count(at("channels", "redisSubscriptions")), ""],
    ["Subscriptions", count(at("channels", "totalSubscriptions")), ""],
    ["Slow clients now", count(slow), slow > 0 ? "warn" : ""],
    [
      "Waits for clients",
      `${size(at("outboxes", "queuedBytes"))} of ${size(at("outboxes", "maxBytes"))}`,
      "",
    ],
    [
      "Loop lag",
      `${duration(at("loop", "lagSeconds"))}, worst ${duration(at("loop", "lagMaxSeconds"))}`,
      at("loop", "lagSeconds") > 0.1 ? "warn" : "",
    ],
    [
      "Connections",
      `${count(at("connections", "open"))} of ${count(at("connections", "max"))}`,
      "",
    ],
  ];
}

/** @param {Record<string, any>} outage */
function lasted(outage) {
  const seconds = (Date.parse(outage.endedAt) - Date.parse(outage.begunAt)) / 1000;
  return Number.isFinite(seconds) ? duration(seconds) : NOTHING;
}

/**
 * @param {Record<string, any>} node
 * @param {number} nowMs
 */
function nodeRow(node, nowMs) {
  const isSilent = node.answered === false;
  const state = isSilent
    ? `does not answer: ${text(node.why)}`
    : text(node.state) + (node.isRecorder ? ", records" : "");
  return element(
    "tr",
    {},
    element("td", { title: text(node.address) }, text(node.id)),
    element("td", { class: isSilent ? "bad" : node.state === "serving" ? null : "warn" }, state),
    element("td", { class: "number" }, count(node.clients)),
    element("td", { class: "number" }, count(node.channels)),
    element("td", {}, text(node.version)),
    element("td", { class: "number" }, ago(node.startedAt, nowMs)),
  );
}
