/**
 * The board: everything that is shown once there are figures, and what becomes of each sample.
 *
 * Laws: a look that fails leaves the last figures and says since when. The lists are asked for
 * every LISTS_MS at most, and only while the figures come. Between two samples far apart (the page
 * was hidden) changes are told all the same.
 */

import { Channels } from "./channels.js";
import { Chart } from "./chart.js";
import { Clients } from "./clients.js";
import { Away, Refused } from "./daemon.js";
import { part, write } from "./element.js";
import { clock, count, inside, NOTHING, short, size } from "./figures.js";
import { Happenings } from "./happenings.js";
import { PublishForm } from "./publish.js";
import { changesBetween, nodesOf, ratesBetween, totals } from "./sample.js";
import { Standing } from "./standing.js";
import { Tail } from "./tail.js";
import { Watch } from "./watch.js";

/** @typedef {import("./sample.js").Sample} Sample */

const LISTS_MS = 4000;

export class Board {
  /**
   * @param {import("./daemon.js").Daemon} daemon
   * @param {import("./console.js").Facts} facts
   * @param {() => import("../index.js").Client} connect
   * @param {(refused: Refused) => void} onRefused who looks has no right to
   */
  constructor(daemon, facts, connect, onRefused) {
    this.facts = facts;
    this.onRefused = onRefused;
    /** @type {Sample | null} */
    this.sample = null;
    /** @type {number | null} since when nothing comes */
    this.awaySinceMs = null;
    this.listedAtMs = 0;
    /** @type {string[]} followed once somebody may look */
    this.toFollow = [];

    this.board = part("board", HTMLDivElement);
    this.problem = part("problem", HTMLDivElement);
    this.state = part("state", HTMLSpanElement);
    this.asked = part("asked", HTMLSpanElement);
    this.version = part("version", HTMLSpanElement);
    write(this.version, facts.version);

    this.charts = {
      messages: new Chart("Messages in", perSecond, ["messages"]),
      deliveries: new Chart("Deliveries out", perSecond, ["deliveries"]),
      bytes: new Chart("Bytes out", (value) => `${size(value)}/s`, ["bytes"]),
      connections: new Chart("Clients", count, ["WebSocket", "SSE"]),
    };
    part("charts", HTMLElement).append(...Object.values(this.charts).map((chart) => chart.element));
    this.tail = new Tail(connect, facts.events, (channels) => this.#keepChannels(channels));
    this.happenings = new Happenings();
    this.standing = new Standing();
    const follow = (/** @type {string} */ channel) => this.tail.follow(channel);
    this.channels = new Channels(daemon, follow);
    this.clients = new Clients(daemon);
    this.publish = new PublishForm(daemon, facts.events, this.tail);
    this.watch = new Watch(daemon, {
      onSample: (sample) => this.#show(sample),
      onProblem: (why) => this.#tell(why),
    });
  }

  /** @param {string[]} channels once it is started */
  follow(channels) {
    this.toFollow = channels;
  }

  start() {
    this.watch.start();
  }

  /** Nothing is asked and followed any more, and nothing is shown. */
  stop() {
    this.watch.stop();
    if (this.tail.channels.length > 0) this.toFollow = this.tail.channels;
    this.tail.close();
    this.sample = null;
    this.board.hidden = true;
    this.problem.hidden = true;
    write(this.state, "not signed in");
    this.state.className = "pill";
    write(this.asked, "");
  }

  /** @param {Sample} sample */
  #show(sample) {
    const before = this.sample;
    this.sample = sample;
    if (this.board.hidden) {
      this.board.hidden = false;
      for (const channel of this.toFollow.splice(0)) void this.tail.follow(channel);
    }
    if (this.awaySinceMs !== null) this.#tellBack(sample.atMs);
    this.#showState(sample);
    this.#draw(before, sample);
    if (before !== null) this.happenings.add(sample.atMs, changesBetween(before, sample));
    this.happenings.showTotals(totals(sample));
    this.standing.show(sample.stats, sample.atMs);
    if (sample.atMs - this.listedAtMs >= LISTS_MS || before === null) {
      this.listedAtMs = sample.atMs;
      void this.channels.listing.refreshIfIdle();
      void this.clients.listing.refreshIfIdle();
    }
  }

