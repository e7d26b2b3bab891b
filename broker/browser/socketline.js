// One WebSocket connection, from the handshake to its end.
//
// Laws: `onEnd` comes once, and nothing after it or after `hangUp`. A socket that says nothing is
// cut: at first after `OPEN_MS`, later by the watchdog, with a ping. Where the server greets, only
// a first message counts as open: browsers call a socket open that a proxy took and nobody answers.
// Bound: what waits to be sent, 1 MiB.

import { BrokerError } from "./errors.js";
import { socketEnding } from "./endings.js";
import { Watchdog } from "./watchdog.js";

const OPEN_MS = 5000;
const SILENCE_MS = 35000;
const UNSENT_MAX_BYTES = 1024 * 1024;

/** @typedef {import("./redial.js").Line & { send(text: string): boolean }} SocketLine */

/**
 * @param {object} options
 * @param {string} options.url http or ws
 * @param {string | string[]} [options.protocols]
 * @param {number} [options.heartbeatMs]
 * @param {string} [options.ping] what makes the other end answer
 * @param {() => void} [options.onOpen] left out: the server greets
 * @param {(data: any) => void} options.onMessage
 * @param {(ending: import("./redial.js").Ending) => void} options.onEnd
 * @returns {SocketLine}
 */
export function openLine(options) {
  const { url, protocols, onOpen, ping = '{"type":"ping"}' } = options;
  let isOver = false;
  const socket = new WebSocket(url.replace(/^http/, "ws"), protocols);
  const watchdog = new Watchdog(OPEN_MS, options.heartbeatMs ?? SILENCE_MS, () => send(ping), () =>
    end({ error: new BrokerError("silent", `nothing was heard from ${url}`) }),
  );

  /** @param {string} text */
  function send(text) {
    const mayBeSent = socket.readyState === 1 && socket.bufferedAmount < UNSENT_MAX_BYTES;
    if (mayBeSent) socket.send(text);
    return mayBeSent;
  }

  function hangUp() {
    isOver = true;
    watchdog.stop();
    socket.close();
  }

  /** @param {import("./redial.js").Ending} ending */
  function end(ending) {
    if (isOver) return;
    hangUp();
    options.onEnd(ending);
  }

  if (onOpen) {
    socket.onopen = () => {
      if (isOver) return;
      watchdog.heard();
      onOpen();
    };
  }
  socket.onmessage = ({ data }) => {
    if (isOver) return;
    watchdog.heard();
    options.onMessage(data);
  };
  socket.onclose = (event) => end(socketEnding(event));
  return { send, hangUp, wake: () => watchdog.wake() };
}
