// The client over WebSocket: subscribing, cuts, refusals, letting go.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createClient } from "../../../broker/browser/index.js";
import { live, make } from "./socket_client.js";
import { FakeSocket, listener, restoreWires, settled, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

test("nothing is opened before the first subscriber, and one connection serves all", async () => {
  const client = make({ userId: "ann lee" });
  await settled();
  expect(FakeSocket.all).toEqual([]);
  expect(client.status).toEqual({
    state: "idle",
    transport: null,
    attempt: 0,
    nextRetryAt: null,
    error: null,
    clientId: null,
  });
  const [one, two] = [listener(), listener({ since: "5:4:1" })];
  client.subscribe("job:1", one.options);
  client.subscribe({ type: "alerts", userId: "ann" }, two.options);
  await settled();
  const socket = FakeSocket.last;
  expect([FakeSocket.all.length, socket.url, socket.protocols]).toEqual([
    1,
    "wss://events.test/broker/ws?userId=ann%20lee",
    "broker.v1",
  ]);
  socket.greet();
  expect(client.status).toMatchObject({ state: "open", transport: "websocket", clientId: "ws_1" });
  expect(socket.said).toEqual([
    { type: "subscribe", channel: "job:1" },
    { type: "subscribe", channel: "alerts:ann", since: "5:4:1" },
  ]);
  socket.subscribed("job:1", "5:0:0");
  socket.subscribed("alerts:ann", "5:4:1", true);
  socket.event("job:1", "5:1:7", { a: 1 });
  socket.event("job:1", "5:1:7", { a: 1 });
  socket.event("alerts:ann", "5:5:7", "text");
  expect(one.take()).toEqual([
    ["subscribed", "5:0:0", false],
    [{ a: 1 }, "5:1:7"],
  ]);
  expect(two.take()).toEqual([
    ["subscribed", "5:4:1", true],
    ["text", "5:5:7"],
  ]);
});

test("a status is replaced, never changed, and who stops listening hears no more", async () => {
  const client = make();
  const seen = [];
  const stop = client.onStatus((status) => seen.push(status));
  client.subscribe("job:1");
  await settled();
  FakeSocket.last.greet();
  stop();
  client.close();
  expect(seen.map(({ state }) => state)).toEqual(["connecting", "open"]);
  expect(seen.every(Object.isFrozen)).toBe(true);
  expect(client.status.state).toBe("closed");
});

test("after a cut each channel goes on from its place, with nothing twice", async () => {
  const { client, one, subscription, socket } = await live();
  socket.event("job:1", "5:2:7", 2);
  socket.end();
  expect(client.status).toMatchObject({
    state: "waiting",
    attempt: 1,
    nextRetryAt: Date.now() + 750,
  });
  expect(client.status.error).toMatchObject({ code: "closed", status: 1006, willRetry: true });
  await vi.advanceTimersByTimeAsync(750);
  FakeSocket.last.greet();
  expect(FakeSocket.last.said).toEqual([{ type: "subscribe", channel: "job:1", since: "5:2:7" }]);
  FakeSocket.last.subscribed("job:1", "5:2:7", true);
  FakeSocket.last.event("job:1", "5:2:7", 2);
  FakeSocket.last.event("job:1", "5:3:7", 3);
  expect(one.take()).toEqual([
    [2, "5:2:7"],
    ["subscribed", "5:2:7", true],
    [3, "5:3:7"],
  ]);
  expect(subscription.position).toBe("5:3:7");
});

test("a channel without history is told of a gap after a cut", async () => {
  const { one, socket } = await live();
  const other = listener();
  const client = make();
  client.subscribe("score:1", other.options);
  await settled();
  FakeSocket.last.greet();
  FakeSocket.last.subscribed("score:1", null, false, 0);
  FakeSocket.last.event("score:1", null, "a");
  FakeSocket.last.end(1012);
  await vi.advanceTimersByTimeAsync(750);
  FakeSocket.last.greet();
  expect(FakeSocket.last.said).toEqual([{ type: "subscribe", channel: "score:1", since: "0:0:0" }]);
  FakeSocket.last.subscribed("score:1", null, false, 0);
  FakeSocket.last.say({
    type: "gap",
    channel: "score:1",
    reason: "no_history",
    from: null,
    to: null,
  });
  expect(other.take()).toEqual([
    ["subscribed", null, false],
    ["a", null],
    ["subscribed", null, false],
    ["gap", "no_history", null, null],
  ]);
  expect([one.take(), socket.isClosed]).toEqual([[], false]);
});

test("who subscribes again when it is told no asks again, and freezes nothing", async () => {
  const { client, socket, subscription } = await live({ lingerMs: 0 });
  subscription.unsubscribe();
  let count = 0;
  const again = (name) => {
    count += 1;
    if (count < 100) client.subscribe(name, { onError: () => again(name) });
  };
  again("secret:1");
  socket.take("subscribe");
  // It is the last channel of this connection.
  await vi.advanceTimersByTimeAsync(0);
  socket.say({ type: "error", code: "forbidden", channel: "secret:1", message: "no" });
  expect([count, socket.take("subscribe"), socket.isClosed]).toEqual([
    2,
    [{ type: "subscribe", channel: "secret:1" }],
    false,
  ]);
  again("a b");
  await settled();
  expect(count).toBe(3);
});

test("a server that speaks nonsense is left, and come back to", async () => {
  for (const nonsense of ["5", "null", '"text"', "[]"]) {
    const { client, socket } = await live();
    socket.onmessage({ data: nonsense });
    expect(client.status.state).toBe("open");
    socket.onmessage({ data: "{" });
    expect(client.status).toMatchObject({ state: "waiting", error: { code: "bad_text" } });
    client.close();
  }
});

test("a channel that cannot be had is told so, and not asked for again", async () => {
  const { client, one } = await live();
  const [two, bad] = [listener(), listener()];
  client.subscribe("secret:1", two.options);
  const wrong = client.subscribe("a b", bad.options);
  expect(bad.told).toEqual([]);
  await vi.advanceTimersByTimeAsync(0);
  expect(bad.take()).toEqual([
    ["error", "bad_channel", '"a b": write type:id, of letters, digits, _-.@=+~'],
  ]);
  wrong.unsubscribe();
  FakeSocket.last.say({
    type: "error",
    code: "upstream_unavailable",
    channel: "secret:1",
    message: "wait",
  });
  FakeSocket.last.say({
    type: "error",
    code: "forbidden",
    channel: "secret:1",
    message: "not for you",
  });
  FakeSocket.last.say({ type: "unsubscribed", name: "secret:1", success: true });
  FakeSocket.last.event("secret:1", "5:1:1", "no");
  expect(two.take()).toEqual([["error", "forbidden", "not for you"]]);
  FakeSocket.last.end();
  await vi.advanceTimersByTimeAsync(750);
  FakeSocket.last.greet();
  expect(FakeSocket.last.said).toEqual([{ type: "subscribe", channel: "job:1", since: "5:1:0" }]);
  expect(one.take()).toEqual([]);
});

test("a thousand channels come back at a pace, and at half of it after 4008", async () => {
  const client = make();
  for (let index = 0; index < 1000; index += 1) client.subscribe(`job:${index}`);
  await settled();
  FakeSocket.last.greet();
  expect(FakeSocket.last.said.length).toBe(901);
  await vi.advanceTimersByTimeAsync(1000);
  expect(FakeSocket.last.said.length).toBe(941);
  await vi.advanceTimersByTimeAsync(2000);
  expect(FakeSocket.last.said.length).toBe(1000);
  FakeSocket.last.end(4008);
  await vi.advanceTimersByTimeAsync(750);
  FakeSocket.last.greet();
  expect(FakeSocket.last.said.length).toBe(451);
  await vi.advanceTimersByTimeAsync(1000);
  expect(FakeSocket.last.said.length).toBe(471);
});

describe("letting go", () => {
  test("is a second after the last subscriber, of the channel and of the connection", async () => {
    const { client, subscription, socket } = await live();
    const other = client.subscribe("job:2");
    other.unsubscribe();
    await vi.advanceTimersByTimeAsync(1000);
    expect(socket.said.slice(1)).toEqual([
      { type: "subscribe", channel: "job:2" },
      { type: "unsubscribe", channel: "job:2" },
    ]);
    subscription.unsubscribe();
    await vi.advanceTimersByTimeAsync(999);
    expect(socket.isClosed).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect([socket.isClosed, client.status.state]).toEqual([true, "idle"]);
    client.subscribe("job:1");
    await settled();
    expect(FakeSocket.all.length).toBe(2);
    expect(vi.getTimerCount()).toBe(1);
  });

  test("is not done where somebody comes in time", async () => {
    const { client, subscription, socket } = await live();
    subscription.unsubscribe();
    const again = client.subscribe("job:1");
    again.unsubscribe();
    client.subscribe("job:1", listener().options);
    await vi.advanceTimersByTimeAsync(3000);
    expect([socket.said, socket.isClosed]).toEqual([
      [{ type: "subscribe", channel: "job:1" }],
      false,
    ]);
  });

  test("while connecting leaves nothing behind", async () => {
    const client = make({
      getToken: () => new Promise((resolve) => setTimeout(resolve, 100, "t")),
    });
    client.subscribe("job:1");
    await settled();
    client.close();
    await vi.advanceTimersByTimeAsync(1000);
    expect([FakeSocket.all.length, vi.getTimerCount(), client.status.state]).toEqual([
      0,
      0,
      "closed",
    ]);
    const late = listener();
    client.subscribe("job:1", late.options);
    client.reconnect();
    await vi.advanceTimersByTimeAsync(0);
    expect([late.take(), FakeSocket.all.length]).toEqual([
      [["error", "closed", "the client is closed; make another"]],
      0,
    ]);
  });

  test("while tabs.js is loaded is idle", async () => {
    const client = make({ share: true, lingerMs: 0 });
    client.subscribe("job:1").unsubscribe();
    vi.advanceTimersByTime(0);
    expect(client.status.state).toBe("connecting");
    await import("../../../broker/browser/tabs.js");
    await settled();
    expect([client.status.state, FakeSocket.all]).toEqual(["idle", []]);
  });

  test("before `subscribed` came, and coming back, hears the new answer only", async () => {
    const client = make({ lingerMs: 0 });
    client.subscribe("job:9");
    client.subscribe("job:1").unsubscribe();
    await settled();
    const socket = FakeSocket.last;
    socket.greet();
    await vi.advanceTimersByTimeAsync(0);
    const one = listener();
    client.subscribe("job:1", one.options);
    socket.subscribed("job:1", "5:1:0");
    socket.event("job:1", "5:2:0", "old");
    socket.say({ type: "unsubscribed", name: "job:1", success: true });
    socket.subscribed("job:1", "5:3:0");
    socket.event("job:1", "5:4:0", "new");
    expect(one.take()).toEqual([
      ["subscribed", "5:3:0", false],
      ["new", "5:4:0"],
    ]);
  });
});

test("to the daemon a type alone is all its channels: the others are asked for again", async () => {
  const { client, one, socket } = await live({ lingerMs: 0 });
  const all = client.subscribe("job");
  socket.subscribed("job", "7:1:0");
  all.unsubscribe();
  await vi.advanceTimersByTimeAsync(0);
  expect(socket.take("unsubscribe")).toEqual([]);
  client.subscribe("job", { since: "7:0:0" });
  expect(socket.said.slice(2)).toEqual([
    { type: "unsubscribe", channel: "job" },
    { type: "subscribe", channel: "job", since: "7:0:0" },
    { type: "subscribe", channel: "job:1", since: "5:1:0" },
  ]);
  expect(one.take()).toEqual([]);
});

test("a handler that throws is the page's error, and the others get theirs", async () => {
  const thrown = [];
  vi.stubGlobal("queueMicrotask", (task) => {
    try {
      task();
    } catch (error) {
      thrown.push(error.message);
    }
  });
  const { client, one, socket } = await live();
  client.subscribe("job:1", {
    onEvent() {
      throw new Error("mine");
    },
  });
  const two = listener();
  client.subscribe("job:1", two.options);
  socket.event("job:1", "5:2:0", "x");
  expect(thrown).toEqual(["mine"]);
  expect([one.take(), two.take().at(-1)]).toEqual([[["x", "5:2:0"]], ["x", "5:2:0"]]);
});

test("an event for the user is on no channel", async () => {
  const onUserEvent = vi.fn();
  const { one, socket } = await live({ onUserEvent });
  socket.event(null, null, { type: "notice" });
  expect([onUserEvent.mock.calls, one.take()]).toEqual([[[{ type: "notice" }]], []]);
});

test("bad options are refused with what to write", () => {
  expect(() => createClient({ transport: "carrier pigeon" })).toThrow(
    'transport is "auto", "websocket" or "sse"',
  );
  expect(() => createClient({ url: "http://" })).toThrow('url "http://": write https://host');
  expect(() => createClient().subscribe("a")).toThrow('url "/": write https://host here');
  expect(() => createClient({ getToken: "abc" })).toThrow(
    "getToken is a function that gives a token",
  );
});
