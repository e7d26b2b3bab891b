// A page that reads channels in every way there is, and keeps what it is told, in order.
//
// `logs[reader][channel]` has one entry for each thing told: ["event", n], ["gap", reason],
// ["start", recovered], ["error", code, willRetry]. The events that a test publishes are
// {type: "probe", channel, n}.

import { createClient } from "@broker/client";

/** @type {Record<string, Record<string, unknown[][]>>} */
const logs = {};
const clients = {};
const subscriptions = {};
const statuses = {};
const asked = {};
let frames = 0;
let longestFrameMs = 0;

function note(reader, channel, ...entry) {
  ((logs[reader] ??= {})[channel] ??= []).push(entry);
}

/** A client by name. `tokens` make `getToken`: one for each time it is asked, the last for ever. */
function make(name, { tokens, ...options } = {}) {
  if (tokens) {
    const left = [...tokens];
    options.getToken = () => {
      asked[name] = (asked[name] ?? 0) + 1;
      return left.length > 1 ? left.shift() : left[0];
    };
  }
  const client = createClient({ backoff: { minMs: 50, maxMs: 400 }, ...options });
  clients[name] = client;
  statuses[name] = [];
  client.onStatus(({ state }) => statuses[name].push(state));
}

/** Reads a channel by one subscription of a client. */
function read(client, reader, channel, options = {}) {
  (subscriptions[reader] ??= {})[channel] = clients[client].subscribe(channel, {
    ...options,
    onEvent: (event, told) => {
      if (told.channel !== channel || event.channel !== channel) note(reader, channel, "stray");
      note(reader, channel, "event", event.n);
    },
    onGap: (gap) => note(reader, channel, "gap", gap.reason),
    onSubscribed: (start) => note(reader, channel, "start", start.recovered),
    onError: (error) => note(reader, channel, "error", error.code, error.willRetry),
  });
}

function unsubscribe(reader, channel) {
  subscriptions[reader][channel].unsubscribe();
}

/** Reads a channel with `for await`. */
async function iterate(client, reader, channel) {
  const onGap = (gap) => note(reader, channel, "gap", gap.reason);
  for await (const event of clients[client].subscribe(channel, { onGap })) {
    note(reader, channel, "event", event.n);
  }
}

/** Reads channels with what browsers have themselves. */
function readNatively(reader, channels) {
  const query = channels.map((channel) => `channel=${channel}`).join("&");
  const source = new EventSource(`/api/stream?${query}`);
  source.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "connected") for (const each of channels) note(reader, each, "start");
    if (event.type === "probe") note(reader, event.channel, "event", event.n);
  };
  source.addEventListener("gap", ({ data }) => {
    const gap = JSON.parse(data);
    note(reader, gap.channel, "gap", gap.reason);
  });
}

/** The last event that each reader of a channel had; null for one that had none. */
function lasts(channel) {
  return Object.values(logs)
    .filter((log) => channel in log)
    .map((log) => log[channel].findLast(([kind]) => kind === "event")?.[1] ?? null);
}

/** How many readers were told that they have begun on a channel, at least `times`. */
function begun(channel, times = 1) {
  const starts = (log) => (log[channel] ?? []).filter(([kind]) => kind === "start").length;
  return Object.values(logs).filter((log) => starts(log) >= times).length;
}

/** When the browser froze the page, woke it, and brought it back from where it keeps left pages. */
const lives = [];
document.addEventListener("freeze", () => lives.push("frozen"));
document.addEventListener("resume", () => lives.push("awake"));
addEventListener("pageshow", ({ persisted }) => persisted && lives.push("back"));

function countFrames() {
  let lastMs = performance.now();
  frames = longestFrameMs = 0;
  const count = () => {
    const nowMs = performance.now();
    longestFrameMs = Math.max(longestFrameMs, nowMs - lastMs);
    lastMs = nowMs;
    frames += 1;
    requestAnimationFrame(count);
  };
  requestAnimationFrame(count);
}

Object.assign(globalThis, {
  asked,
  begun,
  clients,
  countFrames,
  framesCounted: () => ({ frames, longestFrameMs }),
  iterate,
  lasts,
  lives,
  logs,
  make,
  read,
  readNatively,
  statuses,
  subscriptions,
  unsubscribe,
});
