// The token of a WebSocket: the first message, not part of the handshake, as browsers hide why one
// was refused; another one follows before it is over.
//
// Laws: nothing else is said before the token counts, or it is known that none is looked at. One
// that does not count is asked for once more; the same one is not tried twice.
// Bound: `TOKEN_MS` for the page to give one.

import { BrokerError } from "./errors.js";

const TOKEN_MS = 10000;
const RENEW_BEFORE_MS = 30000;
const TIMER_MAX_MS = 2 ** 31 - 1;

/**
 * @param {import("./index.js").GetToken | undefined} getToken
 * @returns {Promise<string | null>}
 */
export async function askToken(getToken) {
  if (!getToken) return null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, TOKEN_MS, "it gave none in 10 s");
  });
  try {
    return /** @type {any} */ (await Promise.race([getToken(), late])) ?? null;
  } catch (cause) {
    throw new BrokerError("no_token", `getToken failed: ${cause}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

/** The token of one connection. */
export class Credential {
  /** @type {string | null} */
  #token = null;
  #isCounted = false;
  #mayAskAgain = true;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewing;
  #getToken;
  #say;
  #onCounted;
  #onFinal;

  /**
   * @param {import("./index.js").GetToken | undefined} getToken
   * @param {(text: string) => void} say
   * @param {() => void} onCounted the conversation may begin
   * @param {(ending: import("./redial.js").Ending) => void} onFinal
   */
  constructor(getToken, say, onCounted, onFinal) {
    this.#getToken = getToken;
    this.#say = say;
    this.#onCounted = onCounted;
    this.#onFinal = onFinal;
  }

  /** Ask the page, before there is a connection. */
  async ask() {
    this.#token = await askToken(this.#getToken);
  }

  stop() {
    clearTimeout(this.#renewing);
  }

  /**
   * @param {any} message that the daemon sent
   * @returns {boolean} whether it is about the token alone
   */
  hear({ type, code, message, channel, expiresAt, timestamp }) {
    if (type === "connected" || type === "authenticated") {
      this.#plan(expiresAt, timestamp);
      if (type === "connected" && this.#token) this.#authenticate();
      else this.#count();
      return type === "authenticated";
    }
    if (type !== "error" || channel) return false;
    if (code === "unauthenticated") {
      this.#onFinal({ error: new BrokerError(code, message), isFinal: true });
    } else if (code === "bad_token") {
      this.#again(message);
    } else if (this.#isCounted) {
      return false;
    } else {
      this.#count(); // authentication is off: a token is not looked at
    }
    return true;
  }

  #authenticate() {
    this.#say(JSON.stringify({ type: "authenticate", token: this.#token }));
  }

  #count() {
    if (this.#isCounted) return;
    this.#isCounted = true;
    this.#onCounted();
  }

  /** @param {string} message */
  async #again(message) {
    const mayAsk = this.#mayAskAgain;
    this.#mayAskAgain = false;
    if ((mayAsk && (await this.#renew())) || this.#isCounted) return;
    this.#onFinal({ error: new BrokerError("bad_token", message), isFinal: true });
  }

  /** @returns {Promise<boolean>} whether there is another one, and it was sent */
  async #renew() {
    const fresh = await askToken(this.#getToken).catch(() => null);
    if (!fresh || fresh === this.#token) return false;
    this.#token = fresh;
    this.#authenticate();
    return true;
  }

  /**
   * When to renew is told by the daemon's own clock, as this one may be wrong.
   * @param {string | null | undefined} expiresAt
   * @param {string} timestamp
   */
  #plan(expiresAt, timestamp) {
    this.stop();
    if (!expiresAt) return;
    const leftMs = Date.parse(expiresAt) - Date.parse(timestamp);
    const waitMs = Math.max(leftMs - RENEW_BEFORE_MS, leftMs * 0.8);
    this.#mayAskAgain = true;
    // Where it fails, 4402 follows.
    this.#renewing = setTimeout(() => this.#renew(), Math.min(waitMs, TIMER_MAX_MS));
  }
}
