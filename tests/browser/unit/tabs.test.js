// Several tabs, one connection: who leads, and what each tab has when the leader goes, freezes or
// is slow.

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { BrokerError } from "../../../broker/browser/errors.js";
import { World } from "./tabs_world.js";

const CHANNEL = "job_progress:1";

let world;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "Date"] });
  world = new World();
});

afterEach(() => vi.useRealTimers());

/** All that can happen without a clock happens. */
async function settle() {
  for (let turn = 0; turn < 200; turn += 1) await null;
}

async function pass(milliseconds) {
  for (let left = milliseconds; left > 0; left -= 250) {
    vi.advanceTimersByTime(250);
    await settle();
  }
}

async function open(count, options) {
  const tabs = Array.from({ length: count }, () => world.open([CHANNEL], options));
  await settle();
  return tabs;
}

test("three tabs have one connection, and each has every event once", async () => {
  const tabs = await open(3);
  world.daemon.publish(CHANNEL, 1, 2, 3);
  await settle();
  expect(tabs.map((tab) => tab.had)).toEqual(
    Array(3).fill([["subscribed", CHANNEL, "1:0:1"], 1, 2, 3]),
  );
  expect(world.daemon.connections).toBe(1);
  expect(tabs.map((tab) => tab.isLeading)).toEqual([true, false, false]);
  expect(tabs.map((tab) => tab.status.clientId)).toEqual(["ws_1", "ws_1", "ws_1"]);
  expect(tabs[1].states.at(-1)).toBe("open");
});

test.each([
  ["dies", (tab) => world.kill(tab)],
  ["closes its client", (tab) => tab.link.close()],
])("a leader that %s is followed by another, and nothing is missing", async (_, end) => {
  const tabs = await open(3);
  world.daemon.publish(CHANNEL, 1);
  await settle();
  world.daemon.publish(CHANNEL, 2);
  end(tabs[0]);
  world.daemon.publish(CHANNEL, 3);
  await settle();
  world.daemon.publish(CHANNEL, 4);
  await settle();
  expect(tabs.slice(1).map((tab) => tab.events)).toEqual([
    [1, 2, 3, 4],
    [1, 2, 3, 4],
  ]);
  expect(tabs.map((tab) => tab.isLeading)).toEqual([false, true, false]);
  expect(tabs[1].states).toEqual(["connecting", "open"]);
  expect(world.daemon.clients.size).toBe(1);
});

test("a leader that is frozen is deposed, and steps down when it thaws", async () => {
  const tabs = await open(3);
  world.daemon.publish(CHANNEL, 1);
  await settle();
  tabs[0].tasks.isFrozen = true;
  world.daemon.publish(CHANNEL, 2);
  await pass(2500);
  expect(world.daemon.connections).toBe(1);
  await pass(4000);
  world.daemon.publish(CHANNEL, 3);
  await settle();
  expect(tabs.slice(1).map((tab) => tab.events)).toEqual([
    [1, 2, 3],
    [1, 2, 3],
  ]);
  tabs[0].tasks.thaw();
  await settle();
  world.daemon.publish(CHANNEL, 4);
  await pass(5000);
  expect(tabs.map((tab) => tab.events)).toEqual(Array(3).fill([1, 2, 3, 4]));
  expect(tabs.filter((tab) => tab.isLeading).length).toBe(1);
  expect(tabs[0].isLeading).toBe(false);
  expect(world.daemon.clients.size).toBe(1);
});

test("a leader that answers is not deposed", async () => {
  const tabs = await open(2);
  await pass(60_000);
  expect(world.daemon.connections).toBe(1);
  expect(tabs.map((tab) => tab.opened)).toEqual([1, 1]);
});

test("two that depose a leader at the same time agree on one of them", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  const tabs = await open(4);
  tabs[0].tasks.isFrozen = true;
  await pass(10_000);
  world.daemon.publish(CHANNEL, 1);
  await settle();
  expect(tabs.slice(1).map((tab) => tab.events)).toEqual([[1], [1], [1]]);
  expect(tabs.slice(1).filter((tab) => tab.isLeading).length).toBe(1);
  expect(world.daemon.clients.size).toBe(2); // that of the frozen tab too
  vi.restoreAllMocks();
});

test("tabs of other users, daemons and keys have connections of their own", async () => {
  await open(2);
  await open(2, { userId: "u1" });
  await open(2, { shareKey: "k" });
  await open(2, { url: "https://other.test" });
  expect(world.daemon.connections).toBe(4);
});

test("a tab that does not read is given up at a bound, and goes on from its place", async () => {
  const [leader, slow] = await open(2);
  world.daemon.publish(CHANNEL, 0);
  await settle();
  slow.tasks.isFrozen = true;
  const all = Array.from({ length: 6000 }, (_, number) => number + 1);
  world.daemon.publish(CHANNEL, ...all);
  await settle();
  expect(leader.events.length).toBe(6001);
  expect(slow.tasks.waiting.length).toBe(1);
  expect([...world.daemon.clients][0].subscriptions.size).toBe(1);
  slow.tasks.thaw();
  await settle();
  expect(slow.events).toEqual([0, ...all]);
  expect(slow.opened).toBe(2);
  expect([...world.daemon.clients][0].subscriptions.size).toBe(2);
});

