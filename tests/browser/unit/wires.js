// A fake of what is outside the client: WebSocket and fetch, with a test in the daemon's place.
import { vi } from "vitest";

/** A socket; the newest is `FakeSocket.last`. */
export class FakeSocket {
  /** @type {FakeSocket[]} */
  static all = [];

  static get last() {
    return FakeSocket.all.at(-1);
  }

  readyState = 0;
  bufferedAmount = 0;
  /** What the client said, parsed. */
  said = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.all.push(this);
  }

  send(text) {
    this.said.push(JSON.parse(text));
  }

  close() {
    this.readyState = 3;
  }

  get isClosed() {
    return this.readyState === 3;
  }

  open() {
    this.readyState = 1;
    this.onopen?.();
  }

  /** The daemon says something. */
  say(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }

  /** The daemon greets. */
  greet(facts = {}) {
    this.open();
    this.say({
      type: "connected",
      clientId: `ws_${FakeSocket.all.length}`,
      timestamp: now(),
      ...facts,
    });
  }

  subscribed(name, position = null, recovered = false, replay = 1) {
    this.say({
      type: "subscribed",
      channel: name.split(":")[0],
      name,
      position,
      recovered,
      replay,
    });
  }

  event(channel, position, event) {
    this.say({ channel, position, event });
  }

  /** The connection ends at the other side. */
  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  /** What was said of one type, and forgotten. */
  take(type) {
    const found = this.said.filter((each) => each.type === type);
    this.said = this.said.filter((each) => each.type !== type);
    return found;
  }
}

/** A request; the newest is `FakeRequest.last`. */
export class FakeRequest {
  /** @type {FakeRequest[]} */
  static all = [];

  static get last() {
    return FakeRequest.all.at(-1);
  }

  constructor(url, init) {
    this.url = new URL(url);
    Object.assign(this, { init });
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    init.signal.addEventListener("abort", () =>
      this.fail(new DOMException("aborted", "AbortError")),
    );
    FakeRequest.all.push(this);
  }

  get isAborted() {
    return this.init.signal.aborted;
  }

  get channels() {
    return this.url.searchParams.getAll("channel");
  }

  get since() {
    return this.url.searchParams.getAll("since");
  }

  /** A stream begins. */
  async open(type = "text/event-stream") {
    const body = new ReadableStream({ start: (controller) => (this.controller = controller) });
    this.resolve(new Response(body, { headers: { "Content-Type": type } }));
    await settled();
  }

  async refuse(status, facts = {}, headers = {}) {
    const body = status === 204 ? null : JSON.stringify(facts);
    this.resolve(new Response(body, { status, headers }));
    await settled();
  }

  async write(text) {
    this.controller.enqueue(typeof text === "string" ? new TextEncoder().encode(text) : text);
    await settled();
  }

  say(message, type = "") {
    return this.write(`${type && `event: ${type}\n`}data: ${JSON.stringify(message)}\n\n`);
  }

  async greet(channels) {
    await this.open();
    await this.say({ type: "connected", clientId: `sse_${FakeRequest.all.length}`, channels });
  }

  async end() {
    this.controller.close();
    await settled();
  }

  fail(error = new TypeError("failed to fetch")) {
    this.reject(error);
    try {
      this.controller?.error(error);
    } catch {
      // It is over already.
    }
    return settled();
  }
}

/** Everything that waits for nothing but other promises has happened. */
export async function settled() {
  for (let turn = 0; turn < 50; turn += 1) await null;
}

export function now() {
  return new Date().toISOString();
}

export function stubWires() {
  vi.useFakeTimers();
  vi.setSystemTime(new Date("2026-01-01T00:00:00Z"));
  FakeSocket.all = [];
  FakeRequest.all = [];
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("fetch", (url, init) => new FakeRequest(url, init).promise);
}

export function restoreWires() {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
}

/** A page's globals, and what happens to it. */
export function stubPage() {
  const page = new EventTarget();
  const document = Object.assign(new EventTarget(), { hidden: false });
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
  vi.stubGlobal("document", document);
  return {
    document,
    happens: (type) =>
      (/^(freeze|resume)$/.test(type) ? document : page).dispatchEvent(new Event(type)),
    becomesVisible() {
      document.hidden = false;
      document.dispatchEvent(new Event("visibilitychange"));
    },
  };
}

/** A subscriber that writes down what it is told. */
export function listener(options = {}) {
  const told = [];
  return {
    told,
    options: {
      ...options,
      onEvent: (event, { position }) => told.push([event, position]),
      onGap: ({ reason, from, to }) => told.push(["gap", reason, from, to]),
      onError: ({ code, message }) => told.push(["error", code, message]),
      onSubscribed: ({ position, recovered }) => told.push(["subscribed", position, recovered]),
    },
    /** What it was told since the last look. */
    take: () => told.splice(0),
  };
}
