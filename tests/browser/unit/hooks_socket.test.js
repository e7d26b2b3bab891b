// @vitest-environment happy-dom
// Components over one WebSocket: what waits for it, and where each of them is.

import { act, createElement } from "react";
import { expect, test, vi } from "vitest";

import * as hooks from "@broker/client/react";
import { client, frame, render, root, seen, setStage } from "./hooks_stage.js";

setStage();

test("a component's messages wait for the socket, up to a bound that is told", async () => {
  const told = [];
  const sockets = [];
  vi.stubGlobal(
    "WebSocket",
    class {
      sent = [];
      bufferedAmount = 0;
      readyState = 0;
      constructor(url) {
        this.url = url;
        sockets.push(this);
      }
      send(text) {
        this.sent.push(text);
      }
      close() {}
    },
  );
  const onError = ({ code }) => told.push(code);
  await render("useWebSocket", "wss://events.example.com/ws", { onError });
  const sent = Array.from({ length: 101 }, (_, n) => seen.send({ n }));
  expect([sent.indexOf(false), told]).toEqual([100, ["send_queue_full"]]);
  await act(() => seen.subscribe({ type: "job_progress", id: "1" }));
  const [socket] = sockets;
  const hear = (message) => act(() => socket.onmessage({ data: JSON.stringify(message) }));
  socket.readyState = 1;
  await act(() => socket.onopen());
  await hear({ type: "connected", clientId: "ws_1" });
  expect(socket.sent.length).toBe(101);
  const channel = { type: "job_progress", id: "1" };
  expect(JSON.parse(socket.sent[0])).toEqual({ type: "subscribe", channel });
  expect(socket.sent.slice(1).map((text) => JSON.parse(text).n)).toEqual([...Array(100).keys()]);
  // It goes on from the last event after a cut.
  await hear({ type: "subscribed", name: "job_progress:1", position: "1:1:1" });
  await hear({ channel: "job_progress:1", position: "1:2:2", event: { type: "job_progress" } });
  await frame();
  expect(seen.data).toEqual({ type: "job_progress" });
  await act(() => socket.onclose({ code: 1012, reason: "" }));
  await act(() => vi.advanceTimersByTime(2000));
  sockets[1].readyState = 1;
  await act(() => sockets[1].onopen());
  expect(sockets[1].sent.map((text) => JSON.parse(text).since)).toEqual(["1:2:2"]);
  expect(sockets.length).toBe(2);
  await act(() => sockets[1].onclose({ code: 4006, reason: "disconnected" }));
  await frame();
  expect([seen.status, seen.isConnected]).toEqual(["failed", false]);
  await act(() => seen.connect());
  expect(sockets.length).toBe(3);
  vi.unstubAllGlobals();
});

test("components that share a socket have places of their own", async () => {
  const sockets = [];
  vi.stubGlobal(
    "WebSocket",
    class {
      sent = [];
      bufferedAmount = 0;
      readyState = 1;
      constructor() {
        sockets.push(this);
      }
      send(text) {
        this.sent.push(JSON.parse(text));
      }
      close() {}
    },
  );
  const results = {};
  function Member({ name }) {
    results[name] = hooks.useWebSocket("wss://events.example.com/ws");
    return null;
  }
  const members = ["first", "second"].map((name) => createElement(Member, { key: name, name }));
  await act(() => root.render(createElement(hooks.BrokerProvider, { client }, members)));
  const [socket] = sockets;
  const hear = (message) => act(() => socket.onmessage({ data: JSON.stringify(message) }));
  const event = (n) =>
    hear({ channel: "job_progress:1", position: `1:${n}:1`, event: { type: "job_progress", n } });
  await act(() => socket.onopen());
  await hear({ type: "connected", clientId: "ws_1" });
  await act(() => results.first.subscribe("job_progress:1"));
  await hear({ type: "subscribed", name: "job_progress:1", position: "1:0:1", replay: 1 });
  await event(1);
  // Who comes later gets what the daemon would replay.
  await act(() => results.second.subscribe("job_progress:1"));
  await frame();
  expect([results.first.data.n, results.second.data.n, sockets.length]).toEqual([1, 1, 1]);
  expect(socket.sent.filter(({ type }) => type === "subscribe").length).toBe(1);
  // Who was away while the other read on is brought up from its own place.
  await act(() => results.second.disconnect());
  await event(2);
  await act(() => results.second.connect());
  expect(socket.sent.slice(-2)).toEqual([
    { type: "unsubscribe", channel: "job_progress:1" },
    { type: "subscribe", channel: "job_progress:1", since: "1:1:1" },
  ]);
  await event(3); // of the old subscription: passed over
  await hear({ type: "unsubscribed", name: "job_progress:1", success: true });
  const start = { name: "job_progress:1", position: "1:1:1", recovered: true, replay: 1 };
  await hear({ type: "subscribed", ...start });
  await event(2);
  await frame();
  expect([results.first.data.n, results.second.data.n]).toEqual([2, 2]);
  await event(3);
  await frame();
  expect([results.first.data.n, results.second.data.n]).toEqual([3, 3]);
  vi.unstubAllGlobals();
});
