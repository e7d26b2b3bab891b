// A stream that takes another's place: channels that come and go, their number, their overlap.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { gathered, live, make, start } from "./stream_client.js";
import { FakeRequest, listener, restoreWires, settled, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

const say = (request, event, channel = "score:1") =>
  request.say({ channel, position: null, event });
const starts = (request) => request.channels.map((name) => start(name, null));

test("channels that change faster than an answer comes wait for it", async () => {
  const { client, first } = await live();
  for (let number = 0; number < 10; number += 1) {
    client.subscribe(`row:${number}`);
    await vi.advanceTimersByTimeAsync(50);
  }
  expect([FakeRequest.all.length, FakeRequest.last.channels.length]).toEqual([2, 3]);
  await FakeRequest.last.greet(starts(FakeRequest.last));
  await gathered();
  expect([FakeRequest.all.length, FakeRequest.last.channels.length]).toEqual([3, 12]);
  expect(first.isAborted).toBe(true);
});

test("a channel that was left and is followed again hears what it asked for itself", async () => {
  const { client } = await live({ lingerMs: 0 });
  client.subscribe("job:2").unsubscribe();
  client.subscribe("job:3");
  await gathered();
  const second = FakeRequest.last;
  const two = listener();
  client.subscribe("job:2", two.options);
  await gathered();
  client.subscribe("job:4").unsubscribe();
  await second.greet(["job:1", "score:1", "job:2", "job:3"].map((name) => start(name)));
  await second.say({ channel: "job:2", position: "5:2:2", event: "early" });
  await gathered();
  expect([FakeRequest.last.channels.includes("job:2"), FakeRequest.last.since, two.take()]).toEqual([
    true,
    ["job:1,5:1:0", "job:3,5:1:0"],
    [],
  ]);
  await FakeRequest.last.greet([start("job:2")]);
  await FakeRequest.last.say({ channel: "job:2", position: "5:2:2", event: "early" });
  expect(two.take()).toEqual([
    ["subscribed", "5:1:0", false],
    ["early", "5:2:2"],
  ]);
});

test.each([
  ["a second after it began", [1], [1], 1000, [1, 1]],
  ["where the channel repeats itself", [1, 1], [1, 1], 0, [1, 1, 1, 1]],
  ["where it came twice", [1, 2, 1], [1, 3], 0, [1, 2, 1, 1, 3]],
  ["where it did so before", [0, 0, 1], [1], 0, [0, 0, 1, 1]],
])("an event like one of the old stream's is told %s", async (_, old, later, waitMs, told) => {
  const { client, score, first } = await live();
  client.subscribe("job:2");
  await gathered();
  for (const event of old) await say(first, event);
  const second = FakeRequest.last;
  await second.greet(starts(second));
  await vi.advanceTimersByTimeAsync(waitMs);
  for (const event of later) await say(second, event);
  expect(score.take().map(([event]) => event)).toEqual(told);
});

test("who comes in a handler hears what comes in the same piece behind its replay", async () => {
  const { client, first } = await live();
  const late = listener();
  client.subscribe("job:1", {
    onEvent(event) {
      if (event === 2) client.subscribe("job:1", late.options);
    },
  });
  await settled();
  const facts = [2, 3, 4].map((event) => ({ channel: "job:1", position: `5:${event}:0`, event }));
  await first.write(facts.map((each) => `data: ${JSON.stringify(each)}\n\n`).join(""));
  expect(late.take()).toEqual([
    ["subscribed", "5:1:0", false],
    [2, "5:2:0"],
    [3, "5:3:0"],
    [4, "5:4:0"],
  ]);
});

test("a gap that belongs to an older question leaves the new one open", async () => {
  const { client, one, first } = await live();
  await first.end();
  await vi.advanceTimersByTimeAsync(750);
  await gathered();
  const second = FakeRequest.last;
  await second.greet([start("job:1"), start("score:1", null)]);
  client.subscribe("job:2");
  await gathered();
  const gap = { type: "gap", channel: "job:1", reason: "trimmed", from: "5:1:0", to: "5:7:7" };
  await second.say(gap, "gap");
  await FakeRequest.last.greet([start("job:1"), start("score:1", null), start("job:2")]);
  await FakeRequest.last.say(gap, "gap");
  expect(one.take()).toEqual([
    ["subscribed", "5:1:0", false],
    ["gap", "trimmed", "5:1:0", "5:7:7"],
  ]);
});

async function open(count) {
  const client = make();
  const told = [];
  for (let number = 0; number < count; number += 1) {
    client.subscribe(`job:${number}`, { onError: ({ code }) => told.push([number, code]) });
  }
  await gathered();
  return { client, told };
}

test("a daemon that takes fewer channels says how many", async () => {
  const { client, told } = await open(5);
  const detail = "5 channels; at most 3";
  await FakeRequest.last.refuse(400, { error: "Bad Request", detail, channel: "job:3" });
  await gathered();
  expect([FakeRequest.last.channels, told]).toEqual([["job:0", "job:1", "job:2"], []]);
  await FakeRequest.last.greet(starts(FakeRequest.last));
  expect([told, client.status.state]).toEqual([
    [
      [3, "too_many_subscriptions"],
      [4, "too_many_subscriptions"],
    ],
    "open",
  ]);
  // One that asks again each time it is told no freezes nothing, and asks the daemon for nothing.
  let count = 0;
  const again = () => {
    count += 1;
    client.subscribe("job:9", { onError: again });
  };
  again();
  const { length } = FakeRequest.all;
  await settled();
  expect(count).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect([count < 10, FakeRequest.all.length]).toEqual([true, length]);
  client.close();
});

test.each([400, 414, 431])("after %i half as many are asked for, down to one", async (status) => {
  const { client, told } = await open(5);
  const counts = [];
  while (client.status.state === "connecting") {
    counts.push(FakeRequest.last.channels.length);
    await FakeRequest.last.refuse(status, { error: "No", detail: "why" });
    await gathered();
  }
  expect([counts, told, client.status.error.status]).toEqual([[5, 2, 1], [], status]);
  client.reconnect();
  await gathered();
  expect(FakeRequest.last.channels.length).toBe(5);
});

test("one channel too many takes none of those that are read", async () => {
  const { client, told } = await open(3);
  await FakeRequest.last.greet(starts(FakeRequest.last));
  const last = listener();
  client.subscribe("job:long", last.options);
  await gathered();
  await FakeRequest.last.refuse(414);
  await gathered();
  expect(FakeRequest.last.channels.length).toBe(3);
  await FakeRequest.last.greet(starts(FakeRequest.last));
  await settled();
  expect([told, last.take().map(([, code]) => code)]).toEqual([[], ["too_many_subscriptions"]]);
});
