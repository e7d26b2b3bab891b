"""A small flood: who reads is served in time and loses nothing, and afterwards all is as it was.

The whole one is `python -m tests.bench --only floods`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.bench.floods import P99_MOST, flooded

EACH = 300
GOOD = 30
# What else this machine does makes a flood slower and never faster.
ATTEMPTS = 3


@pytest.mark.skipif(sys.platform != "linux", reason="the flood uses epoll")
def test_a_flood(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon(redis_server.url, "--listen-head-seconds=1.5", "--clients-outbox-max-age-seconds=1")
    daemon.stats()
    for _ in range(ATTEMPTS):
        found = flooded(daemon.port, daemon.process.pid, redis_server.port, each=EACH, good=GOOD, seconds=4.0)
        assert (found.wrong, max(0, found.left)) == (0, 0)
        if found.p99 < P99_MOST:
            break
    assert found.p99 < P99_MOST
    # All of the silent and the trickling were shown out more than once, by the time that a head may take.
    assert min(found.shown_out["silent"], found.shown_out["trickling"]) >= EACH
    counts = daemon.stats()
    assert counts["connections"]["failed"] == 0
    assert set(counts["delivery"]["endings"]) <= {"left", "vanished", "outbox_stale", "outbox_full"}
