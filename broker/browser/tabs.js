/**
 * Several tabs, one connection: what stands in the place of a connection of the tab's own, with
 * `share: true`.
 *
 * One tab leads (tabs/election.js). Its page has an office (tabs/office.js) with the one real
 * connection; every tab, its own too, asks the office for channels and gets what comes on them by
 * post (tabs/post.js). To the client above, a new leader is what a new connection is: it asks again
 * for each channel from its place.
 *
 * Laws
 * - A tab takes items of the leader that it follows, of its present visit there, and of its last
 *   question about a channel. What an old leader or an old question still brings is passed over.
 * - A tab that is put aside (frozen, or kept for the back button) leaves first, and comes back
 *   under another name.
 * - A leader that leaves questions unanswered for about 3 s is deposed by force, and steps down
 *   when it runs again.
 *
 * Bounds: what waits for a tab that does not read (tabs/outgoing.js).
 */

import { Client } from "./client.js";
import { BrokerError } from "./errors.js";
import { IDLE } from "./redial.js";
import { watchPage } from "./wake.js";
import { holdLife, openElection, watchLife } from "./tabs/election.js";
import { openOffice, plain } from "./tabs/office.js";
import { openPost } from "./tabs/post.js";

const TICK_MS = 1000;
/** Ticks in a row without a word of the leader; at all but the last it was asked for one. */
const SILENT_TICKS = 3;
/** How late the leader's next attempt may be before a tab asks for it: a hidden page is slow. */
const OVERDUE_MS = 1000;

const CONNECTING = Object.freeze({ ...IDLE, state: "connecting" });

/** Whether this page can share at all. @returns {Promise<boolean>} */
export async function canShare() {
  if (!globalThis.navigator?.locks || typeof BroadcastChannel !== "function") return false;
  try {
    // A page in a sandbox, without an origin, has locks and may not use them.
    await navigator.locks.query();
    return true;
  } catch {
    return false;
  }
}

/** @param {import("./index.js").ClientOptions} options */
function ownClient(options) {
  return new Client(options);
}

function ownBrowser() {
  return { locks: navigator.locks, BroadcastChannel };
}

/**
 * Tabs with the same scope share: the same daemon, the same user.
 *
 * @param {import("./link.js").LinkOptions} options
 */
function scopeOf({ url, userId, shareKey }) {
  return `broker ${JSON.stringify([url, userId ?? null, shareKey ?? null])}`;
}

/** @param {import("./index.js").ClientStatus} status */
function plainStatus(status) {
  return { ...status, error: status.error && plain(status.error) };
}

/** @param {any} status  a plain one @returns {import("./index.js").ClientStatus} */
function revivedStatus(status) {
  return { ...status, error: status.error && revive(status.error) };
}

/** @param {import("./tabs/office.js").PlainError} error */
function revive({ code, message, status, willRetry }) {
  return new BrokerError(code, message, { status, willRetry });
}

/**
 * @param {import("./link.js").LinkOptions} options
 * @param {import("./link.js").LinkEvents} events
 * @param {(options: any) => any} [createClient]  makes the leader's client
 * @param {{ locks: LockManager, BroadcastChannel: typeof globalThis.BroadcastChannel }} [browser]
 * @returns {import("./link.js").Link}
 */
