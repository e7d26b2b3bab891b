// openEventStream and openSocket: any stream or socket of a daemon, kept open.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { openEventStream, openSocket } from "../../../broker/browser/stream.js";
import { FakeRequest, FakeSocket, restoreWires, settled, stubWires } from "./wires.js";

beforeEach(stubWires);
afterEach(restoreWires);

const URL_HERE = "https://events.test/api/stream/council-score";

function writeDown(options = {}) {
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  const told = [];
  return {
    told,
    take: () => told.splice(0),
    options: {
      ...options,
      onEvent: (event) => told.push(event),
      onMessage: (text) => told.push(text),
      onOpen: () => told.push("open"),
      onEnd: () => told.push("end"),
      onClose: ({ code }) => told.push(["close", code]),
      onError: ({ code, willRetry }) => told.push([code, willRetry]),
    },
  };
}

test("a body goes once; behind the first id it goes on with GET", async () => {
  const one = writeDown({ body: '{"a":1}', headers: { "X-Trace": "7" }, getToken: () => "t" });
  const stream = openEventStream(URL_HERE, one.options);
  await settled();
  const common = { Accept: "text/event-stream", Authorization: "Bearer t", "X-Trace": "7" };
  expect(FakeRequest.last.init).toMatchObject({ method: "POST", body: '{"a":1}' });
  expect(FakeRequest.last.init.headers).toEqual({ ...common, "Content-Type": "application/json" });
  await FakeRequest.last.open();
  await FakeRequest.last.write("id: e:1\nevent: stage\ndata: {}\n\ndata: half");
  expect([stream.status.state, stream.lastEventId]).toEqual(["open", "e:1"]);
  await FakeRequest.last.fail();
  expect(one.take()).toEqual([
    "open",
    { type: "stage", data: "{}", id: "e:1" },
    ["unreachable", true],
  ]);
  await vi.advanceTimersByTimeAsync(750);
  expect(FakeRequest.last.init).toMatchObject({ method: "GET", body: undefined });
  expect(FakeRequest.last.init.headers).toEqual({ ...common, "Last-Event-ID": "e:1" });
  await FakeRequest.last.open();
  await FakeRequest.last.write(new TextEncoder().encode("\uFEFFdata: ä\n\n").slice(0, 10));
  await FakeRequest.last.write(new TextEncoder().encode("\uFEFFdata: ä\n\n").slice(10));
  await FakeRequest.last.write('id: end\nevent: complete\ndata: {"data":1}\n\n');
  expect(one.take()).toEqual([
    "open",
    { type: "message", data: "ä", id: "e:1" },
    { type: "complete", data: '{"data":1}', id: "end" },
    "end",
  ]);
  expect([stream.status.state, stream.status.error, FakeRequest.last.isAborted]).toEqual([
    "closed",
    null,
    true,
  ]);
  stream.reconnect();
  await vi.advanceTimersByTimeAsync(60000);
  expect([FakeRequest.all.length, vi.getTimerCount()]).toEqual([2, 0]);
});

test("204 is the end, a refusal has its status, an address may depend on the id", async () => {
  const one = writeDown({ lastEventId: "e:5" });
  openEventStream((id) => `${URL_HERE}?from=${id}`, one.options);
  await settled();
  expect(FakeRequest.last.url.search).toBe("?from=e:5");
  await FakeRequest.last.refuse(204);
  expect(one.take()).toEqual(["end"]);

  const two = writeDown();
  const refused = openEventStream(URL_HERE, two.options);
  await settled();
  await FakeRequest.last.refuse(400, { error: "Bad Request", detail: "videoUrl", hint: "say it" });
  expect(two.take()).toEqual([["bad_request", false]]);
  expect(refused.status.error).toMatchObject({
    status: 400,
    message: "answered 400. videoUrl. say it",
  });
});

test("a handler may close it, and hears nothing more", async () => {
  const seen = [];
  const stream = openEventStream(URL_HERE, {
    onEvent({ data }) {
      seen.push(data);
      stream.close();
    },
    onError: (error) => seen.push(error),
  });
  await settled();
  await FakeRequest.last.open();
  await FakeRequest.last.write("data: 1\n\ndata: 2\n\n");
  await vi.advanceTimersByTimeAsync(60000);
  expect([seen, FakeRequest.last.isAborted, vi.getTimerCount()]).toEqual([["1"], true, 0]);
});

test("a socket comes back", async () => {
  const one = writeDown({ protocols: ["broker.v1"] });
  const socket = openSocket("https://events.test/ws", one.options);
  expect(socket.send("early")).toBe(false);
  await settled();
  expect([FakeSocket.last.url, FakeSocket.last.protocols]).toEqual([
    "wss://events.test/ws",
    ["broker.v1"],
  ]);
  FakeSocket.last.open();
  expect([socket.send('{"a":1}'), FakeSocket.last.said]).toEqual([true, [{ a: 1 }]]);
  FakeSocket.last.bufferedAmount = 1024 * 1024;
  expect(socket.send('{"a":2}')).toBe(false);
  FakeSocket.last.onmessage({ data: "no JSON" });
  FakeSocket.last.end(1006);
  expect(one.take()).toEqual(["open", "no JSON", ["closed", true], ["close", 1006]]);
  await vi.advanceTimersByTimeAsync(750);
  FakeSocket.last.open();
  await vi.advanceTimersByTimeAsync(35000);
  expect(FakeSocket.last.said).toEqual([{ type: "ping" }]);
  FakeSocket.last.say({ type: "pong" });
  FakeSocket.last.end(4006, "disconnected by the operator");
  expect(socket.status).toMatchObject({ state: "failed", error: { code: "disconnected" } });
  socket.reconnect();
  await settled();
  expect(FakeSocket.all.length).toBe(3);
  socket.close();
  expect([FakeSocket.last.isClosed, vi.getTimerCount()]).toEqual([true, 0]);
});

test("a socket with a token is open when that counts, and fails where it does not", async () => {
  const tokens = ["t1", "t2", "t3"];
  const one = writeDown({ getToken: () => tokens.shift() });
  const socket = openSocket("https://events.test/ws", one.options);
  await settled();
  FakeSocket.last.greet();
  expect([one.take(), FakeSocket.last.take("authenticate")]).toEqual([
    [expect.stringContaining('"connected"')],
    [{ type: "authenticate", token: "t1" }],
  ]);
  FakeSocket.last.say({ type: "error", code: "bad_token", message: "it is over" });
  await settled();
  expect(FakeSocket.last.take("authenticate")).toEqual([{ type: "authenticate", token: "t2" }]);
  FakeSocket.last.say({ type: "authenticated", userId: "ann", expiresAt: null, timestamp: "" });
  FakeSocket.last.say({ type: "error", code: "bad_json", message: "not JSON" });
  for (const data of ["null", "{"]) FakeSocket.last.onmessage({ data });
  expect(one.take()).toEqual(["open", expect.stringContaining("bad_json"), "null", "{"]);

  tokens.splice(0, 1, "bad", "bad");
  socket.reconnect();
  await settled();
  FakeSocket.last.greet();
  FakeSocket.last.say({ type: "error", code: "bad_token", message: "no" });
  await settled();
  expect(socket.status).toMatchObject({ state: "failed", error: { code: "bad_token" } });
  expect([FakeSocket.last.isClosed, vi.getTimerCount()]).toEqual([true, 0]);
});
