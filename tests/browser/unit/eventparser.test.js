// The parser of text/event-stream, against WHATWG HTML, 9.2.6.
import { describe, expect, test } from "vitest";
import { EventParser } from "../../../broker/browser/eventparser.js";

function parse(...chunks) {
  const events = [];
  const parser = new EventParser("", (event) => events.push(event));
  for (const chunk of chunks) parser.feed(chunk);
  return { events, parser };
}

const STREAM = [
  ": hello",
  "id: 7",
  "event: gap",
  "data: one",
  "data:two",
  "data",
  "retry: 250",
  "unknown: field",
  "",
  "",
  "data: zwei\u2028drei",
  "",
  "event: lost",
  "",
  "data:  spaced: x",
  "id",
  "",
].map((line) => line);

describe("whatever ends a line, and wherever it is cut", () => {
  const wanted = [
    { type: "gap", data: "one\ntwo\n", id: "7" },
    { type: "message", data: "zwei\u2028drei", id: "7" },
    { type: "message", data: " spaced: x", id: "" },
  ];
  test.each([["\n"], ["\r"], ["\r\n"]])("%j", (ending) => {
    const text = `${STREAM.join(ending)}${ending}`;
    for (let cut = 0; cut <= text.length; cut += 1) {
      const { events, parser } = parse(text.slice(0, cut), text.slice(cut));
      expect(events).toEqual(wanted);
      expect(parser.retryMs).toBe(250);
    }
    expect(parse(...text).events).toEqual(wanted);
  });
});

test("a lone CR at the end of a chunk ends the event at once", () => {
  expect(parse("data: a\r\r").events).toEqual([{ type: "message", data: "a", id: "" }]);
  expect(parse("data: a\r", "\n\r", "\ndata: b\n\n").events.map(({ data }) => data)).toEqual([
    "a",
    "b",
  ]);
});

test("an id with NUL is passed over, and so is a retry that is no number", () => {
  const { events, parser } = parse("id: 1\ndata: a\n\nid: 2\0\nretry: 1s\ndata: b\n\n");
  expect(events.map(({ id }) => id)).toEqual(["1", "1"]);
  expect(parser.retryMs).toBe(undefined);
});

test("what is not ended by an empty line is no event", () => {
  expect(parse("data: a\n\ndata: b\n").events.map(({ data }) => data)).toEqual(["a"]);
});

test("an event over the bound is an error, in one line or in many", () => {
  const piece = "x".repeat(1024 * 1024);
  const long = new EventParser("", () => {});
  expect(() => {
    for (let count = 0; count < 18; count += 1) long.feed(`data: ${piece}\n`);
  }).toThrow("an event of more than 16777216 characters");
});
