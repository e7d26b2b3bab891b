// The stage of the hooks' tests: a client that is none, and a component that shows a hook.

import { act, createElement, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import * as hooks from "@broker/client/react";

globalThis.IS_REACT_ACT_ENVIRONMENT = true;

export const OPEN = { state: "open", attempt: 0, nextRetryAt: null, error: null };

function fakeClient() {
  const listeners = new Set();
  return {
    url: "https://events.example.com",
    status: OPEN,
    subscriptions: [],
    reconnects: 0,
    onStatus(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    become(status) {
      this.status = { ...OPEN, ...status };
      for (const listener of [...listeners]) listener(this.status);
    },
    subscribe(channel, handlers) {
      const subscription = {
        channel,
        ...handlers,
        // Ahead of what was delivered, as what is replayed comes a moment later.
        position: handlers.since ?? "1:9:9",
        isGone: false,
        unsubscribe: () => void (subscription.isGone = true),
      };
      this.subscriptions.push(subscription);
      return subscription;
    },
    reconnect() {
      this.reconnects += 1;
    },
    get live() {
      return this.subscriptions.filter((subscription) => !subscription.isGone);
    },
    get listenerCount() {
      return listeners.size;
    },
  };
}

export let client;
export let root;
export let seen;
export let renders;

/** A new client for each test of the file that calls this; nothing of it is left behind. */
export function setStage() {
  beforeEach(() => {
    vi.useFakeTimers();
    client = fakeClient();
    root = createRoot(document.createElement("div"));
    renders = 0;
  });

  afterEach(async () => {
    await act(() => root.unmount());
    await frame();
    expect(client.live).toEqual([]);
    expect(client.listenerCount).toBe(0);
    vi.useRealTimers();
  });
}

function Probe({ hook, args }) {
  renders += 1;
  seen = hooks[hook](...args);
  return null;
}

export const render = (hook, ...args) =>
  act(() => {
    const probe = createElement(Probe, { key: hook, hook, args });
    const tree = createElement(hooks.BrokerProvider, { client }, probe);
    root.render(createElement(StrictMode, null, tree));
  });

export const frame = () => act(() => vi.advanceTimersByTime(300));

export function publish(...events) {
  for (const event of events) client.live[0].onEvent(event, { channel: "x", position: null });
}

export const publishAt = (position, event) => client.live[0].onEvent(event, { channel: "x", position });
