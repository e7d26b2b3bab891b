// A client over server-sent events, whose daemon is the test.
import { vi } from "vitest";
import "../../../broker/browser/brokerstream.js";
import { createClient } from "../../../broker/browser/index.js";
import { FakeRequest, listener, settled } from "./wires.js";

export function make(options = {}) {
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  return createClient({ url: "https://events.test", transport: "sse", ...options });
}

/** The stream's module is there, and the turn is over in which channels are gathered. */
export async function gathered() {
  await vi.advanceTimersByTimeAsync(0);
  await import("../../../broker/browser/brokerstream.js");
  await settled();
}

/** What `connected` says of a channel. */
export const start = (name, position = "5:1:0", recovered = false) => ({
  name,
  position,
  recovered,
  replay: 1,
});

/** A client that is live on `job:1`, and on `score:1`, which has no history. */
export async function live(options) {
  const client = make(options);
  const [one, score] = [listener(), listener()];
  client.subscribe("job:1", one.options);
  client.subscribe("score:1", score.options);
  await gathered();
  await FakeRequest.last.greet([
    start("job:1"),
    { name: "score:1", position: null, recovered: false, replay: 0 },
  ]);
  one.take();
  score.take();
  return { client, one, score, first: FakeRequest.last };
}
