// @vitest-environment happy-dom
// The hooks over a client that is none: what they ask of it, and what bounds what they keep.

import { act, createElement } from "react";
import { expect, test, vi } from "vitest";

import * as hooks from "@broker/client/react";
import { client, frame, publish, publishAt, render, renders, root, seen, setStage } from "./hooks_stage.js";

setStage();

test("who comes back goes on; StrictMode subscribes once at a time", async () => {
  await render("useChannel", "a:1");
  expect(client.subscriptions.map(({ isGone, since }) => [isGone, since])).toEqual([
    [true, undefined],
    [false, undefined],
  ]);
  await act(() => publishAt("1:2:3", {}));
  await act(() => seen.disconnect());
  expect([client.live, seen.status, seen.isLoading]).toEqual([[], "idle", false]);
  await act(() => seen.connect());
  expect(client.live[0].since).toBe("1:2:3");
});

test("the state of the connection is the hook's", async () => {
  await render("useChannel", "a:1");
  await frame();
  expect([seen.isConnected, seen.isLoading, seen.status]).toEqual([false, true, "open"]);
  client.live[0].onSubscribed({ position: null, recovered: false, replay: 0 });
  await frame();
  expect([seen.isConnected, seen.isLoading]).toEqual([true, false]);
  client.become({ state: "waiting", attempt: 2, nextRetryAt: 7 });
  await frame();
  expect(seen).toMatchObject({ isConnected: false, isLoading: false, status: "waiting" });
  expect(seen).toMatchObject({ attempt: 2, nextRetryAt: 7 });
  await act(() => seen.reconnect());
  expect(client.reconnects).toBe(1);
  // Open again, and not yet subscribed.
  client.become({});
  await frame();
  expect([seen.isConnected, seen.status]).toEqual([false, "open"]);
  const gap = { type: "gap", channel: "a:1", reason: "trimmed", from: null, to: null };
  client.live[0].onGap(gap);
  await frame();
  expect(seen.gap).toBe(gap);
  // An open connection is others' too: the channel alone is asked for again.
  const before = client.live[0];
  await act(() => seen.reconnect());
  expect([client.reconnects, before.isGone, client.live.length]).toEqual([1, true, 1]);
});

test("a channel that cannot be had, also where the client says so at once", async () => {
  const error = Object.assign(new Error("no"), { code: "forbidden", willRetry: false });
  const subscribe = client.subscribe;
  client.subscribe = function (channel, handlers) {
    const subscription = subscribe.call(this, channel, handlers);
    handlers.onError(error);
    return subscription;
  };
  await render("useLatest", "a:1");
  await frame();
  expect([seen, client.live]).toEqual([null, []]);
  await render("useJobProgress", "1");
  await frame();
  expect([seen.error, seen.isLoading, client.live]).toEqual([error, false, []]);
});

test("a thousand events between two frames are one render; without frames a timer", async () => {
  const asked = vi.spyOn(globalThis, "requestAnimationFrame").mockReturnValue(1);
  await render("useChannel", "a:1");
  const before = renders;
  publish(...Array.from({ length: 1000 }, (_, n) => n));
  expect(asked).toHaveBeenCalledTimes(1);
  await frame();
  // StrictMode renders twice.
  expect([renders - before, seen.data, seen.events.length, seen.events[0]]).toEqual([2, 999, 100, 900]);
  await act(() => seen.clear());
  expect(seen.events).toEqual([]);
  asked.mockRestore();
});

test("what is no event of the hook is passed over", async () => {
  const strange = [null, 7, "text", [], {}, { type: "other" }];
  const hooksOfChannels = [
    ["useJobProgress", "job"],
    ["useCampaignMetricsStream", "metrics"],
    ["useRenderProgressStream", "stage"],
    ["useABTestStream", "winner"],
    ["useLiveMetrics", "latest"],
  ];
  for (const [hook, field] of hooksOfChannels) {
    await render(hook, `of ${hook}`);
    publish(...strange);
    await frame();
    expect([hook, seen[field], seen.error]).toEqual([hook, null, null]);
  }
  await render("useRealtimeAlerts", "u");
  publish(...strange, { type: "alert", title: "without a name" });
  publish({ type: "alert", title: "another" });
  await frame();
  expect(seen.alerts.map(({ title }) => title)).toEqual(["another", "without a name"]);
  expect(new Set(seen.alerts.map(({ alertId }) => alertId)).size).toBe(2);
});

test("what piles up is bounded", async () => {
  const numbers = Array.from({ length: 300 }, (_, n) => n);
  await render("useRealtimeAlerts", "u");
  publish(...numbers.map((n) => ({ type: "alert", alertId: `a${n}` })));
  await frame();
  expect([seen.alerts.length, seen.alerts[0].alertId]).toEqual([50, "a299"]);
  await render("useLiveMetrics", "e");
  publish(...numbers.map((n) => ({ type: "live_metric_update", metric: `m${n}`, value: n })));
  await frame();
  expect([Object.keys(seen.metrics).length, seen.latest.metric, seen.metrics.m99]).toEqual([
    200,
    "m299",
    undefined,
  ]);
  await render("useABTestStream", "t");
  const results = numbers.map((n) => ({ variantId: `v${n}`, isWinner: n === 7 }));
  publish(...results.map((result) => ({ type: "ab_test_result", metrics: {}, ...result })));
  await frame();
  expect([seen.variants.length, seen.variants[0].variantId]).toEqual([100, "v200"]);
  expect(seen.winner).toBe(null);
});

