/**
 * The next frame: when what has changed is shown.
 *
 * Laws: all that changes between two frames is shown together, so React renders once a frame
 * however many events come. A page that is hidden gets no frames; a timer comes in their place.
 *
 * Bounds: each board is waited for once; a timer of `LATE_MS` runs beside each wait for a frame.
 */

// A page in the background, or in a frame out of sight, is given no frames.
const LATE_MS = 250;
// Where there are no frames at all: a worker, Node.
const FRAMELESS_MS = 16;

/** @typedef {{ show: () => void }} Showable */

/** @type {Set<Showable>} */
const changed = new Set();
let frame = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/**
 * Have `board.show()` called at the next frame, once.
 *
 * @param {Showable} board
 */
export function showAtNextFrame(board) {
  changed.add(board);
  if (timer !== undefined) return;
  const hasFrames = typeof requestAnimationFrame === "function";
  if (hasFrames) frame = requestAnimationFrame(showAll);
  timer = setTimeout(showAll, hasFrames ? LATE_MS : FRAMELESS_MS);
}

function showAll() {
  clearTimeout(timer);
  if (frame) cancelAnimationFrame(frame);
  timer = undefined;
  frame = 0;
  const boards = [...changed];
  changed.clear();
  for (const board of boards) board.show();
}
