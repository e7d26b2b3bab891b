/**
 * What waits for one tab in the leader's page.
 *
 * One batch is on its way at a time; what comes meanwhile is gathered, and goes when the tab has
 * said that it had the last one. So nothing waits in the browser, where nobody could count it, and
 * no timer is needed, which a hidden page would not get.
 *
 * Bound: `itemsMax` items (events for the most part). Over it nothing is added until the tab reads
 * again; it gets those, then `lagged`, and asks for its channels anew, each from its place.
 */

const ITEMS_MAX = 5000;

/**
 * @typedef {object} Outgoing
 * @property {(item: object) => void} put
 * @property {(number: number) => void} acknowledge  The tab had the batch of this number.
 */

/**
 * @param {(number: number, items: object[]) => void} send
 * @param {() => void} onOverflow  the tab does not read; what it asked for may be given up
 * @param {number} [itemsMax]
 * @returns {Outgoing}
 */
export function openOutgoing(send, onOverflow, itemsMax = ITEMS_MAX) {
  /** @type {object[]} */
  let waiting = [];
  let number = 0;
  let isOnItsWay = false;
  let isLagging = false;

  /** @param {object[]} items */
  function dispatch(items) {
    isOnItsWay = true;
    number += 1;
    send(number, items);
  }

  return {
    put(item) {
      if (isLagging) return;
      if (!isOnItsWay) return dispatch([item]);
      waiting.push(item);
      if (waiting.length < itemsMax) return;
      isLagging = true;
      onOverflow();
    },
    acknowledge(which) {
      if (which !== number) return;
      isOnItsWay = false;
      const items = waiting;
      waiting = [];
      if (isLagging) items.push({ kind: "lagged" });
      isLagging = false;
      if (items.length) dispatch(items);
    },
  };
}