test("what the leader's client replays begins behind the place that the tab is told", async () => {
  const [leader, tab] = await open(2);
  const [client] = leader.clients;
  tab.had.length = 0;
  tab.link.ask(CHANNEL);
  await settle();
  const { handlers } = [...client.subscriptions].at(-1);
  tab.had.length = 0;
  handlers.onSubscribed({ position: "7:12:5", recovered: false, replay: 2 });
  handlers.onEvent(1, { channel: CHANNEL, position: "7:11:4" });
  handlers.onEvent(2, { channel: CHANNEL, position: "7:12:5" });
  await settle();
  expect(tab.had).toEqual([["subscribed", CHANNEL, "7:10:0"], 1, 2]);
});

test("a leader without channels leads on until no tab has one", async () => {
  const [leader, follower] = await open(2);
  leader.link.drop(CHANNEL);
  world.daemon.publish(CHANNEL, 1);
  await settle();
  expect(follower.events).toEqual([1]);
  expect(leader.isLeading).toBe(true);
  follower.link.drop(CHANNEL);
  await settle();
  expect(world.daemon.clients.size).toBe(0);
  expect([leader, follower].map((tab) => tab.status.state)).toEqual(["idle", "idle"]);
  expect(world.channels.size).toBe(0);
  follower.link.ask(CHANNEL);
  await settle();
  expect(follower.status.state).toBe("open");
  expect(world.daemon.connections).toBe(2);
});

test("what an older question brings is passed over", async () => {
  const [, tab] = await open(2);
  world.daemon.publish(CHANNEL, 1, 2);
  await settle();
  tab.had.length = 0;
  tab.tasks.isFrozen = true;
  world.daemon.publish(CHANNEL, 3);
  await settle();
  expect(tab.tasks.waiting.length).toBe(1);
  tab.places.set(CHANNEL, "1:1:1");
  tab.link.ask(CHANNEL);
  tab.tasks.thaw();
  await settle();
  expect(tab.had).toEqual([["subscribed", CHANNEL, "1:1:1"], 2, 3]);
  tab.link.drop(CHANNEL);
  world.daemon.publish(CHANNEL, 4);
  await settle();
  expect(tab.events).toEqual([2, 3]);
});

test("a tab that is gone costs the leader nothing", async () => {
  const [leader, follower] = await open(2);
  expect(leader.clients[0].subscriptions.size).toBe(2);
  world.kill(follower);
  await settle();
  expect(leader.clients[0].subscriptions.size).toBe(1);
  // The leader's own letterbox and the one that all hear.
  expect(world.channels.size).toBe(2);
});

test("refusals, gaps, events for the user and the status reach every tab whole", async () => {
  const tabs = await open(2);
  const [client] = tabs[0].clients;
  const nowhere = { from: null, to: null, timestamp: "" };
  const gap = { type: "gap", channel: CHANNEL, reason: "trimmed", ...nowhere };
  for (const tab of tabs) tab.had.length = 0;
  for (const { handlers } of client.subscriptions) handlers.onGap(gap);
  client.options.onUserEvent({ n: 1 });
  for (const { handlers } of client.subscriptions) {
    handlers.onError(new BrokerError("forbidden", "no rule", { status: 403 }));
  }
  const error = new BrokerError("unreachable", "nobody there", { willRetry: true });
  client.become({ state: "waiting", attempt: 2, nextRetryAt: 5000, error });
  await settle();
  for (const tab of tabs) {
    expect(tab.had).toEqual([gap, ["user", { n: 1 }], [CHANNEL, "forbidden", "no rule"]]);
    expect(tab.status).toEqual({
      state: "waiting",
      transport: "websocket",
      attempt: 2,
      nextRetryAt: 5000,
      error,
      clientId: "ws_1",
    });
    expect(tab.status.error.willRetry).toBe(true);
    expect(tab.status.error).toBeInstanceOf(BrokerError);
  }
});

test("a tab asks for the attempt that the leader's slow timer is late with", async () => {
  vi.setSystemTime(0);
  const [leader, follower] = await open(2);
  const [client] = leader.clients;
  client.become({ state: "waiting", nextRetryAt: 10_000 });
  await pass(10_000);
  expect(client.reconnects).toBe(0);
  await pass(5000);
  expect(client.reconnects).toBeGreaterThan(0);
  client.become({ state: "failed", nextRetryAt: null });
  await settle();
  client.reconnects = 0;
  await pass(5000);
  expect(client.reconnects).toBe(0);
  follower.link.reconnect();
  leader.link.reconnect();
  await settle();
  expect(client.reconnects).toBe(2);
});

test("a link that is closed says nothing more", async () => {
  const [leader, follower] = await open(2);
  follower.link.close();
  leader.link.close();
  await pass(5000);
  expect(world.channels.size).toBe(0);
  expect(world.daemon.clients.size).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
});