test("another entity type is another feed", async () => {
  await render("useLiveMetrics", "e", "ad");
  publish({ type: "live_metric_update", metric: "ctr", entityType: "ad" });
  publish({ type: "live_metric_update", metric: "spend", entityType: "campaign" });
  await frame();
  expect(Object.keys(seen.metrics)).toEqual(["ctr"]);
  await render("useLiveMetrics", "e", "campaign");
  expect(seen.metrics).toEqual({});
});

test("no id, no subscription", async () => {
  for (const id of [null, undefined, ""]) {
    await render("useJobProgress", id);
    expect([client.subscriptions, seen.status, seen.isLoading]).toEqual([[], "idle", false]);
  }
  await render("useJobProgress", 0);
  expect(client.live.map(({ channel }) => channel)).toEqual(["job_progress:0"]);
});

test("streams and evaluations go to the provider's daemon, with its newest token", async () => {
  const asked = [];
  vi.stubGlobal("fetch", (url, { method, body, headers }) => {
    asked.push([method, url, body, headers.Authorization]);
    return new Promise(() => {});
  });
  function Page() {
    hooks.useSSE("/api/stream?channel=a:1");
    hooks.useSSE("https://other.example.com/api/stream?channel=a:1");
    council = hooks.useCouncilScoreStream("v", "t");
    return null;
  }
  let council;
  for (const token of ["old", "new"]) {
    await act(() => {
      const provider = { url: "https://events.example.com/base/", getToken: () => token };
      root.render(createElement(hooks.BrokerProvider, provider, createElement(Page)));
    });
  }
  await act(() => council.startStreaming());
  const byUrl = (one, other) => one[1].localeCompare(other[1]);
  expect(asked.slice(0, 2).sort(byUrl)).toEqual([
    ["GET", "https://events.example.com/base/api/stream?channel=a:1", undefined, "Bearer old"],
    // The token is none of its business.
    ["GET", "https://other.example.com/api/stream?channel=a:1", undefined, undefined],
  ]);
  expect(asked.slice(2)).toEqual([
    [
      "POST",
      "https://events.example.com/base/api/stream/council-score",
      '{"videoUrl":"v","transcript":"t"}',
      "Bearer new",
    ],
  ]);
  vi.unstubAllGlobals();
});

test("a stream outlives its last component for a second", async () => {
  const signals = [];
  vi.stubGlobal("fetch", (_, { signal }) => {
    signals.push(signal);
    return new Promise(() => {});
  });
  await render("useSSE", "https://events.example.com/api/stream?channel=linger:1");
  for (const waitMs of [900, 1100]) {
    await act(() => root.render(null));
    await act(() => vi.advanceTimersByTime(waitMs));
    await render("useSSE", "https://events.example.com/api/stream?channel=linger:1");
  }
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
  vi.unstubAllGlobals();
});

test("a render that runs again is asked for again; a client that gave up comes back", async () => {
  await render("useRenderProgressStream", "7");
  const done = { type: "video_render_progress", stage: "complete", progress: 1 };
  await act(() => publishAt("1:2:3", done));
  await frame();
  expect([seen.isComplete, seen.progress, client.live]).toEqual([true, 1, []]);
  await act(() => seen.reconnect());
  // Not the old end once more.
  expect([client.live[0].since, seen.stage]).toEqual(["1:2:3", null]);
  await act(() => publish({ type: "video_render_progress", stage: "rendering", progress: 0.1 }));
  await frame();
  expect([seen.isComplete, seen.progress]).toEqual([false, 0.1]);
  await act(() => client.become({ state: "failed" }));
  await act(() => seen.connect());
  expect(client.reconnects).toBe(1);
});

test("events may be anything: what a hook's type does not promise is passed over", async () => {
  const odd = [null, 7, "text", {}, [], { type: "ab_test_result" }, { type: "alert", actions: 7 }];
  const odder = [{ type: "campaign_metrics" }, { type: "live_metric_update" }, { type: "alert" }];
  const expected = {
    useABTestStream: ["variants", []],
    useCampaignMetricsStream: ["metrics", null],
    useLiveMetrics: ["metrics", {}],
    useJobProgress: ["progress", 0],
    useRenderProgressStream: ["progress", 0],
  };
  for (const [hook, [name, value]] of Object.entries(expected)) {
    await render(hook, "7");
    await act(() => publish(...odd, ...odder, { type: "ab_test_result", variantId: "A" }));
    await frame();
    expect([hook, seen[name]]).toEqual([hook, value]);
  }
  await render("useRealtimeAlerts", "7");
  await act(() => publish(...odd));
  await frame();
  expect(seen.alerts.map(({ actions }) => actions)).toEqual([null]);
});

test("what a stream says of its failure is not lost in its end", async () => {
  const words = "Missing required parameters: videoUrl";
  const failure = `event: error\ndata: {"type":"error","error":"${words}"}\n\n`;
  const type = { "Content-Type": "text/event-stream" };
  const answers = [new Response(failure, { headers: type }), new Response(null, { status: 204 })];
  vi.stubGlobal("fetch", async () => answers.shift());
  const told = [];
  const onError = ({ message }) => told.push(message);
  await render("useSSE", "https://events.example.com/api/stream/council-score", { onError });
  await vi.waitFor(() => expect(told).toEqual([words]));
  for (let turn = 0; turn < 4; turn += 1) await act(() => vi.advanceTimersByTimeAsync(2000));
  const { code, message, willRetry } = seen.error;
  expect([seen.status, code, message, willRetry]).toEqual(["closed", "stream_error", words, false]);
  expect(told).toEqual([words]);
  vi.unstubAllGlobals();
});
