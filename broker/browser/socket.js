// A raw WebSocket that comes back: messages in and out, as they are.
//
// The same waits, endings and watchdog as the client's own connection; no channels, no places: who
// uses it subscribes anew in `onOpen`. Bound: `send` takes nothing while it is not open, or 1 MiB
// waits.

import { asBrokerError, tell } from "./errors.js";
import { Redial } from "./redial.js";
import { Credential } from "./credential.js";
import { openLine } from "./socketline.js";

/**
 * @typedef {object} SocketOptions
 * @property {string[]} [protocols]
 * @property {import("./index.js").GetToken} [getToken] of a daemon's `/ws`: it is the first message
 * @property {number} [heartbeatMs] how long nothing may be heard before a ping
 * @property {string} [ping] its text; something must come within 5 s
 * @property {(data: any) => void} [onMessage]
 * @property {(event: { code: number | undefined, reason: string }) => void} [onClose]
 */

/** @typedef {SocketOptions & import("./redial.js").RedialOptions} EventSocketOptions */
/** @typedef {Redial & { send(text: string): boolean }} EventSocket `send` false: it was not sent */

/** @param {any} data @returns {any} its fields; none, where it is no JSON */
function read(data) {
  try {
    return { ...JSON.parse(data) };
  } catch {
    return {};
  }
}

/**
 * @param {string} url
 * @param {EventSocketOptions} [options]
 * @returns {EventSocket}
 */
export function openSocket(url, options = {}) {
  /** @type {import("./socketline.js").SocketLine | null} */
  let line = null;
  const redial = new Redial((call) => {
    let isOver = false;
    const { getToken } = options;
    const opened = () => call.opened({ transport: "websocket" });
    const credential = new Credential(getToken, (text) => line?.send(text), opened, ended);

    function hangUp() {
      isOver = true;
      credential.stop();
      line?.hangUp();
      line = null;
    }

    /** @param {import("./redial.js").Ending} ending */
    function ended(ending) {
      if (isOver) return;
      hangUp();
      call.ended(ending);
      tell(options.onClose, { code: ending.error.status, reason: ending.error.message });
    }

    async function run() {
      await credential.ask();
      if (isOver) return;
      line = openLine({
        ...options,
        url: new URL(url, globalThis.location?.href).href,
        onOpen: getToken ? undefined : opened,
        onMessage(data) {
          if (!getToken || !credential.hear(read(data))) tell(options.onMessage, data);
        },
        onEnd: ended,
      });
    }

    run().catch((cause) => ended({ error: asBrokerError(cause) }));
    return { hangUp, wake: () => line?.wake() };
  }, options);
  redial.start();
  return Object.assign(redial, { send: (/** @type {string} */ text) => !!line?.send(text) });
}
