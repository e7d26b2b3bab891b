/**
 * The leader's office: the one real connection of all tabs, and a desk for each tab that asked for
 * channels.
 *
 * A tab's channel is one subscription of the leader's client, begun at that tab's place. So what
 * the client promises to a subscriber (each event once and in order, gaps told) it promises to each
 * tab, and no tab's place is another's.
 *
 * Bounds: what waits for a tab (outgoing.js). A tab that is gone is forgotten as soon as its lock
 * is free.
 */

import { distance } from "../place.js";
import { openOutgoing } from "./outgoing.js";

/**
 * What a tab is sent. `serial` is that of the question which it answers: a tab passes over what an
 * older question about the same channel still brings.
 *
 * @typedef {{ kind: "subscribed", name: string, serial: number, answer: any }
 *   | { kind: "event", name: string, serial: number, position: string | null, event: unknown }
 *   | { kind: "gap", name: string, serial: number, gap: any }
 *   | { kind: "refused", name: string, serial: number, error: PlainError }
 *   | { kind: "user", event: unknown }
 *   | { kind: "lagged" }} Item
 *
 * @typedef {object} PlainError  a BrokerError as it goes between tabs
 * @property {string} code
 * @property {string} message
 * @property {number} [status]
 * @property {boolean} willRetry
 *
 * What tabs ask:
 * @typedef {{ kind: "join", from: string, round: number }
 *   | { kind: "ask", from: string, round: number, name: string, since: string | null,
 *       serial: number }
 *   | { kind: "drop", from: string, round: number, name: string }
 *   | { kind: "had", from: string, round: number, number: number }
 *   | { kind: "reconnect", from: string }
 *   | { kind: "bye", from: string }} Question
 *
 * @typedef {object} Desk
 * @property {number} round  which of that tab's visits this is
 * @property {Map<string, { unsubscribe: () => void }>} subscriptions  by channel
 * @property {import("./outgoing.js").Outgoing} outgoing
 * @property {() => void} stopWatch
 *
 * @typedef {object} Office
 * @property {(question: Question) => void} hear
 * @property {(event: unknown) => void} tellAll  An event for the user, on no channel.
 * @property {() => void} close
 */

/** The place before an event. @param {string} position */
function before(position) {
  const [epoch, offset] = position.split(":");
  return `${epoch}:${Number(offset) - 1}:0`;
}

/** @param {any} error @returns {PlainError} */
export function plain({ code, message, status, willRetry }) {
  return { code, message, status, willRetry };
}

/**
 * @param {any} client  the client with the connection; it is the office's from here on
 * @param {(tab: string, round: number, number: number, items: Item[]) => void} send
 * @param {(tab: string, onGone: () => void) => () => void} watch  says when a tab is gone
 * @param {() => void} onIdle  no tab has a channel any more
 * @returns {Office}
 */
export function openOffice(client, send, watch, onIdle) {
  /** @type {Map<string, Desk>} */
  const desks = new Map();

  /** @param {Desk} desk */
  function clear(desk) {
    for (const subscription of desk.subscriptions.values()) subscription.unsubscribe();
    desk.subscriptions.clear();
  }

  /** @param {string} tab */
  function dismiss(tab) {
    const desk = desks.get(tab);
    if (!desk) return;
    desks.delete(tab);
    desk.stopWatch();
    clear(desk);
    checkIdle();
  }

  function checkIdle() {
    for (const desk of desks.values()) if (desk.subscriptions.size) return;
    onIdle();
  }

  /** @param {string} tab @param {number} round */
  function admit(tab, round) {
    dismiss(tab);
    /** @type {Desk} */
    const desk = {
      round,
      subscriptions: new Map(),
      outgoing: openOutgoing(
        (number, items) => send(tab, round, number, /** @type {Item[]} */ (items)),
        () => clear(desk),
      ),
      stopWatch: watch(tab, () => dismiss(tab)),
    };
    desks.set(tab, desk);
  }

  /** @param {Desk} desk @param {string} name @param {string | null} since @param {number} serial */
  function subscribe(desk, name, since, serial) {
    /** @param {any} item */
    const put = (item) => desk.outgoing.put({ ...item, name, serial });
    const old = desk.subscriptions.get(name);
    /** Held back until it is known what comes with it. @type {any} */
    let answer = null;
    /** @param {string | null} [first] */
    const putAnswer = (first) => {
      if (!answer) return;
      const { position } = answer;
      // The client says where its replay ends; a tab needs the place before it, as of the daemon.
      const isReplayed = since === null && first && distance(first, position) <= 0;
      if (isReplayed) answer = { ...answer, position: before(first) };
      put({ kind: "subscribed", answer });
      answer = null;
    };
    const subscription = client.subscribe(name, {
      since,
      onSubscribed(/** @type {any} */ start) {
        answer = start;
        queueMicrotask(putAnswer);
      },
      onEvent(/** @type {unknown} */ event, /** @type {any} */ { position }) {
        putAnswer(position);
        put({ kind: "event", position, event });
      },
      onGap(/** @type {any} */ gap) {
        putAnswer();
        put({ kind: "gap", gap });
      },
      onError(/** @type {any} */ error) {
        put({ kind: "refused", error: plain(error) });
      },
    });
    desk.subscriptions.set(name, subscription);
    old?.unsubscribe(); // last, so that the channel is not given up in between
  }

  return {
    hear(question) {
      if (question.kind === "join") return admit(question.from, question.round);
      if (question.kind === "bye") return dismiss(question.from);
      if (question.kind === "reconnect") return client.reconnect();
      const desk = desks.get(question.from);
      if (!desk || desk.round !== question.round) return;
      if (question.kind === "had") desk.outgoing.acknowledge(question.number);
      else if (question.kind === "ask") {
        subscribe(desk, question.name, question.since, question.serial);
      } else if (question.kind === "drop") {
        desk.subscriptions.get(question.name)?.unsubscribe();
        desk.subscriptions.delete(question.name);
        checkIdle();
      }
    },
    tellAll(event) {
      for (const desk of desks.values()) desk.outgoing.put({ kind: "user", event });
    },
    close() {
      for (const desk of desks.values()) desk.stopWatch();
      desks.clear();
      client.close();
    },
  };
}
