"""/livez and /readyz: from a start without Redis to the end."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.lifecycle import Lifecycle
from broker.readiness import Readiness
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer


def asked(daemon: DaemonProcess, path: str) -> tuple[int, Any]:
    """The status and the body without its timestamp."""
    try:
        with urllib.request.urlopen(daemon.url + path, timeout=5) as answer:
            status, body = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        status, body = error.code, json.load(error)
    body.pop("timestamp", None)
    return status, body


ALIVE = (200, {"status": "alive"})
READY = (200, {"status": "ready", "redis": "connected"})


def test_a_daemon_is_ready_from_when_redis_answered_until_it_is_to_stop(
    tmp_path: Path, start_daemon: Callable[..., DaemonProcess]
) -> None:
    server = RedisServer(tmp_path)
    daemon = start_daemon(server.url, "--daemon-unready-seconds", "1.5", "--redis-backoff-max-seconds", "0.1")
    assert asked(daemon, "/livez") == ALIVE
    assert asked(daemon, "/readyz") == (
        503,
        {"status": "not ready", "reasons": ["waiting for Redis"], "redis": "away"},
    )
    server.start()
    try:
        wait_until(lambda: asked(daemon, "/readyz") == READY)
        server.kill()
        # All daemons have the same Redis: taking each of them away would help nobody.
        wait_until(lambda: asked(daemon, "/readyz") == (200, {"status": "ready", "redis": "away"}))
        assert figure(daemon, "broker_ready") == 1.0
        daemon.process.send_signal(signal.SIGTERM)
        stopping = (503, {"status": "not ready", "reasons": ["stopping"], "redis": "away"})
        wait_until(lambda: asked(daemon, "/readyz") == stopping)
        assert asked(daemon, "/livez") == ALIVE
        assert asked(daemon, "/health")[0] == 200
        assert figure(daemon, "broker_ready") == 0.0
        assert daemon.process.wait(10) == 0
    finally:
        server.kill()


def figure(daemon: DaemonProcess, name: str) -> float:
    with urllib.request.urlopen(daemon.url + "/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.split()[0] == name))


@pytest.mark.parametrize(
    ("state", "answered", "reasons"),
    [
        ("starting", False, ["starting", "waiting for Redis"]),
        ("starting", True, ["starting"]),
        ("serving", False, ["waiting for Redis"]),
        ("serving", True, []),
        ("stopping", True, ["stopping"]),
        ("stopping", False, ["stopping"]),
    ],
)
async def test_every_reason_is_told(state: str, answered: bool, reasons: list[str]) -> None:
    lifecycle = Lifecycle()
    if state != "starting":
        lifecycle.serve()
    if state == "stopping":
        lifecycle.stop()
    facts: Mapping[bool, str] = {True: "away", False: "connected"}
    for is_away in facts:
        readiness = Readiness(lifecycle, lambda: answered, lambda is_away=is_away: is_away)
        assert (readiness.reasons(), readiness.redis) == (reasons, facts[is_away])
