// Tabs of one browser for unit tests: their locks, their channels, and a daemon that keeps what is
// published.
//
// A tab can be frozen (what comes to it waits) and killed (nothing comes to it any more, its locks
// are free).

import { openSharedLink } from "../../../broker/browser/tabs.js";

/** What is to be done in one tab, in order. */
class Tasks {
  isFrozen = false;
  isDead = false;
  waiting = [];

  add(task) {
    queueMicrotask(() => {
      if (this.isFrozen) this.waiting.push(task);
      else if (!this.isDead) task();
    });
  }

  thaw() {
    this.isFrozen = false;
    for (const task of this.waiting.splice(0)) this.add(task);
  }
}

export class World {
  /** name -> { holder, queue } */
  locks = new Map();
  channels = new Set();
  daemon = new Daemon();

  /** @returns a new tab with a shared link that follows `names` */
  open(names, options = {}) {
    return new Tab(this, names, { url: "https://daemon.test", ...options });
  }

  grant(name) {
    const lock = this.locks.get(name);
    if (!lock || lock.holder || !lock.queue.length) return;
    const request = (lock.holder = lock.queue.shift());
    request.tasks.add(async () => {
      const result = await request.callback();
      request.resolve(result);
      if (lock.holder === request) lock.holder = null;
      this.grant(name);
    });
  }

  locksOf(tasks) {
    const world = this;
    return {
      request(name, { steal, signal }, callback) {
        if (!world.locks.has(name)) world.locks.set(name, { holder: null, queue: [] });
        const lock = world.locks.get(name);
        return new Promise((resolve, reject) => {
          const refuse = () => tasks.add(() => reject(new DOMException("", "AbortError")));
          const request = { tasks, callback, resolve, refuse };
          if (steal) {
            lock.holder?.refuse();
            lock.holder = null;
            lock.queue.unshift(request);
          } else lock.queue.push(request);
          signal?.addEventListener("abort", () => {
            if (!lock.queue.includes(request)) return;
            lock.queue.splice(lock.queue.indexOf(request), 1);
            refuse();
          });
          world.grant(name);
        });
      },
    };
  }

  channelsOf(tasks) {
    const world = this;
    return class {
      constructor(name) {
        this.name = name;
        this.tasks = tasks;
        world.channels.add(this);
      }

      postMessage(message) {
        if (!world.channels.has(this)) return;
        for (const other of world.channels) {
          if (other === this || other.name !== this.name) continue;
          const data = structuredClone(message);
          other.tasks.add(() => world.channels.has(other) && other.onmessage?.({ data }));
        }
      }

      close() {
        world.channels.delete(this);
      }
    };
  }

  kill(tab) {
    tab.tasks.isDead = true;
    for (const channel of this.channels) if (channel.tasks === tab.tasks) channel.close();
    for (const client of tab.clients) client.close();
    for (const [name, lock] of this.locks) {
      lock.queue = lock.queue.filter((request) => request.tasks !== tab.tasks);
      if (lock.holder?.tasks === tab.tasks) lock.holder = null;
      this.grant(name);
    }
  }
}

class Tab {
  tasks = new Tasks();
  clients = [];
  had = [];
  states = [];
  opened = 0;
  places = new Map();

  constructor(world, names, options) {
    const browser = {
      locks: world.locksOf(this.tasks),
      BroadcastChannel: world.channelsOf(this.tasks),
    };
    const events = {
      sinceOf: (name) => this.places.get(name) ?? null,
      onStatus: (status) => {
        this.status = status;
        this.states.push(status.state);
      },
      onOpen: () => {
        this.opened += 1;
        for (const name of names) this.link.ask(name);
      },
      onSubscribed: ({ name, position }) => this.had.push(["subscribed", name, position]),
      onEvent: (name, position, event) => {
        if (name !== null) this.places.set(name, position);
        this.had.push(name === null ? ["user", event] : event);
      },
      onGap: (gap) => this.had.push(gap),
      onRefused: (name, error) => this.had.push([name, error.code, error.message]),
    };
    this.link = openSharedLink(options, events, (inner) => {
      const client = world.daemon.connect(inner);
      this.clients.push(client);
      return client;
    }, browser);
    for (const name of names) this.link.ask(name);
  }

  get events() {
    return this.had.filter((each) => typeof each === "number");
  }

  get isLeading() {
    return this.clients.some((client) => client.status.state === "open");
  }
}

/** Keeps all that is published, and replays nothing. A position is "1:<n>:1". */
export class Daemon {
  connections = 0;
  clients = new Set();
  kept = new Map();

  publish(name, ...events) {
    if (!this.kept.has(name)) this.kept.set(name, []);
    for (const event of events) {
      this.kept.get(name).push(event);
      for (const client of this.clients) client.hear(name);
    }
  }

  connect(options) {
    this.connections += 1;
    const client = new DaemonClient(this, options);
    this.clients.add(client);
    return client;
  }
}

class DaemonClient {
  status = {
    state: "open",
    transport: "websocket",
    attempt: 0,
    nextRetryAt: null,
    error: null,
    clientId: "ws_1",
  };
  subscriptions = new Set();
  reconnects = 0;

  constructor(daemon, options) {
    this.daemon = daemon;
    this.options = options;
  }

  subscribe(name, handlers) {
    const kept = this.daemon.kept.get(name) ?? [];
    const place = handlers.since ? Number(handlers.since.split(":")[1]) : kept.length;
    const unsubscribe = () => this.subscriptions.delete(subscription);
    const subscription = { name, handlers, place, unsubscribe };
    this.subscriptions.add(subscription);
    queueMicrotask(() => {
      if (!this.subscriptions.has(subscription)) return;
      const recovered = Boolean(handlers.since);
      handlers.onSubscribed({ position: `1:${place}:1`, recovered, replay: 0 });
      this.hear(name);
    });
    return subscription;
  }

  hear(name) {
    const kept = this.daemon.kept.get(name) ?? [];
    for (const each of this.subscriptions) {
      while (each.name === name && each.place < kept.length && this.subscriptions.has(each)) {
        each.place += 1;
        const position = `1:${each.place}:1`;
        each.handlers.onEvent(kept[each.place - 1], { channel: name, position });
      }
    }
  }

  onStatus(listener) {
    this.listener = listener;
    return () => {};
  }

  become(status) {
    this.status = { ...this.status, ...status };
    this.listener?.(this.status);
  }

  reconnect() {
    this.reconnects += 1;
  }

  close() {
    this.daemon.clients.delete(this);
    this.subscriptions.clear();
    this.become({ state: "closed" });
  }
}
