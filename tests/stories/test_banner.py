"""What the banner says to paste works when it is pasted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.cli.banner import _curl
from broker.config.address import Address
from broker.config.sections import Config
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer, free_port

StartDaemon = Callable[..., DaemonProcess]


def lines_of(banner: str, begin: str) -> list[str]:
    return [line.strip() for line in banner.splitlines() if line.strip().startswith(begin)]


def python_of(banner: str) -> str:
    """The lines of Python, as they would be pasted."""
    lines = banner.splitlines()
    (first,) = (index for index, line in enumerate(lines) if "import redis" in line)
    return "\n".join(lines[first : first + 3])


def paste(line: str, seconds: float = 10) -> subprocess.CompletedProcess[str]:
    """Run one line as a shell would."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_") and key != "REDIS_URL"}
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=seconds, env=clean, check=False)


def subscribe_and(publish: Callable[[], object], curl: str, daemon: DaemonProcess) -> list[str]:
    """Run the curl line, publish once it is there, and return the data lines that it printed."""
    assert curl.startswith("curl -N ")
    # Its own bound ends curl where nothing comes: then a line is empty.
    with subprocess.Popen(
        ["sh", "-c", curl.replace("curl -N", "exec curl -sN --max-time 10")], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            wait_until(lambda: daemon.stats()["channels"]["totalSubscriptions"] == 1)
            publish()
            lines: list[str] = []
            while len(lines) < 2:
                line = process.stdout.readline()
                assert line, f"curl ended after {lines}"
                if line.startswith("data: "):
                    lines.append(line.removeprefix("data: ").strip())
            return lines
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("redis_is", ["embedded", "configured", "prefixed", "strict"])
def test_every_line_to_paste_works(
    redis_is: str, redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    if redis_is == "embedded":
        daemon = start_daemon(None, "--embedded-port", str(free_port()))
    elif redis_is == "configured":
        daemon = start_daemon(redis_server.url)
    elif redis_is == "strict":
        daemon = start_daemon(redis_server.url, "--type", "job_progress.validate=event")
    else:
        daemon = start_daemon(redis_server.url, "--redis-channel-prefix", "a'b:")
    banner = daemon.rest_of_banner()
    (curl,) = lines_of(banner, "curl -N ")
    (publish,) = [line for line in banner.splitlines() if " pub " in line]
    told: list[subprocess.CompletedProcess[str]] = []
    (event,) = {line.split("'")[-2] for line in banner.splitlines() if " pub " in line}
    assert (redis_is == "strict") == (event != '{"type":"job_progress","jobId":"42","progress":0.5}')

    def run(line: str) -> list[str]:
        found = subscribe_and(lambda: told.append(paste(line)), curl, daemon)
        assert told[-1].returncode == 0, told[-1].stderr
        assert told[-1].stderr == ""
        wait_until(lambda: daemon.stats()["sse"]["totalConnections"] == 0)
        return found

    assert run(publish)[1] == event
    program = tmp_path / "paste.py"
    program.write_text(python_of(banner) + "\n")
    assert run(f"{sys.executable} {program}")[1] == event
    if shutil.which("redis-cli"):
        (cli,) = lines_of(banner, "redis-cli ")
        assert run(cli)[1] == event


def test_a_path_with_a_space_is_one_word_of_the_shell() -> None:
    line = _curl(Address(path="/my files/b.sock"), Config()) + "/health'"
    assert shlex.split(line) == ["curl", "-N", "--unix-socket", "/my files/b.sock", "http://localhost/health"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_demo_is_there_within_a_moment(start_daemon: StartDaemon) -> None:
    began = time.monotonic()
    daemon = start_daemon(None, "--dev", "--embedded-port", str(free_port()))
    assert time.monotonic() - began < 5
    banner = daemon.rest_of_banner()
    assert "its data is gone when the daemon exits" in banner
    assert "anyone on this machine may subscribe to everything; nobody else can connect" in banner
    demo, _ = lines_of(banner, "curl -N ")
    assert "campaign_metrics:demo" in demo
    _, event = subscribe_and(lambda: None, demo, daemon)
    assert json.loads(event)["message"].startswith("Demo:")


def test_the_demo_goes_where_the_daemon_listens(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--dev", "--redis-channel-prefix", "app:")
    demo = lines_of(daemon.rest_of_banner(), "curl -N ")[0]
    _, event = subscribe_and(lambda: None, demo, daemon)
    assert json.loads(event)["message"].startswith("Demo:")
