// When a page comes back: from another tab, from sleep, from the back/forward cache, from no
// network.
//
// In workers and in Node most of these events, or all of them, do not exist. A page that is frozen
// hangs up before: in Chromium a fetch that gets bytes meanwhile is dead afterwards, and says
// nothing.

/**
 * @param {() => void} onWake the page is there again, and perhaps was away for long
 * @param {() => void} onHide the page is left; it may come back as it was
 * @returns {() => void} stop
 */
export function watchPage(onWake, onHide) {
  const page = globalThis.document;
  const onVisible = () => page.hidden || onWake();
  const stops = [
    listen(globalThis, "online", onWake),
    listen(globalThis, "pageshow", onWake),
    listen(globalThis, "pagehide", onHide),
    listen(page, "visibilitychange", onVisible),
    listen(page, "freeze", onHide),
    listen(page, "resume", onWake),
  ];
  return () => stops.forEach((stop) => stop());
}

/**
 * @param {EventTarget | undefined} target
 * @param {string} type
 * @param {() => void} listener
 */
function listen(target, type, listener) {
  target?.addEventListener?.(type, listener);
  return () => target?.removeEventListener?.(type, listener);
}
