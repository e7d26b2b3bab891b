// What keeps a connection, with a dial of the test's own.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BrokerError } from "../../../broker/browser/errors.js";
import { Redial } from "../../../broker/browser/redial.js";
import { restoreWires, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

function dialler(options = {}) {
  const calls = [];
  const dial = (call) => {
    calls.push(call);
    return { hangUp: () => (call.isHungUp = true), wake() {} };
  };
  return { calls, redial: new Redial(dial, options) };
}

const ending = () => ({ error: new BrokerError("closed", "it broke") });

test("an old call is hung up, and what it says is not heard", () => {
  const { calls, redial } = dialler();
  redial.start();
  redial.start();
  redial.reconnect();
  expect([calls.length, calls[0].isHungUp, calls[1].isHungUp]).toEqual([2, true, undefined]);
  calls[0].opened({ clientId: "old" });
  calls[0].ended(ending());
  expect(redial.status).toMatchObject({ state: "connecting", clientId: null });
  calls[1].opened({ clientId: "new" });
  expect(redial.status).toMatchObject({ state: "open", clientId: "new" });
  redial.stop();
  calls[1].ended(ending());
  expect([redial.status.state, calls[1].isHungUp]).toEqual(["idle", true]);
});

test("a page is listened to only while there is something to keep", () => {
  const heard = new Set();
  vi.stubGlobal("addEventListener", (type) => heard.add(type));
  vi.stubGlobal("removeEventListener", (type) => heard.delete(type));
  const { calls, redial } = dialler();
  for (const let_go of [
    () => redial.stop(),
    () => calls.at(-1).ended({ ...ending(), isFinal: true }),
  ]) {
    redial.reconnect();
    expect([...heard]).toEqual(["online", "pageshow", "pagehide"]);
    let_go();
    expect([...heard]).toEqual([]);
  }
  expect(vi.getTimerCount()).toBe(0);
});

test("whoever is told may close it, at any state", () => {
  for (const state of ["connecting", "open", "waiting"]) {
    const told = [];
    const { calls, redial } = dialler({
      onStatus(status) {
        told.push(status.state);
        if (status.state === state) redial.close();
      },
      onOpen: () => told.push("onOpen"),
      onError: () => told.push("onError"),
    });
    redial.start();
    calls[0]?.opened({});
    calls[0]?.ended(ending());
    expect(told.slice(-2)).toEqual([state, "closed"]);
    expect([redial.status.state, vi.getTimerCount()]).toEqual(["closed", 0]);
  }
});

test.each([
  [1e10, 3600000],
  [NaN, 750],
  [-1, 750],
  ["soon", 750],
  [0, 0],
])("a server that asks for a wait of %j ms gets %j", (waitMs, nextMs) => {
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  const { calls, redial } = dialler();
  redial.start();
  calls[0].ended({ ...ending(), waitMs });
  expect(redial.status.nextRetryAt).toBe(Date.now() + nextMs);
});
