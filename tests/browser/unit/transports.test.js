// `auto`: WebSocket first, SSE where it fails, and what worked last after a cut.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { gathered, make, start } from "./stream_client.js";
import { FakeRequest, FakeSocket, restoreWires, settled, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

async function began() {
  const client = make({ transport: undefined });
  client.subscribe("job:1");
  await settled();
  return client;
}

test("is WebSocket, and SSE at once where that fails, also in silence", async () => {
  for (const fails of [() => FakeSocket.last.end(), () => vi.advanceTimersByTimeAsync(5000)]) {
    const client = await began();
    const { length } = FakeRequest.all;
    await fails();
    await gathered();
    expect([FakeRequest.all.length, client.status.state, client.status.attempt]).toEqual([
      length + 1,
      "connecting",
      0,
    ]);
    await FakeRequest.last.greet([start("job:1")]);
    expect(client.status.transport).toBe("sse");
    client.close();
  }
});

test("tries both by turns, and after a cut first what worked last", async () => {
  const client = await began();
  FakeSocket.last.end();
  await gathered();
  await FakeRequest.last.fail();
  expect(client.status).toMatchObject({
    state: "waiting",
    attempt: 1,
    error: { code: "unreachable" },
  });
  await vi.advanceTimersByTimeAsync(750);
  expect([FakeSocket.all.length, FakeRequest.all.length]).toEqual([2, 1]);
  FakeSocket.last.end();
  await gathered();
  await FakeRequest.last.greet([start("job:1")]);
  await FakeRequest.last.end();
  await vi.advanceTimersByTimeAsync(client.status.nextRetryAt - Date.now());
  await gathered();
  expect([FakeSocket.all.length, FakeRequest.all.length]).toEqual([2, 3]);
  await FakeRequest.last.fail();
  await settled();
  expect([FakeSocket.all.length, client.status.state]).toEqual([3, "connecting"]);
  FakeSocket.last.greet();
  expect(client.status).toMatchObject({ state: "open", transport: "websocket" });
});

test("a restart moves nobody to SSE: a WebSocket that was open is tried three times", async () => {
  const client = await began();
  FakeSocket.last.greet();
  for (const round of [1, 2]) {
    FakeSocket.last.end(1001);
    for (const miss of [1, 2, 3]) {
      await vi.advanceTimersByTimeAsync(client.status.nextRetryAt - Date.now());
      expect([client.status.state, FakeRequest.all.length]).toEqual(["connecting", 0]);
      if (round === 1 && miss === 3) FakeSocket.last.greet();
      else FakeSocket.last.end();
    }
  }
  await gathered();
  expect([FakeSocket.all.length, FakeRequest.all.length]).toEqual([7, 1]);
  await FakeRequest.last.greet([start("job:1")]);
  expect(client.status).toMatchObject({ state: "open", transport: "sse" });
});

test("does not try the other where the first was told no", async () => {
  const client = await began();
  FakeSocket.last.end(4401, "no valid token in time");
  await gathered();
  expect([client.status.state, FakeRequest.all]).toEqual(["failed", []]);
});

test("is not turned by what says nothing of the transport", async () => {
  const tokens = [new Error("offline"), "bad", "bad", "good"];
  const getToken = async () => {
    const token = tokens.shift();
    if (token instanceof Error) throw token;
    return token;
  };
  const client = make({ transport: "auto", getToken });
  client.subscribe("job:1");
  await gathered();
  expect(client.status).toMatchObject({ state: "waiting", error: { code: "no_token" } });
  await vi.advanceTimersByTimeAsync(750);
  FakeSocket.last.greet();
  FakeSocket.last.say({ type: "error", code: "bad_token", message: "no" });
  await settled();
  expect(client.status.state).toBe("failed");
  client.reconnect();
  await gathered();
  FakeSocket.last.greet();
  expect(FakeSocket.last.said).toEqual([{ type: "authenticate", token: "good" }]);
  expect([FakeSocket.all.length, FakeRequest.all]).toEqual([2, []]);
});

test("with more channels than a stream takes asks twice whether WebSocket works", async () => {
  for (const works of [true, false]) {
    const client = make({ transport: "auto" });
    const told = [];
    const names = Array.from({ length: 40 }, (_, index) => `job:${index}`);
    for (const name of names) client.subscribe(name, { onError: () => told.push(name) });
    await settled();
    FakeSocket.last.end();
    await gathered();
    const first = FakeRequest.last;
    await first.greet(first.channels.map((name) => start(name)));
    expect([first.isAborted, told, client.status.state]).toEqual([true, [], "connecting"]);
    if (works) {
      FakeSocket.last.greet();
      expect(FakeSocket.last.said.map(({ channel }) => channel)).toEqual(names);
    } else {
      const warn = vi.spyOn(console, "warn").mockReturnValue();
      FakeSocket.last.end();
      await gathered();
      await FakeRequest.last.greet(first.channels.map((name) => start(name)));
      const { length } = FakeRequest.all;
      client.subscribe("job:40", { onError: () => told.push("job:40") });
      await gathered();
      expect([told, client.status.transport, FakeRequest.all.length]).toEqual([[], "sse", length]);
      const words = "over SSE at most 32 channels; 8 more wait for a WebSocket";
      expect(warn.mock.calls).toEqual([[`broker: ${words}`]]);
      // After a cut it begins with a WebSocket, for those that wait.
      await FakeRequest.last.end();
      await vi.advanceTimersByTimeAsync(client.status.nextRetryAt - Date.now());
      FakeSocket.last.greet();
      expect(FakeSocket.last.said.map(({ channel }) => channel)).toEqual([...names, "job:40"]);
      expect(FakeRequest.all.length).toBe(length);
    }
    client.close();
  }
});

test("is SSE where there is no WebSocket at all", async () => {
  vi.stubGlobal("WebSocket", undefined);
  await began();
  await gathered();
  expect(FakeRequest.all.length).toBe(1);
});