export function openSharedLink(options, events, createClient = ownClient, browser = ownBrowser()) {
  const { locks, BroadcastChannel } = browser;
  const scope = scopeOf(options);
  /** The channels of this tab. @type {Set<string>} */
  const wanted = new Set();
  /** The serial of the last question about each channel. @type {Map<string, number>} */
  const asked = new Map();
  let serial = 0;
  let round = 0;
  /** This tab's name among the others; another one each time that it comes back. */
  let tab = "";
  /** The leader that this tab follows; itself, if it leads. @type {string | null} */
  let leader = null;
  /** @type {import("./tabs/office.js").Office | null} */
  let office = null;
  /** @type {import("./tabs/post.js").Post | null} */
  let post = null;
  /** @type {import("./tabs/election.js").Election | null} */
  let election = null;
  let endLife = () => {};
  /** Of the shared connection. @type {import("./index.js").ClientStatus} */
  let status = IDLE;
  let silentTicks = 0;
  let hasHeard = false;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let clock;
  let isHere = false;
  let isClosed = false;

  /** @param {any} message */
  function tell(message) {
    if (office) office.hear({ ...message, from: tab });
    else if (leader) post?.send(leader, { ...message, from: tab });
  }

  /** @param {import("./index.js").ClientStatus} now */
  function showStatus(now) {
    if (JSON.stringify(plainStatus(now)) === JSON.stringify(plainStatus(status))) return;
    status = now;
    events.onStatus(now);
  }

  /** @param {string} whom */
  function follow(whom) {
    leader = whom;
    round += 1;
    asked.clear();
    tell({ kind: "join", round });
    events.onOpen();
  }

  function lead() {
    const onUserEvent = (/** @type {unknown} */ event) => office?.tellAll(event);
    const client = createClient({ ...options, share: false, onUserEvent });
    office = openOffice(client, sendBatch, watch, () => wanted.size || rest());
    client.onStatus(() => office && sayStatus("status", client.status));
    follow(tab);
    sayStatus("lead", client.status);
  }

  /** @param {"status" | "lead"} kind @param {import("./index.js").ClientStatus} now */
  function sayStatus(kind, now) {
    post?.cry({ kind, leader: tab, status: plainStatus(now) });
    showStatus(now);
  }

  /** @param {string} to @param {number} visit @param {number} number @param {any[]} items */
  function sendBatch(to, visit, number, items) {
    if (to === tab) receive(visit, number, items);
    else post?.send(to, { kind: "batch", leader: tab, round: visit, number, items });
  }

  /** @param {string} whom @param {() => void} onGone */
  function watch(whom, onGone) {
    if (whom === tab) return () => {};
    const onEnd = () => {
      onGone();
      post?.forget(whom);
    };
    return watchLife(`${scope} ${whom}`, onEnd, locks);
  }

  function retire() {
    const closing = office;
    office = null; // first, so that nobody hears of the end of its connection
    leader = null;
    closing?.close();
  }

  function stepDown() {
    retire();
    showStatus(CONNECTING);
    post?.cry({ kind: "who", from: tab });
  }

  /** @param {any} message */
  function hear(message) {
    if (office) {
      if (message.kind === "who") {
        post?.send(message.from, { kind: "lead", leader: tab, status: plainStatus(status) });
      } else if (!("leader" in message)) office.hear(message);
      return; // another leader's word is no news: who is deposed hears it from the lock
    }
    if (message.kind === "lead") {
      if (message.leader !== leader) follow(message.leader);
      showStatus(revivedStatus(message.status));
    }
    if (!("leader" in message) || message.leader !== leader) return;
    hasHeard = true;
    if (message.kind === "status") showStatus(revivedStatus(message.status));
    if (message.kind === "batch") receive(message.round, message.number, message.items);
  }

  /** @param {number} visit @param {number} number @param {any[]} items */
  function receive(visit, number, items) {
    if (visit !== round) return;
    for (const item of items) {
      if (item.kind === "lagged") {
        asked.clear();
        events.onOpen();
      } else if (item.kind === "user") {
        events.onEvent(null, null, item.event);
      } else if (asked.get(item.name) === item.serial) pass(item);
    }
    tell({ kind: "had", round, number });
  }

  /** @param {any} item */
  function pass(item) {
    if (item.kind === "event") events.onEvent(item.name, item.position, item.event);
    else if (item.kind === "gap") events.onGap(item.gap);
    else if (item.kind === "subscribed") events.onSubscribed({ ...item.answer, name: item.name });
    else events.onRefused(item.name, revive(item.error));
  }

  /** Once a second, and less often in a page that is hidden. */
  function tick() {
    if (office) return;
    if (hasHeard) {
      hasHeard = false;
      silentTicks = 0;
      const { state, nextRetryAt } = status;
      const isOverdue = state === "waiting" && Date.now() > (nextRetryAt ?? Infinity) + OVERDUE_MS;
      if (isOverdue) tell({ kind: "reconnect" });
      return;
    }
    silentTicks += 1;
    if (silentTicks < SILENT_TICKS) post?.cry({ kind: "who", from: tab });
    else {
      silentTicks = 0;
      election?.steal();
    }
  }

  function arrive() {
    if (isClosed || isHere) return;
    isHere = true;
    showStatus(CONNECTING);
    tab = crypto.randomUUID();
    // Nobody hears of this tab before it can be watched.
    const onHeld = () => {
      post = openPost(scope, tab, hear, BroadcastChannel);
      election = openElection(scope, { onElected: lead, onDeposed: stepDown }, locks);
      silentTicks = 0;
      clock = setInterval(tick, TICK_MS * (1 + Math.random() / 4));
      post.cry({ kind: "who", from: tab });
    };
    endLife = holdLife(`${scope} ${tab}`, onHeld, locks);
  }

  function leave() {
    if (!isHere) return;
    isHere = false;
    clearInterval(clock);
    if (!office) tell({ kind: "bye" });
    retire();
    election?.withdraw();
    election = null;
    endLife();
    post?.close();
    post = null;
  }

  /** Nobody here has a channel. Who leads tabs that have some goes on. */
  function rest() {
    leave();
    showStatus(IDLE);
  }

  function wake() {
    if (wanted.size) arrive();
    if (!office) post?.cry({ kind: "who", from: tab });
  }

  const stopWatch = watchPage(wake, leave);

  return {
    isShared: true,
    ask(name) {
      wanted.add(name);
      arrive();
      if (!leader) return; // `onOpen` follows as soon as there is one
      serial += 1;
      asked.set(name, serial);
      tell({ kind: "ask", round, name, since: events.sinceOf(name) ?? null, serial });
    },
    drop(name) {
      if (!wanted.delete(name)) return;
      asked.delete(name);
      tell({ kind: "drop", round, name }); // the office, if it is here, says when it is idle
      if (!wanted.size && !office) rest();
    },
    reconnect() {
      if (wanted.size) tell({ kind: "reconnect" });
    },
    close() {
      isClosed = true;
      stopWatch();
      leave();
    },
  };
}
