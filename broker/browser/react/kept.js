/**
 * What a component keeps from one render to the next: a value for as long as its key is the same,
 * and the newest of what it was given.
 */

import { useInsertionEffect, useRef, useState } from "react";

/**
 * A value that is made once for each key. With another key the old one is not shown once more.
 * (`useMemo` may forget; this does not.)
 *
 * @template T
 * @param {readonly unknown[]} key compared part by part
 * @param {() => T} make opens nothing: it is called while rendering, also on a server
 * @returns {T}
 */
export function useKept(key, make) {
  const [kept, setKept] = useState(() => ({ key, value: make() }));
  if (kept.key.length === key.length && kept.key.every((part, at) => Object.is(part, key[at]))) {
    return kept.value;
  }
  const next = { key, value: make() };
  setKept(next);
  return next.value;
}

/**
 * What the component was given last, so that a callback may be another at each render and nothing
 * connects anew for it. Not to be read while rendering.
 *
 * @template T
 * @param {T} value
 * @returns {{ current: T }}
 */
export function useNewest(value) {
  const newest = useRef(value);
  // Before every other effect, so that the first event finds the newest.
  useInsertionEffect(() => {
    newest.current = value;
  });
  return newest;
}
