/** Renders hooks as a server does, and prints what they return. Nothing may be opened. */

import { renderToString } from "react-dom/server";

import * as hooks from "@broker/client/react";

const told = {};
for (const name of ["WebSocket", "fetch", "setTimeout", "setInterval"]) {
  globalThis[name] = () => {
    throw new Error(`${name} while rendering on a server`);
  };
}

function Probe({ hook, args }) {
  const result = hooks[hook](...args);
  const { isConnected, isLoading, status } = result ?? {};
  told[hook] = result && { isConnected, isLoading, status };
  return <p>{hook}</p>;
}

function Page() {
  return (
    <>
      <Probe hook="useJobProgress" args={["42"]} />
      <Probe hook="useSSE" args={["/api/stream?channel=a:1"]} />
      <Probe hook="useWebSocket" args={["/ws"]} />
      <Probe hook="useCouncilScoreStream" args={["v", "t", {}]} />
      <Probe hook="useCreativeEvaluation" args={["c", "t"]} />
      <Probe hook="useRealtimeAlerts" args={[undefined]} />
      <Probe hook="useLatest" args={["a:1"]} />
    </>
  );
}

// With the client of the page, and with one of a provider.
const bare = renderToString(<Page />);
const provided = renderToString(
  <hooks.BrokerProvider url="https://events.example.com" getToken={async () => "t"}>
    <Page />
  </hooks.BrokerProvider>,
);
if (bare !== provided) throw new Error(`${bare} is not ${provided}`);
process.stdout.write(JSON.stringify(told));
