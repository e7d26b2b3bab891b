// A place in a channel: `epoch:offset:tag`, as docs/protocol.md has positions.
//
// Only offsets of one epoch can be compared. Two tags differ where Redis came back with an older
// state and gave one offset out twice; the tag 0 stands for one that is not known.

/** A place that no channel has: who comes back with it is always told of a gap. */
export const NOWHERE = "0:0:0";

/**
 * @param {string | null} text
 * @returns {{ epoch: string, offset: number, tag: string } | null} null where it is no place
 */
function parse(text) {
  const found = /^(\d{1,10}):(\d{1,15}):(\d{1,10})$/.exec(text ?? "");
  return found && { epoch: found[1], offset: Number(found[2]), tag: found[3] };
}

/** The place before that of an event. @param {string} position */
export function before(position) {
  const [epoch, offset] = position.split(":");
  return `${epoch}:${Number(offset) - 1}:0`;
}

/**
 * How far `a` is ahead of `b`: 0 for the same offset, NaN where they cannot be compared.
 * @param {string | null} a
 * @param {string | null} b
 */
export function distance(a, b) {
  const [left, right] = [parse(a), parse(b)];
  return left && right && left.epoch === right.epoch ? left.offset - right.offset : NaN;
}

/**
 * @param {string | null} a
 * @param {string | null} b
 */
export function isSame(a, b) {
  const [left, right] = [parse(a), parse(b)];
  return a === b || (distance(a, b) === 0 &&
    (left?.tag === right?.tag || left?.tag === "0" || right?.tag === "0"));
}
