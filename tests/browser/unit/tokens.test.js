// Tokens over WebSocket: the first message, once more after `bad_token`, renewed in time.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { make } from "./socket_client.js";
import { FakeSocket, listener, now, restoreWires, settled, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

describe("a token", () => {
  test("is the first message, and nothing is asked for before it counts", async () => {
    const client = make({ getToken: async () => "t1" });
    client.subscribe("job:1");
    await settled();
    const socket = FakeSocket.last;
    expect(socket.url).toBe("wss://events.test/broker/ws");
    socket.greet();
    expect([socket.said, client.status.state]).toEqual([
      [{ type: "authenticate", token: "t1" }],
      "connecting",
    ]);
    socket.say({ type: "authenticated", userId: "ann", expiresAt: null, timestamp: now() });
    expect([socket.said[1], client.status.state]).toEqual([
      { type: "subscribe", channel: "job:1" },
      "open",
    ]);
  });

  test("is not looked at where authentication is off", async () => {
    const client = make({ getToken: () => "t1" });
    client.subscribe("job:1");
    await settled();
    FakeSocket.last.greet();
    FakeSocket.last.say({
      type: "error",
      code: "bad_command",
      message: "authentication is off here",
    });
    expect(FakeSocket.last.said[1]).toEqual({ type: "subscribe", channel: "job:1" });
  });

  test.each([
    [["t1", "t1"], 1],
    [["t1", null], 1],
    [["t1", "t2", "t3"], 2],
  ])("that does not count is asked for once more: %j", async (tokens, sent) => {
    const getToken = vi.fn(() => tokens.shift());
    const client = make({ getToken });
    const one = listener();
    client.subscribe("job:1", one.options);
    await settled();
    for (let count = 0; count < 3; count += 1) {
      if (count === 0) FakeSocket.last.greet();
      FakeSocket.last.say({ type: "error", code: "bad_token", message: "the token is over" });
      await settled();
      if (client.status.state === "failed") break;
    }
    expect(FakeSocket.last.take("authenticate").length).toBe(sent);
    expect(client.status).toMatchObject({
      state: "failed",
      error: { code: "bad_token", message: "the token is over" },
    });
    expect([getToken.mock.calls.length, FakeSocket.last.isClosed, one.take()]).toEqual([
      2,
      true,
      [],
    ]);
    await vi.advanceTimersByTimeAsync(60000);
    expect(FakeSocket.all.length).toBe(1);
  });

  test("is renewed before it is over, by the daemon's clock", async () => {
    const tokens = ["t1", "t1", "t2"];
    const client = make({ getToken: () => tokens.shift() });
    client.subscribe("job:1");
    await settled();
    const socket = FakeSocket.last;
    socket.greet();
    const told = { type: "authenticated", timestamp: "2000-01-01T00:00:00Z" };
    socket.say({ ...told, expiresAt: "2000-01-01T00:05:00Z" });
    const heartbeats = setInterval(
      () => socket.isClosed || socket.say({ type: "heartbeat" }),
      20000,
    );
    await vi.advanceTimersByTimeAsync(269999);
    expect(tokens).toEqual(["t1", "t2"]);
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.take("authenticate")).toEqual([{ type: "authenticate", token: "t1" }]);
    // The same one is no use; the daemon ends it, and a fresh one is asked for at once.
    socket.end(4402, "token expired");
    await vi.advanceTimersByTimeAsync(0);
    FakeSocket.last.greet();
    expect(FakeSocket.last.said).toEqual([{ type: "authenticate", token: "t2" }]);
    clearInterval(heartbeats);
  });

  test("that never comes is given up after 10 s, and asked for again", async () => {
    const getToken = vi.fn(() => new Promise(() => {}));
    const client = make({ getToken });
    client.subscribe("job:1");
    await vi.advanceTimersByTimeAsync(9999);
    expect(client.status.state).toBe("connecting");
    await vi.advanceTimersByTimeAsync(1);
    expect(client.status).toMatchObject({
      state: "waiting",
      error: { code: "no_token", message: "getToken failed: it gave none in 10 s" },
    });
    await vi.advanceTimersByTimeAsync(750);
    expect([getToken.mock.calls.length, FakeSocket.all.length]).toEqual([2, 0]);
  });

  test("that is needed and not there fails, as does getToken, which is asked again", async () => {
    const client = make();
    client.subscribe("job:1");
    await settled();
    FakeSocket.last.greet();
    FakeSocket.last.say({ type: "error", code: "unauthenticated", message: "a token comes first" });
    expect(client.status).toMatchObject({ state: "failed", error: { code: "unauthenticated" } });

    const other = make({
      getToken: vi.fn().mockRejectedValueOnce(new Error("offline")).mockReturnValue("t"),
    });
    other.subscribe("job:1");
    await settled();
    expect(other.status).toMatchObject({
      state: "waiting",
      error: { code: "no_token", willRetry: true },
    });
    await vi.advanceTimersByTimeAsync(750);
    expect(FakeSocket.all.length).toBe(2);
  });
});
