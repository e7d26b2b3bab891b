/**
 * A page that mounts hooks as its test says:
 *
 *     render({ job: { hook: "useJobProgress", args: ["42"], options: {}, mark: "a" } })
 *
 * Each one is an <output id=job> with its result as JSON; `render` returns what is drawn first. What
 * its callbacks were told is in `heard.job`, as [callback, mark at that render, ...]; how often it
 * was rendered in `renders.job`; its functions are in `results.job`. `frames` counts the frames that
 * the page has shown, `longestFrameMs` is between two.
 */

import { StrictMode, useEffect } from "react";
import { flushSync } from "react-dom";
import { createRoot } from "react-dom/client";

import * as hooks from "@broker/client/react";

const root = createRoot(document.getElementById("root"));
const CALLBACKS = ["onMessage", "onGap", "onError", "onOpen", "onClose", "onComplete", "onNotice"];

window.heard = {};
window.results = {};
window.renders = {};
window.frames = 0;
window.longestFrameMs = 0;

let last = performance.now();
requestAnimationFrame(function count(now) {
  window.frames += 1;
  window.longestFrameMs = Math.max(window.longestFrameMs, now - last);
  last = now;
  requestAnimationFrame(count);
});

function plain(value) {
  if (value instanceof Error) return { code: value.code, willRetry: value.willRetry };
  return value;
}

function Probe({ name, hook, args, options, mark }) {
  const callbacks = Object.fromEntries(
    CALLBACKS.map((callback) => [
      callback,
      // Another function at each render.
      (...told) => (window.heard[name] ??= []).push([callback, mark, ...told.map(plain)]),
    ]),
  );
  const result = hooks[hook](...args, { ...options, ...callbacks });
  window.renders[name] = (window.renders[name] ?? 0) + 1;
  useEffect(() => {
    window.results[name] = result;
  });
  return <output id={name}>{JSON.stringify(result, (_, value) => plain(value))}</output>;
}

window.render = (probes) => {
  const all = Object.entries(probes).map(([name, probe]) => (
    <Probe key={name} name={name} {...probe} />
  ));
  flushSync(() => root.render(<StrictMode>{all}</StrictMode>));
  return Object.fromEntries(
    Object.keys(probes).map((name) => [name, document.getElementById(name).textContent]),
  );
};