  /** @param {Sample} sample */
  #showState({ atMs, stats }) {
    const status = String(inside(stats, "status") ?? "unknown");
    const isAway =
      inside(stats, "channels", "isConnected") === false ||
      Boolean(inside(stats, "redis", "awaySince"));
    write(this.state, isAway ? "no Redis" : status);
    this.state.className = `pill ${isAway ? "bad" : status === "healthy" ? "good" : "warn"}`;
    write(this.asked, clock(atMs));
    const versions = new Set(nodesOf(stats).map((node) => String(node.version)));
    const isOther = versions.size > 0 && !versions.has(this.facts.version);
    write(
      this.version,
      isOther ? `${[...versions].join(", ")}: load this page anew` : this.facts.version,
    );
    const said = isAway
      ? "Redis is away: no new event reaches a client, and none can be published. " +
        "It goes on by itself when Redis is back."
      : status === "healthy"
        ? ""
        : "Redis does not deliver every channel that is wanted; the daemon's log says which.";
    write(this.problem, said);
    this.problem.hidden = said === "";
    document.title = isAway ? "no Redis · broker" : "broker";
  }

  /**
   * @param {Sample | null} before
   * @param {Sample} sample
   */
  #draw(before, sample) {
    const rates = ratesBetween(before, sample);
    for (const name of /** @type {const} */ (["messages", "deliveries", "bytes"])) {
      this.charts[name].push(sample.atMs, [rates[name] ?? null]);
    }
    this.charts.connections.push(
      sample.atMs,
      ["websocket", "sse"].map(
        (transport) =>
          /** @type {number | null} */ (
            inside(sample.stats, transport, "totalConnections") ?? null
          ),
      ),
    );
  }

  /** @param {Away | Refused} why */
  #tell(why) {
    const isAboutWho =
      why instanceof Refused &&
      (why.status === 401 || (why.status === 403 && this.facts.auth === "on"));
    if (isAboutWho) {
      this.onRefused(why);
      return;
    }
    const nowMs = Date.now();
    if (this.awaySinceMs === null) {
      this.awaySinceMs = nowMs;
      this.happenings.add(nowMs, [
        { kind: "no answer", name: "", count: 1, tone: "bad", more: why.message },
      ]);
    }
    for (const chart of Object.values(this.charts)) chart.advance(nowMs);
    write(this.state, "no answer");
    this.state.className = "pill bad";
    this.problem.hidden = false;
    write(
      this.problem,
      `No figures since ${clock(this.awaySinceMs)}: ` +
        (why instanceof Away ? "the daemon does not answer, " : "") +
        `${why.message.replace(/\.$/, "")}. ` +
        "It is asked again every 2 seconds.",
    );
    document.title = "no answer · broker";
  }

  /** @param {number} nowMs */
  #tellBack(nowMs) {
    const seconds = Math.round((nowMs - (this.awaySinceMs ?? nowMs)) / 1000);
    this.awaySinceMs = null;
    this.happenings.add(nowMs, [
      { kind: "answers again", name: "", count: 1, tone: "good", more: `after ${seconds} s` },
    ]);
  }

  /** In the address, so that a reload and a link follow the same. @param {string[]} channels */
  #keepChannels(channels) {
    const url = new URL(location.href);
    url.searchParams.delete("tail");
    for (const channel of channels.length > 0 ? channels : [""])
      url.searchParams.append("tail", channel);
    history.replaceState(null, "", url);
  }
}

/** @param {unknown} value */
function perSecond(value) {
  if (typeof value !== "number") return NOTHING;
  return `${value > 0 && value < 10 ? value.toFixed(1) : short(Math.round(value))}/s`;
}
