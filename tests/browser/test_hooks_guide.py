"""What docs/browser.md shows of React works as it stands there; and hooks on a server."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.actors.chromium import CLIENT, NODE_MODULES, PAGES, missing
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.browser.test_hooks import LATER, job, publish

GUIDE = Path(__file__).parents[2] / "docs" / "browser.md"


def bundled(*arguments: str, source: str | None = None) -> str:
    command = [str(NODE_MODULES / ".bin" / "esbuild"), "--bundle", "--jsx=automatic", "--log-level=error", *arguments]
    command += [f"--alias:@broker/client={CLIENT / 'index.js'}", f"--alias:@broker/client/react={CLIENT / 'react.js'}"]
    environ = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(command, env=environ, input=source, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_live_progress_bar_in_ten_lines(
    module_redis: RedisServer, module_daemon: DaemonProcess, open_page: Any
) -> None:
    section = GUIDE.read_text().split("\n## React\n")[1]
    block = re.search(r"```jsx\n(.*?)```", section, re.DOTALL)
    assert block is not None
    code = block[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    page = open_page("probe", module_daemon.url)
    page.evaluate("document.body.innerHTML = '<main id=root></main>'")
    source = code.replace("http://127.0.0.1:8000", module_daemon.url)
    page.add_script_tag(content=bundled("--loader=jsx", "--format=esm", source=source), type="module")
    publish(module_redis, "job_progress:demo", job("demo", 0.25))
    page.wait_for_function("document.querySelector('progress')?.value === 0.25", **LATER)
    publish(module_redis, "job_progress:demo", job("demo", 0.5))
    page.wait_for_function("document.querySelector('progress').value === 0.5", **LATER)
    assert page.locator("label").inner_text().strip() == "50%"


def test_hooks_are_rendered_on_a_server_and_open_nothing() -> None:
    """In Node, without a page: whoever connects there, or looks for `window`, throws."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    page = bundled(str(PAGES / "hooks" / "server.jsx"), "--platform=node", "--format=cjs")
    done = subprocess.run(["node", "-"], input=page, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loading = {"isConnected": False, "isLoading": True, "status": "idle"}
    still = {"isConnected": False, "isLoading": False, "status": "idle"}
    assert json.loads(done.stdout) == {
        "useJobProgress": loading,
        "useSSE": loading,
        "useWebSocket": loading,
        "useCouncilScoreStream": still,
        "useCreativeEvaluation": still,
        "useRealtimeAlerts": still,
        "useLatest": None,
    }
