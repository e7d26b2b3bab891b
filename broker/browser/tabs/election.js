/**
 * Which of the tabs leads: the one that holds a Web Lock.
 *
 * The browser gives the lock to one tab at a time, in the order in which they asked, and gives it
 * on when its tab is closed or has crashed. A tab that is frozen keeps it; then another takes it by
 * force (`steal`), and the old leader is told that it is deposed as soon as it runs again.
 *
 * Each tab holds a second lock, with its own name, for as long as it is there: who waits for that
 * one hears of its end.
 *
 * Laws
 * - `onElected` and `onDeposed` alternate, beginning with `onElected`. After `withdraw` neither
 *   comes.
 * - A tab that was deposed is a candidate again at once.
 */

/**
 * @typedef {object} Election
 * @property {() => void} steal  Lead now, whoever holds the lock.
 * @property {() => void} withdraw  Lead no more and be no candidate.
 */

/**
 * @param {string} name  the lock
 * @param {{ onElected: () => void, onDeposed: () => void }} listener
 * @param {LockManager} locks
 * @returns {Election}
 */
export function openElection(name, { onElected, onDeposed }, locks) {
  /** What ends the candidacy, or the time in office, that counts now. */
  let withdraw = stand(false);

  /** @param {boolean} byForce */
  function stand(byForce) {
    const cancelling = new AbortController();
    let isOver = false;
    let isElected = false;
    /** @type {() => void} */
    let release = () => {};
    // The browser allows no signal beside `steal`; that is granted at once.
    const terms = byForce ? { steal: true } : { signal: cancelling.signal };
    const request = locks.request(name, terms, () => {
      if (isOver) return undefined;
      isElected = true;
      return new Promise((resolve) => {
        release = () => resolve(undefined);
        onElected();
      });
    });
    request.catch(() => {
      // Cancelled by `withdraw`, stolen from, or the document is going away.
      if (isOver) return;
      isOver = true;
      if (!isElected) return;
      withdraw = stand(false);
      onDeposed();
    });
    return () => {
      isOver = true;
      release();
      cancelling.abort();
    };
  }

  return {
    steal() {
      withdraw();
      withdraw = stand(true);
    },
    withdraw: () => withdraw(),
  };
}

/**
 * Say to all that wait for it that this tab is there.
 *
 * @param {string} name  the tab's own lock
 * @param {() => void} onHeld  nobody can wait for it in vain any more
 * @param {LockManager} locks
 * @returns {() => void} stop
 */
export function holdLife(name, onHeld, locks) {
  const cancelling = new AbortController();
  /** @type {() => void} */
  let release = () => {};
  const request = locks.request(name, { signal: cancelling.signal }, () => {
    if (cancelling.signal.aborted) return undefined;
    onHeld();
    return new Promise((resolve) => {
      release = () => resolve(undefined);
    });
  });
  request.catch(() => {});
  return () => {
    cancelling.abort();
    release();
  };
}

/**
 * Hear when another tab is gone: closed, crashed, or left.
 *
 * @param {string} name  that tab's lock
 * @param {() => void} onGone
 * @param {LockManager} locks
 * @returns {() => void} stop
 */
export function watchLife(name, onGone, locks) {
  const cancelling = new AbortController();
  const request = locks.request(name, { signal: cancelling.signal }, () => {
    if (!cancelling.signal.aborted) onGone();
  });
  request.catch(() => {});
  return () => cancelling.abort();
}
