// Places, and what is news to a reader at one.
import { expect, test } from "vitest";
import { distance, isSame, NOWHERE } from "../../../broker/browser/place.js";
import { Reader } from "../../../broker/browser/reader.js";

test("only places of one epoch can be compared", () => {
  expect(distance("5:10:1", "5:7:2")).toBe(3);
  expect(distance("5:7:1", "5:7:2")).toBe(0);
  expect(distance("5:7:1", "6:7:1")).toBe(NaN);
  expect(distance("5:7:1", null)).toBe(NaN);
  expect(distance("nonsense", "5:7:1")).toBe(NaN);
});

test("two tags are two places, but for 0, which stands for any", () => {
  expect(isSame("5:7:1", "5:7:1")).toBe(true);
  expect(isSame("5:7:1", "5:7:2")).toBe(false);
  expect(isSame("5:7:0", "5:7:2")).toBe(true);
  expect(isSame("5:7:1", "6:7:1")).toBe(false);
  expect(isSame(null, "5:7:1")).toBe(false);
  expect(isSame("x", "x")).toBe(true);
});

test("an event is news behind the place, or where it has none", () => {
  const reader = new Reader("5:7:1");
  expect(["5:7:1", "5:6:9", "5:8:3", "5:8:3", null, "6:1:1"].map((at) => reader.take(at))).toEqual([
    false,
    false,
    true,
    false,
    true,
    true,
  ]);
  expect(reader.place).toBe("6:1:1");
});

const GAPS = [
  // at, reason, from, to -> concerned, place
  ["5:7:1", "trimmed", "5:7:1", "5:9:0", true, "5:9:0"],
  ["5:9:1", "trimmed", "5:2:1", "5:9:0", false, "5:9:1"],
  ["5:12:1", "trimmed", "5:2:1", "5:9:0", false, "5:12:1"],
  ["5:4:1", "trimmed", "5:2:1", "5:9:0", true, "5:9:0"],
  ["5:7:1", "epoch_changed", "5:7:1", "6:0:0", true, "6:0:0"],
  ["6:3:1", "epoch_changed", "5:7:1", "6:0:0", false, "6:3:1"],
  ["5:7:1", "rolled_back", "5:7:1", "5:4:8", true, "5:4:8"],
  ["5:4:8", "rolled_back", "5:7:1", "5:4:8", false, "5:4:8"],
  ["5:2:1", "rolled_back", "5:7:1", "5:4:8", true, "5:4:8"],
  ["5:7:1", "recorder_changed", "5:7:0", "5:7:0", true, "5:7:1"],
  ["5:8:1", "recorder_changed", "5:7:0", "5:7:0", false, "5:8:1"],
  ["5:7:1", "redis_away", null, null, true, "5:7:1"],
  [NOWHERE, "redis_away", null, null, true, NOWHERE],
  ["bad", "unknown_position", null, "5:7:1", true, "5:7:1"],
  ["5:9:1", "unknown_position", null, "5:7:1", false, "5:9:1"],
  [null, "trimmed", "5:2:1", "5:9:0", false, null],
];
test.each(GAPS)("at %s: %s from %s to %s", (at, reason, from, to, concerned, place) => {
  const reader = new Reader(at);
  expect([reader.miss({ reason, from, to }, false), reader.place]).toEqual([concerned, place]);
});

test("no_history concerns those who had a place when the daemon was asked", () => {
  const reader = new Reader(NOWHERE);
  const gap = { reason: "no_history", from: null, to: null };
  expect(reader.miss(gap, false)).toBe(false);
  reader.hadPlace = true;
  expect(reader.miss(gap, false)).toBe(true);
});

test("a gap that somebody else's question repeats is told once", () => {
  const reader = new Reader("5:7:1");
  const gap = { reason: "recorder_changed", from: "5:7:1", to: "5:7:1" };
  expect([false, true, true, false].map((mayRepeat) => reader.miss(gap, mayRepeat))).toEqual([
    true,
    false,
    false,
    true,
  ]);
  reader.take("5:8:1");
  const later = { reason: "recorder_changed", from: "5:8:1", to: "5:8:1" };
  expect(reader.miss(later, true)).toBe(true);
});
