/**
 * The console: what a person in front of a running broker looks at. This file puts its parts
 * together.
 *
 * Laws: the page shows the last figures until there are newer ones, and says since when there are
 * none. Whoever has no right to them is told what the daemon said and what to do. Who signs out
 * leaves nothing behind on the page.
 * Bounds: those of the parts.
 */

import { Board } from "./board.js";
import { Away, Daemon, Refused } from "./daemon.js";
import { part } from "./element.js";
import { CHANNELS_MAX } from "./tail.js";

/**
 * @typedef {object} Facts
 * @property {string} version
 * @property {boolean} dev
 * @property {string[]} demoChannels
 * @property {"on" | "off"} auth
 * @property {Record<string, import("./publish.js").EventType>} events
 */

const AGAIN_MS = 2000;
const base = new URL("../", import.meta.url);
const daemon = new Daemon(base);
const problem = part("problem", HTMLDivElement);
const signIn = part("sign-in", HTMLFormElement);
const signInAnswer = part("sign-in-answer", HTMLParagraphElement);
const signOut = part("sign-out", HTMLButtonElement);

/** @returns {Promise<Facts>} once the daemon answers */
async function facts() {
  for (;;) {
    try {
      const found = /** @type {Facts} */ (await daemon.ask("console/facts.json"));
      problem.hidden = true;
      return found;
    } catch (error) {
      if (!(error instanceof Away || error instanceof Refused)) throw error;
      problem.textContent = `The daemon does not say what it is: ${error.message}`;
      problem.hidden = false;
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

async function main() {
  // From the same daemon, wherever a proxy has put it. Without it there are figures, but no tail.
  const loading = import(new URL("client/index.js", base).href).catch((error) => error);
  const known = await facts();
  /** @type {typeof import("../index.js") | Error} */
  const client = await loading;
  const connect = () => {
    if (client instanceof Error) throw new Error(`the client cannot be loaded: ${client.message}`);
    return client.createClient({ url: base.href, getToken: () => daemon.token });
  };
  const board = new Board(daemon, known, connect, askWho);

  /** @param {Refused | null} refused what was answered; null: nobody has asked yet */
  function askWho(refused) {
    board.stop();
    signOut.hidden = true;
    signIn.hidden = false;
    const isRejected = refused !== null && (daemon.token !== null || refused.status === 403);
    signInAnswer.textContent = isRejected
      ? `The daemon answered ${refused.status}: ${refused.message}`
      : "";
    signInAnswer.className = "answer bad";
    if (isRejected) daemon.signIn(null);
    part("token", HTMLInputElement).focus();
  }

  function begin() {
    signIn.hidden = true;
    signOut.hidden = daemon.token === null;
    board.start();
  }

  signIn.addEventListener("submit", (event) => {
    event.preventDefault();
    const input = part("token", HTMLInputElement);
    const token = input.value.trim();
    input.value = "";
    // Only what a header can carry: anything else is no token.
    if (!/^[\x21-\x7e]+$/.test(token)) {
      signInAnswer.textContent = "A token or a key has no spaces and only ASCII characters.";
      return;
    }
    daemon.signIn(token);
    begin();
  });
  signOut.addEventListener("click", () => {
    daemon.signIn(null);
    // The page forgets everything that was shown in this name.
    location.reload();
  });

  const asked = new URLSearchParams(location.search).getAll("tail");
  const wanted =
    asked.length > 0 || !known.dev ? asked.filter((channel) => channel !== "") : known.demoChannels;
  board.follow(wanted.slice(0, CHANNELS_MAX));
  if (known.auth === "on" && daemon.token === null) askWho(null);
  else begin();
}

void main();
