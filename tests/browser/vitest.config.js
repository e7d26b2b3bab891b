// How `vitest run` in this folder finds the units of broker/browser/, and what they import.
import { defineConfig } from "vitest/config";

const own = (path) => new URL(path, import.meta.url).pathname;

export default defineConfig({
  resolve: {
    // The client has no node_modules of its own: what it imports is here.
    alias: {
      "@broker/client/react": own("../../broker/browser/react.js"),
      "@broker/client/stream": own("../../broker/browser/stream.js"),
      "@broker/client": own("../../broker/browser/index.js"),
      "react-dom": own("node_modules/react-dom"),
      react: own("node_modules/react"),
    },
  },
  server: { fs: { allow: [own("../..")] } },
  test: {
    include: ["unit/**/*.test.js"],
    // A file that needs a page begins with `// @vitest-environment happy-dom`.
    environment: "node",
    // Each file anew in the same thread: what a test changes it puts back.
    isolate: false,
    // Threads start sooner than processes; the tests of the whole project run beside them.
    pool: "threads",
    maxWorkers: 1,
    testTimeout: 5000,
  },
});
