/**
 * The post between tabs: one BroadcastChannel that all hear, and a letterbox for each tab.
 *
 * Laws
 * - Letters of one tab to another arrive in order, or not at all.
 * - A tab hears nothing of its own.
 *
 * Bound: as many open letterboxes as tabs were written to and not yet forgotten.
 */

/**
 * @typedef {object} Post
 * @property {(message: object) => void} cry  Say something to all other tabs.
 * @property {(tab: string, message: object) => void} send  Write to one tab.
 * @property {(tab: string) => void} forget  There will be no more letters to this tab.
 * @property {() => void} close
 */

/**
 * @param {string} scope  what the tabs have in common
 * @param {string} tab  whose post this is
 * @param {(message: any) => void} onMessage
 * @param {typeof globalThis.BroadcastChannel} BroadcastChannel
 * @returns {Post}
 */
export function openPost(scope, tab, onMessage, BroadcastChannel) {
  const hall = new BroadcastChannel(scope);
  const own = new BroadcastChannel(`${scope} ${tab}`);
  /** @type {Map<string, BroadcastChannel>} */
  const others = new Map();
  let isClosed = false;
  hall.onmessage = own.onmessage = ({ data }) => {
    if (!isClosed) onMessage(data);
  };
  return {
    cry(message) {
      if (!isClosed) hall.postMessage(message);
    },
    send(to, message) {
      if (isClosed) return;
      let box = others.get(to);
      if (!box) others.set(to, (box = new BroadcastChannel(`${scope} ${to}`)));
      box.postMessage(message);
    },
    forget(to) {
      others.get(to)?.close();
      others.delete(to);
    },
    close() {
      isClosed = true;
      for (const box of [hall, own, ...others.values()]) box.close();
      others.clear();
    },
  };
}
