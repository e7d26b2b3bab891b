"""A daemon of four workers, for all tests of a file: to start one takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of

COMMON = (
    *("--type", "kept.history_length=10000", "--type", "kept.history_seconds=600"),
    *("--daemon-reconnect-seconds", "0.2", "--daemon-node-lease-seconds", "1"),
)
Start = Callable[..., DaemonProcess]


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def four_workers(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Four workers; one that gives no sign of life for four seconds is replaced."""
    flags = ("--workers", "4", "--daemon-worker-silence-seconds", "4", *COMMON)
    log = tmp_path_factory.mktemp("daemon") / "daemon.log"
    daemon = DaemonProcess(shared_redis.url, log, ("--log-format", "json", *flags))
    daemon.start()
    yield daemon
    daemon.stop()
    assert errors_of(daemon) == []
