/**
 * The daemon behind this page: asks it, and says in whose name.
 *
 * Laws: the token is kept in sessionStorage, so that it is this tab's and goes with it; it is sent
 * in `Authorization` only, to the daemon that this page came from. Addresses are relative to this
 * file, so that a path prefix of a proxy holds for them too.
 * Bounds: one question takes at most ANSWER_MS.
 */

const KEY = "broker.console.token";
const ANSWER_MS = 8000;

/** The daemon answered, and not with what was asked for. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   * @param {string} hint
   */
  constructor(status, detail, hint) {
    super(hint ? `${detail}. ${hint}` : detail);
    this.name = "Refused";
    this.status = status;
    this.detail = detail;
    this.hint = hint;
  }
}

/** No answer came. */
export class Away extends Error {
  /** @param {string} why */
  constructor(why) {
    super(why);
    this.name = "Away";
  }
}

export class Daemon {
  /** @param {URL} base where the daemon's paths begin */
  constructor(base) {
    this.base = base;
    /** @type {string | null} */
    this.token = stored();
  }

  /** @param {string | null} token null: nobody */
  signIn(token) {
    this.token = token;
    try {
      if (token === null) sessionStorage.removeItem(KEY);
      else sessionStorage.setItem(KEY, token);
    } catch {
      // A browser that keeps nothing: the token lasts until the page is loaded again.
    }
  }

  /**
   * GET.
   * @param {string} path such as api/realtime/stats
   * @param {Record<string, string | number>} [query] empty texts are left out
   * @param {AbortSignal} [signal]
   * @returns {Promise<Record<string, any>>}
   */
  ask(path, query = {}, signal) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(query)) {
      if (value !== "") url.searchParams.set(name, String(value));
    }
    return this.#fetch(url, {}, signal);
  }

  /**
   * Publish one event.
   * @param {string} channel
   * @param {string} event its JSON, sent as it is written: a browser's numbers would change it
   * @returns {Promise<Record<string, any>>}
   */
  publish(channel, event) {
    const body = `{"channel":${JSON.stringify(channel)},"event":${event}}`;
    const headers = { "Content-Type": "application/json" };
    return this.#fetch(new URL("api/publish", this.base), { method: "POST", body, headers });
  }

  /**
   * @param {URL} url
   * @param {RequestInit} options
   * @param {AbortSignal} [signal]
   */
  async #fetch(url, options, signal) {
    const headers = new Headers(options.headers);
    if (this.token !== null) headers.set("Authorization", `Bearer ${this.token}`);
    const late = AbortSignal.timeout(ANSWER_MS);
    const until = signal === undefined ? late : AbortSignal.any([late, signal]);
    let response;
    let body;
    try {
      response = await fetch(url, { ...options, headers, signal: until, cache: "no-store" });
      body = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Away(
        late.aborted ? `no answer within ${ANSWER_MS / 1000} seconds` : "it cannot be reached",
      );
    }
    const found = parsed(body);
    if (response.ok && found !== null) return found;
    const said = found ?? {};
    const detail =
      typeof said.detail === "string" ? said.detail : `answered with status ${response.status}`;
    throw new Refused(response.status, detail, typeof said.hint === "string" ? said.hint : "");
  }
}

/**
 * @param {string} body
 * @returns {Record<string, any> | null}
 */
function parsed(body) {
  try {
    const found = JSON.parse(body);
    return typeof found === "object" ? found : null;
  } catch {
    return null;
  }
}

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}
