// A client over WebSocket, whose daemon is the test.
import { vi } from "vitest";
import { createClient } from "../../../broker/browser/index.js";
import { FakeSocket, listener, settled } from "./wires.js";

/** A client over WebSocket; its waits are in the middle of what they may be. */
export function make(options = {}) {
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  return createClient({ url: "https://events.test/broker/", transport: "websocket", ...options });
}

/** A client with one subscriber that is live on `job:1`. */
export async function live(options = {}, channel = "job:1") {
  const client = make(options);
  const one = listener();
  const subscription = client.subscribe(channel, one.options);
  await settled();
  FakeSocket.last.greet();
  FakeSocket.last.subscribed(channel, "5:1:0");
  one.take();
  return { client, one, subscription, socket: FakeSocket.last };
}
