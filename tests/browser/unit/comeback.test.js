// Coming back: how long it waits, from what, and what a page does that slept or was away.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { live, make } from "./socket_client.js";
import { FakeSocket, restoreWires, settled, stubPage, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

describe("waiting", () => {
  test("is full jitter between 0.5 s and a bound that doubles up to 20 s, for ever", async () => {
    for (const [random, low] of [
      [0, true],
      [0.999999, false],
    ]) {
      const client = make();
      Math.random.mockReturnValue(random);
      client.subscribe("job:1");
      await settled();
      const waits = [];
      for (let attempt = 1; attempt <= 12; attempt += 1) {
        FakeSocket.last.end();
        expect(client.status).toMatchObject({ state: "waiting", attempt });
        waits.push(client.status.nextRetryAt - Date.now());
        await vi.advanceTimersByTimeAsync(waits.at(-1) + 1);
        expect(client.status.state).toBe("connecting");
      }
      const bounds = [1000, 2000, 4000, 8000, 16000, ...Array(7).fill(20000)];
      if (low) expect(waits).toEqual(Array(12).fill(500));
      else expect(waits.map(Math.round)).toEqual(bounds);
      client.close();
    }
  });

  test("starts anew once a connection lasted, not as soon as it was accepted", async () => {
    const client = make();
    client.subscribe("job:1");
    await settled();
    for (const attempt of [1, 2, 3]) {
      FakeSocket.last.greet();
      FakeSocket.last.end();
      expect(client.status.attempt).toBe(attempt);
      await vi.advanceTimersByTimeAsync(client.status.nextRetryAt - Date.now());
    }
    FakeSocket.last.greet();
    await vi.advanceTimersByTimeAsync(5000);
    FakeSocket.last.end();
    expect(client.status.attempt).toBe(1);
  });

  test("honours what the daemon asks for, once", async () => {
    const { client, socket } = await live();
    socket.say({ type: "disconnected", message: "Server shutting down", reconnectInMs: 7000 });
    socket.end(1012, "server shutting down");
    expect(client.status).toMatchObject({
      nextRetryAt: Date.now() + 7000,
      error: { message: "server shutting down" },
    });
    await vi.advanceTimersByTimeAsync(7000);
    FakeSocket.last.end();
    expect(client.status.nextRetryAt - Date.now()).toBe(500 + 0.5 * 1500);
  });

  test("ends after as many attempts as are allowed, until reconnect()", async () => {
    const client = make({ backoff: { attempts: 1, minMs: 100, maxMs: 100 } });
    client.subscribe("job:1");
    await settled();
    FakeSocket.last.end();
    await vi.advanceTimersByTimeAsync(100);
    FakeSocket.last.end();
    expect(client.status).toMatchObject({
      state: "failed",
      error: { willRetry: false },
      nextRetryAt: null,
    });
    await vi.advanceTimersByTimeAsync(60000);
    expect(FakeSocket.all.length).toBe(2);
    client.reconnect();
    await settled();
    FakeSocket.last.greet();
    expect(client.status).toMatchObject({ state: "open", error: null });
  });
});

test.each([1002, 1007, 1009, 4006, 4401, 4403])(
  "%i is not worth coming back from",
  async (code) => {
    const { client, socket } = await live();
    socket.end(code, "why");
    expect(client.status).toMatchObject({
      state: "failed",
      error: { status: code, message: "why", willRetry: false },
    });
    await vi.advanceTimersByTimeAsync(60000);
    expect(FakeSocket.all.length).toBe(1);
  },
);

test.each([1000, 1001, 1006, 1011, 1012, 4001, 4002, 4003, 4008, 4402, 4429])(
  "%i is",
  async (code) => {
    const { client, socket } = await live();
    socket.end(code);
    expect(client.status).toMatchObject({
      state: "waiting",
      error: { status: code, willRetry: true },
    });
  },
);

describe("a page", () => {
  test.each(["online", "pageshow", "visible"])("that is back (%s) does not wait", async (event) => {
    const page = stubPage();
    const { client, socket } = await live();
    page.document.hidden = true;
    socket.end();
    event === "visible" ? page.becomesVisible() : page.happens(event);
    expect(client.status.state).toBe("connecting");
    await settled();
    expect(FakeSocket.all.length).toBe(2);
    client.close();
    page.happens("online");
    await vi.advanceTimersByTimeAsync(60000);
    expect(FakeSocket.all.length).toBe(2);
  });

  test("that is back asks whether its connection lives, and cuts it if not", async () => {
    const page = stubPage();
    const { client, socket } = await live();
    page.happens("online");
    expect(socket.take("ping").length).toBe(1);
    socket.say({ type: "pong" });
    await vi.advanceTimersByTimeAsync(5000);
    expect(socket.isClosed).toBe(false);
    page.becomesVisible();
    await vi.advanceTimersByTimeAsync(4999);
    expect(socket.isClosed).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect([socket.isClosed, client.status.error.code]).toEqual([true, "silent"]);
  });

  test.each([
    ["pagehide", "pageshow"],
    ["freeze", "resume"],
  ])("hangs up at %s, and is back at %s", async (hides, wakes) => {
    const page = stubPage();
    const { client, socket } = await live();
    page.happens(hides);
    expect([socket.isClosed, client.status]).toMatchObject([
      true,
      { state: "waiting", error: null },
    ]);
    page.happens(wakes);
    await settled();
    FakeSocket.last.greet();
    expect(FakeSocket.last.said).toEqual([{ type: "subscribe", channel: "job:1", since: "5:1:0" }]);
  });
});

describe("the watchdog", () => {
  test("asks after 35 s of silence, and cuts 5 s later", async () => {
    const { client, socket } = await live();
    await vi.advanceTimersByTimeAsync(34999);
    expect(socket.take("ping")).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.take("ping").length).toBe(1);
    await vi.advanceTimersByTimeAsync(5000);
    expect([socket.isClosed, client.status.state]).toEqual([true, "waiting"]);
  });

  test("asks at once after sleep, and does not cut what was only frozen", async () => {
    const { socket } = await live();
    vi.setSystemTime(Date.now() + 3600000);
    await vi.advanceTimersByTimeAsync(5000);
    expect(socket.take("ping").length).toBe(1);
    vi.setSystemTime(Date.now() + 3600000);
    await vi.advanceTimersByTimeAsync(5000);
    expect([socket.take("ping").length, socket.isClosed]).toEqual([1, false]);
    socket.say({ type: "pong" });
    await vi.advanceTimersByTimeAsync(30000);
    expect(socket.isClosed).toBe(false);
  });

  test("cuts what is dead in a hidden page too, where every tick is late", async () => {
    const { socket } = await live();
    for (let minute = 0; minute < 3; minute += 1) {
      vi.setSystemTime(Date.now() + 60000);
      await vi.advanceTimersByTimeAsync(5000);
    }
    expect(socket.isClosed).toBe(true);
  });

  test("gives a handshake 5 s", async () => {
    const client = make();
    client.subscribe("job:1");
    await settled();
    FakeSocket.last.open();
    await vi.advanceTimersByTimeAsync(5000);
    expect([FakeSocket.last.isClosed, client.status.state]).toEqual([true, "waiting"]);
  });
});
