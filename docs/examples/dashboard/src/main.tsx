import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrokerProvider } from "@broker/client/react";
import { App } from "./App";
import "./dashboard.css";

// Without VITE_BROKER_URL the daemon is where the page comes from; vite.config.ts passes it on.
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <BrokerProvider url={import.meta.env.VITE_BROKER_URL || undefined}>
      <App />
    </BrokerProvider>
  </StrictMode>,
);
