"""The npm package: what it weighs, and that a TypeScript program which installs it has its types."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import broker
from tests.browser.test_units import HERE, SECONDS, run

ROOT = HERE.parent.parent
CORE_MAX_BYTES = 6144
PROGRAM = """\
import { BrokerError, createClient } from "@broker/client";
import type { ClientStatus, Gap, Subscription } from "@broker/client";
import type { BrokerEvent, EventOf } from "@broker/client/events";
import { useJobProgress, useRealtimeAlerts } from "@broker/client/react";
import { openEventStream, openSocket } from "@broker/client/stream";

const client = createClient({ url: "/", transport: "sse", getToken: async () => null, lingerMs: 5 });
const status: ClientStatus = client.status;
const failed: BrokerError | null = status.error;
const stop: () => void = client.onStatus(() => {});

const followed: Subscription = client.subscribe("job_progress:42", {
  since: null,
  onEvent(event: EventOf<"job_progress">, { channel, position }) {
    const values: [number, string, string | null] = [event.progress, channel, position];
  },
  onGap(gap: Gap) {},
});
const place: string | null = followed.position;

async function read(): Promise<void> {
  for await (const event of client.subscribe({ type: "alerts", userId: "u" })) {
    const one: BrokerEvent = event;
    if (one.type === "alert") {
      const severity: "info" | "warning" | "critical" = one.severity;
    }
  }
}

export function Progress() {
  const { progress, status } = useJobProgress("42");
  const { alerts, dismissAlert } = useRealtimeAlerts("u");
  dismissAlert(alerts[0].alertId);
  const done: number | null = progress;
  const isOpen: boolean = status === "open";
  return done;
}

const opened: unknown[] = [openEventStream, openSocket];

// @ts-expect-error a transport that there is not
createClient({ transport: "pigeon" });
// @ts-expect-error a channel is a text, or has a type
client.subscribe(42);
// @ts-expect-error alerts have no progress
const wrong: EventOf<"alert">["progress"] = 1;
"""
PROJECT = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "target": "es2022",
        "module": "nodenext",
        "lib": ["es2022", "dom"],
        "types": [],
        "skipDefaultLibCheck": True,
    },
    "files": ["program.ts"],
}


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make npm` makes."""
    if shutil.which("npm") is None or not (HERE / "node_modules" / ".bin" / "tsc").exists():
        pytest.skip("npm or TypeScript is not there; tests/browser/install gets them, and says why it cannot")
    spec = importlib.util.spec_from_file_location("npm_package", ROOT / "conf" / "npm" / "package.py")
    assert spec is not None and spec.loader is not None
    maker: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    made: Path = maker.make(tmp_path_factory.mktemp("dist"))
    return made


def test_a_program_that_installs_the_package_has_its_types(tarball: Path, tmp_path: Path) -> None:
    assert tarball.name == f"broker-client-{broker.__version__}.tgz"
    (tmp_path / "package.json").write_text('{"name": "program", "private": true, "type": "module"}')
    command = ["npm", "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", str(tarball)]
    installed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    package = tmp_path / "node_modules" / "@broker" / "client"
    served = {
        str(path.relative_to(ROOT / "broker" / "browser"))
        for path in (ROOT / "broker" / "browser").rglob("*.js")
        if "console" not in path.parts
    }
    declared = {path.removesuffix(".js") + ".d.ts" for path in served} | {"events.d.ts"}
    found = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert found == served | declared | {"package.json", "README.md", "LICENSE"}

    types = tmp_path / "node_modules" / "@types"
    types.symlink_to(HERE / "node_modules" / "@types")
    (tmp_path / "node_modules" / "csstype").symlink_to(HERE / "node_modules" / "csstype")
    (tmp_path / "tsconfig.json").write_text(json.dumps(PROJECT))
    (tmp_path / "program.ts").write_text(PROGRAM)
    done = run("tsc", "-p", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_core_is_small() -> None:
    core = ROOT / "broker" / "browser" / "index.js"
    # What a page with WebSockets loads: SSE and the sharing between tabs come by import() when they are needed.
    later = ("--external:./tabs.js", "--external:./brokerstream.js")
    done = run("esbuild", str(core), "--bundle", "--minify", "--format=esm", "--target=es2022", *later)
    assert done.returncode == 0, done.stderr
    size = len(gzip.compress(done.stdout.encode(), 9, mtime=0))
    assert size <= CORE_MAX_BYTES, f"the core has {size} bytes gzipped, {size - CORE_MAX_BYTES} too many"
