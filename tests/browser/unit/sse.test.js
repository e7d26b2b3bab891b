// The client over server-sent events: one stream for all channels, another one for others.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { gathered, live, make, start } from "./stream_client.js";
import { FakeRequest, listener, restoreWires, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

test("one stream names every channel, with the place of each", async () => {
  const client = make({ userId: "ann", getToken: () => "t1" });
  const [one, two] = [listener(), listener({ since: "6:2:3" })];
  client.subscribe("job:1", one.options);
  client.subscribe("alerts:ann", two.options);
  await gathered();
  const request = FakeRequest.last;
  expect(FakeRequest.all.length).toBe(1);
  expect([
    request.url.pathname,
    request.url.searchParams.get("protocol"),
    request.url.searchParams.get("userId"),
  ]).toEqual(["/api/stream", "broker.v1", "ann"]);
  expect([request.channels, request.since, request.init.headers]).toEqual([
    ["job:1", "alerts:ann"],
    ["alerts:ann,6:2:3"],
    { Accept: "text/event-stream", Authorization: "Bearer t1" },
  ]);
  expect(client.status.state).toBe("connecting");
  await request.greet([start("job:1"), start("alerts:ann", "6:2:3")]);
  expect(client.status).toMatchObject({ state: "open", transport: "sse", clientId: "sse_1" });
  await request.write("id: 5:2:7\n");
  await request.say({ channel: "job:1", position: "5:2:7", event: { a: 1 } });
  await request.say(
    { type: "gap", channel: "alerts:ann", reason: "trimmed", from: "6:2:3", to: "6:9:0" },
    "gap",
  );
  expect(one.take()).toEqual([
    ["subscribed", "5:1:0", false],
    [{ a: 1 }, "5:2:7"],
  ]);
  expect(two.take()).toEqual([
    ["subscribed", "6:2:3", false],
    ["gap", "trimmed", "6:2:3", "6:9:0"],
  ]);
});

describe("other channels are another stream", () => {
  test("asked for once a turn; the old one is read until the new one is there", async () => {
    const { client, one, score, first } = await live();
    const two = listener();
    client.subscribe("job:2", two.options);
    client.subscribe("job:3");
    await gathered();
    expect(FakeRequest.all.length).toBe(2);
    const second = FakeRequest.last;
    expect([second.channels, second.since]).toEqual([
      ["job:1", "score:1", "job:2", "job:3"],
      ["job:1,5:1:0"],
    ]);
    await first.say({ channel: "job:1", position: "5:2:7", event: "a" });
    await second.greet([
      start("job:1", "5:1:0", true),
      start("score:1", null),
      start("job:2"),
      start("job:3"),
    ]);
    expect(first.isAborted).toBe(true);
    await second.say({ channel: "job:1", position: "5:2:7", event: "a" });
    await second.say({ channel: "job:1", position: "5:3:7", event: "b" });
    await second.say({ channel: "job:2", position: "5:2:1", event: "c" });
    expect(one.take()).toEqual([
      ["a", "5:2:7"],
      ["b", "5:3:7"],
    ]);
    expect(two.take()).toEqual([
      ["subscribed", "5:1:0", false],
      ["c", "5:2:1"],
    ]);
    expect(score.take()).toEqual([]);
  });

  test("who asks for an older place hears nothing of the old stream", async () => {
    const { client, one, first } = await live();
    await first.say({ channel: "job:1", position: "5:2:7", event: "a" });
    const late = listener({ since: "5:1:0" });
    client.subscribe("job:1", late.options);
    await gathered();
    expect(FakeRequest.last.since).toEqual(["job:1,5:1:0"]);
    await first.say({ channel: "job:1", position: "5:3:7", event: "b" });
    expect(late.take()).toEqual([]);
    await FakeRequest.last.greet([start("job:1", "5:1:0", true), start("score:1", null)]);
    for (const [position, event] of [
      ["5:2:7", "a"],
      ["5:3:7", "b"],
      ["5:4:7", "c"],
    ]) {
      await FakeRequest.last.say({ channel: "job:1", position, event });
    }
    expect(late.take()).toEqual([
      ["subscribed", "5:1:0", true],
      ["a", "5:2:7"],
      ["b", "5:3:7"],
      ["c", "5:4:7"],
    ]);
    expect(one.take()).toEqual([
      ["a", "5:2:7"],
      ["b", "5:3:7"],
      ["c", "5:4:7"],
    ]);
  });

  test("without history what the old stream ended with is passed over on the new one", async () => {
    const { client, score, first } = await live();
    const say = (request, event, channel = "score:1") =>
      request.say({ channel, position: null, event });
    await say(first, 1);
    client.subscribe("job:2");
    await gathered();
    const second = FakeRequest.last;
    for (const event of [2, 3, 4]) await say(first, event);
    await second.greet([start("job:1", "5:1:0", true), start("score:1", null), start("job:2")]);
    client.subscribe("job:3");
    await gathered();
    for (const event of [3, 4, 5, 3]) await say(second, event);
    await FakeRequest.last.greet([start("score:1", null)]);
    for (const event of [6, 3]) await say(FakeRequest.last, event);
    expect(score.take().map(([event]) => event)).toEqual([1, 2, 3, 4, 5, 3, 6, 3]);
  });

  test("one that is refused is left out, and the old stream goes on", async () => {
    const { client, one, first } = await live();
    const two = listener();
    client.subscribe("secret:1", two.options);
    await gathered();
    await FakeRequest.last.refuse(403, {
      error: "Forbidden",
      detail: "no",
      hint: "ask",
      channel: "secret:1",
    });
    expect(two.take()).toEqual([["error", "forbidden", "answered 403. no. ask"]]);
    await gathered();
    expect([FakeRequest.last.channels, first.isAborted]).toEqual([["job:1", "score:1"], false]);
    await first.say({ channel: "job:1", position: "5:2:7", event: "a" });
    expect(one.take()).toEqual([["a", "5:2:7"]]);
    expect(client.status.state).toBe("open");
  });

  test("refused at the beginning, one after the other", async () => {
    const client = make();
    const told = ["x:1", "x:2", "x:3"].map((name) => {
      const one = listener();
      client.subscribe(name, one.options);
      return one;
    });
    await gathered();
    for (const name of ["x:1", "x:2"]) {
      await FakeRequest.last.refuse(404, {
        error: "Not Found",
        detail: "not served",
        channel: name,
      });
      await gathered();
    }
    expect([FakeRequest.last.channels, client.status.attempt]).toEqual([["x:3"], 0]);
    expect(told.map((one) => one.take().map(([, code]) => code))).toEqual([
      ["not_found"],
      ["not_found"],
      [],
    ]);
  });

  test("none over the thirty-second, as is told when the others are there", async () => {
    const client = make();
    const last = listener();
    const names = Array.from({ length: 32 }, (_, index) => `job:${index}`);
    for (const name of names) client.subscribe(name);
    client.subscribe("job:32", last.options);
    await gathered();
    expect([FakeRequest.last.channels, last.take()]).toEqual([names, []]);
    await FakeRequest.last.greet(names.map((name) => start(name)));
    const told = "over SSE at most 32 channels; unsubscribe from some";
    expect(last.take()).toEqual([["error", "too_many_subscriptions", told]]);
    await gathered();
    expect(FakeRequest.last.channels).toEqual(names);
  });

  test("while a stream is refused by Redis, it is left out too", async () => {
    const { one, score, first } = await live();
    await first.say({ type: "error", error: "Redis refused channel", channel: "score:1" }, "error");
    await first.end();
    expect(score.take().map(([, code]) => code)).toEqual(["unreachable"]);
    await gathered();
    expect([FakeRequest.last.channels, FakeRequest.last.since]).toEqual([
      ["job:1"],
      ["job:1,5:1:0"],
    ]);
    expect(one.take()).toEqual([]);
  });
});

test("close, while the stream is loaded or asked for, leaves nothing behind", async () => {
  const client = make();
  client.subscribe("job:1");
  client.close();
  await gathered();
  expect([FakeRequest.all, vi.getTimerCount()]).toEqual([[], 0]);
  const other = make();
  other.subscribe("job:1");
  await gathered();
  other.close();
  expect([FakeRequest.last.isAborted, vi.getTimerCount(), other.status.state]).toEqual([
    true,
    0,
    "closed",
  ]);
});
