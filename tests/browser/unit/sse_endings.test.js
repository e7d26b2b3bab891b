// How streams end, and what comes back: statuses, last events, tokens, silence.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { gathered, live, make, start } from "./stream_client.js";
import { FakeRequest, restoreWires, stubPage, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

describe("endings", () => {
  test("a cut comes back from each place, after the wait that the daemon asked for", async () => {
    const { client, score, first } = await live();
    await first.write("retry: 3000\n");
    await first.say({ type: "server_shutdown", message: "Server is shutting down" });
    await first.end();
    expect(client.status).toMatchObject({ state: "waiting", nextRetryAt: Date.now() + 3000 });
    await vi.advanceTimersByTimeAsync(3000);
    await gathered();
    expect(FakeRequest.last.since).toEqual(["job:1,5:1:0", "score:1,0:0:0"]);
    await FakeRequest.last.greet([start("job:1", "5:1:0", true), start("score:1", null)]);
    await FakeRequest.last.say(
      { type: "gap", channel: "score:1", reason: "no_history", from: null, to: null },
      "gap",
    );
    expect(score.take()).toEqual([
      ["subscribed", null, false],
      ["gap", "no_history", null, null],
    ]);
  });

  test.each([
    [429, { "Retry-After": "9" }, 9000],
    [503, {}, 750],
    [502, {}, 750],
    [408, {}, 750],
  ])("%i comes back after its wait", async (status, headers, waitMs) => {
    const client = make();
    client.subscribe("job:1");
    await gathered();
    await FakeRequest.last.refuse(status, { error: "Busy", detail: "full" }, headers);
    expect(client.status).toMatchObject({
      state: "waiting",
      nextRetryAt: Date.now() + waitMs,
      error: { code: "busy", status, willRetry: true },
    });
  });

  test.each([400, 403, 404, 405, 413])(
    "%i does not, where no channel is to blame",
    async (status) => {
      const client = make();
      client.subscribe("job:1");
      await gathered();
      await FakeRequest.last.refuse(status, { error: "No", detail: "why", channel: "other:1" });
      await vi.advanceTimersByTimeAsync(60000);
      expect(client.status).toMatchObject({
        state: "failed",
        error: { status, message: "answered " + status + ". why. " },
      });
      expect(FakeRequest.all.length).toBe(1);
    },
  );

  test.each([["revoked"], ["disconnected"]])("%s is the end", async (type) => {
    const { client, first } = await live();
    await first.say({ type, message: "by the operator", timestamp: "" }, type);
    await first.end();
    expect(client.status).toMatchObject({
      state: "failed",
      error: { code: type, message: "by the operator" },
    });
  });

  test("a token that is over is asked for anew, at once", async () => {
    const tokens = ["t1", "t2"];
    const { first } = await live({ getToken: () => tokens.shift() });
    await first.say({ type: "token_expired", message: "over" }, "token_expired");
    await first.end();
    await gathered();
    expect(FakeRequest.last.init.headers.Authorization).toBe("Bearer t2");
  });

  test("401 is asked again with a fresh token, once, and never with the same", async () => {
    const tokens = ["t1", "t2", "t3"];
    const client = make({ getToken: () => tokens.shift() });
    client.subscribe("job:1");
    await gathered();
    await FakeRequest.last.refuse(401);
    expect([FakeRequest.all.length, FakeRequest.last.init.headers.Authorization]).toEqual([
      2,
      "Bearer t2",
    ]);
    await FakeRequest.last.refuse(401, {
      error: "Unauthorized",
      detail: "bad signature",
      hint: "Sign in.",
    });
    expect(client.status).toMatchObject({
      state: "failed",
      error: { code: "bad_token", message: "answered 401. bad signature. Sign in." },
    });
    expect([FakeRequest.all.length, tokens]).toEqual([2, ["t3"]]);

    const other = make({ getToken: () => "same" });
    other.subscribe("job:1");
    await gathered();
    await FakeRequest.last.refuse(401);
    expect([FakeRequest.all.length, other.status.state]).toEqual([3, "failed"]);
  });

  test("a token that never comes is given up after 10 s, also the second", async () => {
    for (const tokens of [[], ["t1"]]) {
      const client = make({ getToken: () => tokens.shift() ?? new Promise(() => {}) });
      client.subscribe("job:1");
      await gathered();
      if (FakeRequest.last) await FakeRequest.last.refuse(401);
      await vi.advanceTimersByTimeAsync(9999);
      expect(client.status.state).toBe("connecting");
      await vi.advanceTimersByTimeAsync(1);
      expect(client.status).toMatchObject({ state: "waiting", error: { code: "no_token" } });
      client.close();
      expect(vi.getTimerCount()).toBe(0);
    }
  });

  test("a page that is no event stream is tried again", async () => {
    const client = make();
    client.subscribe("job:1");
    await gathered();
    await FakeRequest.last.open("text/html");
    expect([client.status.state, client.status.error.message]).toEqual([
      "waiting",
      expect.stringContaining("is no event stream"),
    ]);
  });
});

describe("silence", () => {
  test("of 45 s cuts, comments keep, and a beginning has 10 s", async () => {
    const { client, first } = await live();
    for (let count = 0; count < 5; count += 1) {
      await vi.advanceTimersByTimeAsync(15000);
      await first.write(": keep-alive\n\n");
    }
    expect(first.isAborted).toBe(false);
    await vi.advanceTimersByTimeAsync(45000 + 4999);
    expect(first.isAborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect([first.isAborted, client.status.error.code]).toEqual([true, "silent"]);
    await vi.advanceTimersByTimeAsync(1000);
    const { length } = FakeRequest.all;
    await vi.advanceTimersByTimeAsync(9000);
    expect([FakeRequest.last.isAborted, FakeRequest.all.length]).toEqual([false, length]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(FakeRequest.all[length - 1].isAborted).toBe(true);
  });

  test.each([
    [60000, 195000],
    [1000, 25000],
  ])("is three times %i ms, as the daemon says, or 10 s", async (keepAliveMs, cutMs) => {
    const client = make();
    client.subscribe("job:1");
    await gathered();
    const request = FakeRequest.last;
    await request.open();
    await request.say({ type: "connected", channels: [start("job:1")], keepAliveMs });
    await vi.advanceTimersByTimeAsync(9000);
    await request.write(": keep-alive\n\n");
    // It is looked at every 5 s, and has 5 s more.
    await vi.advanceTimersByTimeAsync(cutMs - 9001);
    expect(request.isAborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(request.isAborted).toBe(true);
  });

  test("is looked into when the page is back, if nothing was heard lately", async () => {
    const page = stubPage();
    const { first } = await live();
    await vi.advanceTimersByTimeAsync(15000);
    page.happens("online");
    await vi.advanceTimersByTimeAsync(5000);
    expect(first.isAborted).toBe(false);
    await vi.advanceTimersByTimeAsync(5000);
    page.happens("online");
    await vi.advanceTimersByTimeAsync(5000);
    expect(first.isAborted).toBe(true);
  });
});
