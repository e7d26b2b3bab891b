// Several subscribers of one channel: late ones, those with a place of their own, gaps.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createClient } from "../../../broker/browser/index.js";
import { Subscription } from "../../../broker/browser/subscription.js";
import { Topic } from "../../../broker/browser/topic.js";
import { FakeSocket, listener, restoreWires, settled, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

const CHANNEL = "job:1";

/** A client that is live on the channel; it has had the events 2, 3 and 4 of the epoch 5. */
async function live(replay = 2) {
  const client = createClient({ url: "http://events.test", transport: "websocket" });
  const one = listener();
  client.subscribe(CHANNEL, one.options);
  await settled();
  const socket = FakeSocket.last;
  socket.greet();
  socket.subscribed(CHANNEL, "5:1:0", false, replay);
  for (const offset of [2, 3, 4]) event(socket, offset);
  one.take();
  socket.said = [];
  return { client, one, socket };
}

const event = (socket, offset, epoch = 5) =>
  socket.event(CHANNEL, `${epoch}:${offset}:${offset}`, offset);
const gap = (socket, reason, from, to) =>
  socket.say({ type: "gap", channel: CHANNEL, reason, from, to });
const asked = (socket) => {
  const found = socket.said.map(({ type, since }) =>
    type === "subscribe" ? (since ?? null) : type,
  );
  socket.said = [];
  if (found[0] === "unsubscribe")
    socket.say({ type: "unsubscribed", name: CHANNEL, success: true });
  return found;
};

async function join(client, options) {
  const late = listener(options);
  late.subscription = client.subscribe(CHANNEL, late.options);
  expect(late.told).toEqual([]);
  await settled();
  return late;
}

test("who comes late gets what a new subscriber gets, and asks for nothing", async () => {
  const { client, one, socket } = await live();
  const late = await join(client);
  expect(late.take()).toEqual([
    ["subscribed", "5:2:0", false],
    [3, "5:3:3"],
    [4, "5:4:4"],
  ]);
  event(socket, 5);
  expect([one.take(), late.take(), asked(socket)]).toEqual([[[5, "5:5:5"]], [[5, "5:5:5"]], []]);
  expect(late.subscription.position).toBe("5:5:5");
});

test("whose place is that of what it was told, not of what is yet to be told", async () => {
  const { client } = await live();
  const places = [];
  const hasty = client.subscribe(CHANNEL, { onEvent: () => places.push("never") });
  expect(hasty.position).toBe(null);
  hasty.unsubscribe();
  const onEvent = (number) => {
    places.push([number, kept.position]);
    if (number === 3) kept.unsubscribe();
  };
  const kept = client.subscribe(CHANNEL, { since: hasty.position, onEvent });
  await settled();
  expect([hasty.position, kept.position, places]).toEqual([null, "5:3:3", [[3, "5:3:3"]]]);
});

test("as many as the server says, and none where it says none", async () => {
  const { client } = await live(0);
  expect((await join(client)).take()).toEqual([["subscribed", "5:4:4", false]]);
  const gone = listener();
  client.subscribe(CHANNEL, gone.options).unsubscribe();
  await settled();
  expect(gone.take()).toEqual([]);
});

test("at most a hundred are kept", async () => {
  const { client, socket } = await live(1000);
  for (let offset = 5; offset <= 200; offset += 1) event(socket, offset);
  expect((await join(client)).take().length).toBe(101);
});

test("with the channel's place nothing is asked for, nothing replayed", async () => {
  const { client, socket } = await live();
  const late = await join(client, { since: "5:4:4" });
  expect([late.take(), asked(socket)]).toEqual([[["subscribed", "5:4:4", true]], []]);
});

test("an older place is asked for; the others drop what they had", async () => {
  const { client, one, socket } = await live();
  const late = await join(client, { since: "5:2:2" });
  event(socket, 5); // of the old subscription: not for who asked for less
  expect(late.take()).toEqual([]);
  expect(asked(socket)).toEqual(["unsubscribe", "5:2:2"]);
  socket.subscribed(CHANNEL, "5:2:2", true, 2);
  for (const offset of [3, 4, 5, 6]) event(socket, offset);
  expect(late.take()).toEqual([
    ["subscribed", "5:2:2", true],
    [3, "5:3:3"],
    [4, "5:4:4"],
    [5, "5:5:5"],
    [6, "5:6:6"],
  ]);
  expect(one.take().map(([each]) => each)).toEqual([5, 6]);
});

test("a gap on the way of the older place concerns nobody else", async () => {
  const { client, one, socket } = await live();
  const late = await join(client, { since: "5:1:1" });
  asked(socket);
  socket.subscribed(CHANNEL, "5:1:1", false);
  gap(socket, "trimmed", "5:1:1", "5:3:0");
  event(socket, 4);
  event(socket, 5);
  expect(late.take()).toEqual([
    ["subscribed", "5:1:1", false],
    ["gap", "trimmed", "5:1:1", "5:3:0"],
    [4, "5:4:4"],
    [5, "5:5:5"],
  ]);
  expect(one.take()).toEqual([[5, "5:5:5"]]);
});

test("with a newer place the others are asked for again, so that they miss nothing", async () => {
  const { client, one, socket } = await live();
  const late = await join(client, { since: "5:9:9" });
  expect(asked(socket)).toEqual(["unsubscribe", "5:9:9"]);
  socket.subscribed(CHANNEL, "5:9:9", true);
  expect(asked(socket)).toEqual(["unsubscribe", "5:4:4"]);
  socket.subscribed(CHANNEL, "5:4:4", true);
  for (let offset = 5; offset <= 10; offset += 1) event(socket, offset);
  expect(late.take()).toEqual([
    ["subscribed", "5:9:9", true],
    [10, "5:10:10"],
  ]);
  expect(one.take().map(([each]) => each)).toEqual([5, 6, 7, 8, 9, 10]);
  expect(asked(socket)).toEqual([]);
});

test("who comes while the channel itself is behind waits with it", async () => {
  const { client, socket } = await live();
  await join(client, { since: "5:9:9" });
  asked(socket);
  socket.subscribed(CHANNEL, "5:9:9", true);
  expect(asked(socket)).toEqual(["unsubscribe", "5:4:4"]);
  const late = [await join(client), await join(client, { since: "5:4:4" })];
  event(socket, 10);
  socket.subscribed(CHANNEL, "5:4:4", true);
  for (let offset = 5; offset <= 11; offset += 1) event(socket, offset);
  const due = [5, 6, 7, 8, 9, 10, 11];
  const had = late.map((each) => each.take().slice(1).map(([number]) => number));
  expect(had).toEqual([[3, 4, ...due], due]);
});

test("each place is asked for by itself: it may be one that Redis has lost", async () => {
  const { client, socket } = await live();
  const older = await join(client, { since: "5:2:2" });
  const lost = await join(client, { since: "5:9:9" });
  expect(asked(socket)).toEqual(["unsubscribe", "5:2:2"]);
  socket.subscribed(CHANNEL, "5:2:2", true);
  expect([older.take(), lost.take()]).toEqual([[["subscribed", "5:2:2", true]], []]);
  expect(asked(socket)).toEqual(["unsubscribe", "5:9:9"]);
  socket.subscribed(CHANNEL, "5:9:9", false);
  gap(socket, "rolled_back", "5:9:9", "5:4:4");
  expect(lost.take()).toEqual([
    ["subscribed", "5:9:9", false],
    ["gap", "rolled_back", "5:9:9", "5:4:4"],
  ]);
});

test("a place of another epoch waits for its gap before the others are asked for", async () => {
  const { client, one, socket } = await live();
  const late = await join(client, { since: "3:7:7" });
  expect(asked(socket)).toEqual(["unsubscribe", "3:7:7"]);
  socket.subscribed(CHANNEL, "3:7:7", false);
  expect(asked(socket)).toEqual([]);
  gap(socket, "epoch_changed", "3:7:7", "5:2:0");
  expect(late.take()).toEqual([
    ["subscribed", "3:7:7", false],
    ["gap", "epoch_changed", "3:7:7", "5:2:0"],
  ]);
  expect(asked(socket)).toEqual(["unsubscribe", "5:4:4"]);
  socket.subscribed(CHANNEL, "5:4:4", true);
  expect(asked(socket)).toEqual(["unsubscribe", "5:2:0"]);
  socket.subscribed(CHANNEL, "5:2:0", true);
  for (const offset of [3, 4, 5]) event(socket, offset);
  expect(late.take().map(([each]) => each)).toEqual([3, 4, 5]);
  expect(one.take()).toEqual([[5, "5:5:5"]]);
});

test("a place of a younger epoch tells that the others' history is no more", async () => {
  const { client, one, socket } = await live();
  const late = await join(client, { since: "8:3:3" });
  expect(asked(socket)).toEqual(["unsubscribe", "8:3:3"]);
  socket.subscribed(CHANNEL, "8:3:3", true);
  expect(asked(socket)).toEqual(["unsubscribe", "5:4:4"]);
  socket.subscribed(CHANNEL, "5:4:4", false);
  gap(socket, "epoch_changed", "5:4:4", "8:1:0");
  expect(one.take()).toEqual([["gap", "epoch_changed", "5:4:4", "8:1:0"]]);
  expect(asked(socket)).toEqual(["unsubscribe", "8:3:3"]);
  socket.subscribed(CHANNEL, "8:3:3", true);
  expect(asked(socket)).toEqual(["unsubscribe", "8:1:0"]);
  socket.subscribed(CHANNEL, "8:1:0", true);
  for (const offset of [2, 3, 4]) event(socket, offset, 8);
  expect(one.take().map(([each]) => each)).toEqual([2, 3, 4]);
  expect(late.take()).toEqual([
    ["subscribed", "8:3:3", true],
    [4, "8:4:4"],
  ]);
});

test("subscribers with and without a place, before the channel was ever asked for", async () => {
  const client = createClient({ url: "http://events.test", transport: "websocket" });
  const [fresh, older, plain] = [
    await join(client, { since: "5:3:3" }),
    await join(client, { since: "5:2:2" }),
    await join(client),
  ];
  const socket = FakeSocket.last;
  socket.greet();
  expect(asked(socket)).toEqual([null]);
  socket.subscribed(CHANNEL, "5:3:0");
  event(socket, 4);
  expect(asked(socket)).toEqual(["unsubscribe", "5:3:3"]);
  socket.subscribed(CHANNEL, "5:3:3", true);
  expect(asked(socket)).toEqual(["unsubscribe", "5:2:2"]);
  socket.subscribed(CHANNEL, "5:2:2", true);
  for (const offset of [3, 4]) event(socket, offset);
  expect(fresh.take()).toEqual([
    ["subscribed", "5:3:3", true],
    [4, "5:4:4"],
  ]);
  expect(older.take()).toEqual([
    ["subscribed", "5:2:2", true],
    [3, "5:3:3"],
    [4, "5:4:4"],
  ]);
  expect(plain.take()).toEqual([
    ["subscribed", "5:3:0", false],
    [4, "5:4:4"],
  ]);
});

test("an answer without a question is told to all who hear", () => {
  const asks = [];
  const topic = new Topic(() => asks.push(topic.sinceOf()));
  const told = [listener(), listener()];
  const [one, late] = told.map(({ options }) => new Subscription(CHANNEL, options, () => {}));
  topic.add(one);
  topic.sinceOf();
  topic.answered({ position: "5:1:0", recovered: false, replay: 1 });
  topic.answered({ position: "5:1:0", recovered: true, replay: 1 });
  expect(told[0].take()).toEqual([
    ["subscribed", "5:1:0", false],
    ["subscribed", "5:1:0", true],
  ]);
  late.place = "5:0:0";
  topic.add(late);
  expect([asks, told[1].take()]).toEqual([["5:0:0"], []]);
});

test("who is ahead of the channel when it is cut has its own place asked for too", async () => {
  const { client, socket } = await live();
  const late = await join(client, { since: "5:9:9" });
  asked(socket);
  socket.subscribed(CHANNEL, "5:9:9", true);
  socket.end();
  await vi.advanceTimersByTimeAsync(1000);
  FakeSocket.last.greet();
  expect(asked(FakeSocket.last)).toEqual(["5:4:4"]);
  FakeSocket.last.subscribed(CHANNEL, "5:4:4", true);
  expect(asked(FakeSocket.last)).toEqual(["unsubscribe", "5:9:9"]);
  FakeSocket.last.subscribed(CHANNEL, "5:9:9", false);
  gap(FakeSocket.last, "rolled_back", "5:9:9", "5:6:6");
  expect(late.take().slice(1)).toEqual([
    ["subscribed", "5:9:9", false],
    ["gap", "rolled_back", "5:9:9", "5:6:6"],
  ]);
});

describe("gaps", () => {
  test("while live move everybody, and what was undone is replayed to nobody", async () => {
    const { client, one, socket } = await live();
    const late = await join(client);
    late.take();
    gap(socket, "rolled_back", "5:4:4", "5:2:9");
    expect([one.take(), late.take()]).toEqual(
      Array(2).fill([["gap", "rolled_back", "5:4:4", "5:2:9"]]),
    );
    expect((await join(client)).take()).toEqual([["subscribed", "5:2:9", false]]);
    socket.event(CHANNEL, "5:3:9", "three anew");
    expect(one.take()).toEqual([["three anew", "5:3:9"]]);
  });

  test("without a place are told to all, once each", async () => {
    const { client, one, socket } = await live();
    const late = await join(client);
    late.take();
    gap(socket, "redis_away", null, null);
    gap(socket, "recorder_changed", "5:4:4", "5:4:4");
    gap(socket, "recorder_changed", "5:4:4", "5:4:4");
    expect([one.take(), late.take()].map((told) => told.map(([, reason]) => reason))).toEqual(
      Array(2).fill(["redis_away", "recorder_changed", "recorder_changed"]),
    );
  });

  test("are not told again because somebody else asked", async () => {
    const { client, one, socket } = await live();
    gap(socket, "recorder_changed", "5:4:4", "5:4:4");
    one.take();
    const late = await join(client, { since: "5:2:2" });
    asked(socket);
    socket.subscribed(CHANNEL, "5:2:2", true);
    for (const offset of [3, 4]) event(socket, offset);
    gap(socket, "recorder_changed", "5:4:4", "5:4:4");
    expect(one.take()).toEqual([]);
    expect(late.take().at(-1)).toEqual(["gap", "recorder_changed", "5:4:4", "5:4:4"]);
  });
});

test("without history a place is answered here, with a gap, and nobody is disturbed", async () => {
  const client = createClient({ url: "http://events.test", transport: "websocket" });
  const one = await join(client);
  const socket = FakeSocket.last;
  socket.greet();
  socket.subscribed(CHANNEL, null, false, 0);
  socket.event(CHANNEL, null, "a");
  socket.said = [];
  const late = await join(client, { since: "5:1:1" });
  expect(late.take()).toEqual([
    ["subscribed", null, false],
    ["gap", "no_history", null, null],
  ]);
  socket.event(CHANNEL, null, "b");
  expect([one.take().slice(1), late.take(), asked(socket)]).toEqual([
    [
      ["a", null],
      ["b", null],
    ],
    [["b", null]],
    [],
  ]);
});

test("after a cut the channel is asked for from each place: Redis may have lost one", async () => {
  const { client, one, socket } = await live();
  const late = await join(client, { since: "5:1:1" });
  asked(socket);
  socket.subscribed(CHANNEL, "5:1:1", true);
  event(socket, 2);
  socket.end();
  await vi.advanceTimersByTimeAsync(1000);
  FakeSocket.last.greet();
  expect(asked(FakeSocket.last)).toEqual(["5:4:4"]);
  FakeSocket.last.subscribed(CHANNEL, "5:4:4", false);
  gap(FakeSocket.last, "rolled_back", "5:4:4", "5:2:2");
  expect(asked(FakeSocket.last)).toEqual(["unsubscribe", "5:2:2"]);
  FakeSocket.last.subscribed(CHANNEL, "5:2:2", true);
  const tagged = (offset) => FakeSocket.last.event(CHANNEL, `5:${offset}:7`, offset);
  for (const offset of [3, 4, 5]) tagged(offset);
  const news = [3, 4, 5].map((offset) => [offset, `5:${offset}:7`]);
  expect(late.take().slice(2)).toEqual([["subscribed", "5:2:2", true], ...news]);
  expect(one.take()).toEqual([
    ["subscribed", "5:4:4", false],
    ["gap", "rolled_back", "5:4:4", "5:2:2"],
    ...news,
  ]);
});
