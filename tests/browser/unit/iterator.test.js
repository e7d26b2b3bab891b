// A subscription as an async iterator.
import { afterEach, beforeEach, expect, test } from "vitest";
import { make } from "./socket_client.js";
import { FakeSocket, restoreWires, settled, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

/** A client that has had the events 2, 3 and 4. */
async function iterated(replay = 2) {
  const client = make();
  client.subscribe("job:1");
  await settled();
  const socket = FakeSocket.last;
  socket.greet();
  socket.subscribed("job:1", "5:1:0", false, replay);
  for (const offset of [2, 3, 4]) event(socket, offset);
  return { client, socket };
}

const event = (socket, offset) => socket.event("job:1", `5:${offset}:${offset}`, offset);

test("gives every event, and lets go when it is left", async () => {
  const { client, socket } = await iterated();
  const seen = [];
  const subscription = client.subscribe("job:1");
  const reading = (async () => {
    for await (const each of subscription) {
      seen.push(each);
      if (each === 6) break;
    }
  })();
  await settled();
  event(socket, 5);
  await settled();
  expect(seen).toEqual([3, 4, 5]);
  event(socket, 6);
  await reading;
  expect([seen, subscription.isOver]).toEqual([[3, 4, 5, 6], true]);
});

test("ends with the subscription and the client, and throws where it is refused", async () => {
  const { client, socket } = await iterated();
  const read = async (subscription) => {
    const seen = [];
    for await (const each of subscription) seen.push(each);
    return seen;
  };
  const [one, two] = [client.subscribe("job:1"), client.subscribe("job:1")];
  const [ending, closing, refused] = [read(one), read(two), read(client.subscribe("secret:1"))];
  const thrown = expect(refused).rejects.toMatchObject({
    code: "forbidden",
    message: "not for you",
  });
  await settled();
  socket.say({ type: "error", code: "forbidden", channel: "secret:1", message: "not for you" });
  await thrown;
  one.unsubscribe();
  expect(await ending).toEqual([3, 4]);
  client.close();
  expect(await closing).toEqual([3, 4]);
});

test("holds ten thousand, then the oldest go, and a gap says which", async () => {
  const { client, socket } = await iterated(0);
  const gaps = [];
  const subscription = client.subscribe("job:1", { onGap: (each) => gaps.push(each) });
  const reader = subscription[Symbol.asyncIterator]();
  const first = reader.next();
  await settled();
  for (let offset = 5; offset < 5 + 10000 + 3; offset += 1) event(socket, offset);
  expect((await first).value).toBe(8);
  expect(gaps).toEqual([
    {
      type: "gap",
      channel: "job:1",
      reason: "overflow",
      from: "5:4:4",
      to: "5:7:7",
      count: 3,
      timestamp: new Date().toISOString(),
    },
  ]);
  expect((await reader.next()).value).toBe(9);
  expect(gaps.length).toBe(1);
  await reader.return();
  expect(subscription.isOver).toBe(true);
});
