// The page's own server passes /ws and /api on to the daemon, so that the browser sees one origin.
import react from "@vitejs/plugin-react";
import { defineConfig, loadEnv } from "vite";

export default defineConfig(({ mode }) => {
  const target = loadEnv(mode, ".", "BROKER_").BROKER_URL || "http://127.0.0.1:8000";
  const proxy = {
    "/api": { target, changeOrigin: false },
    "/ws": { target, ws: true, changeOrigin: false },
  };
  return {
    plugins: [react()],
    server: { host: "127.0.0.1", proxy },
    preview: { host: "127.0.0.1", proxy },
  };
});
