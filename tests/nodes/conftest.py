"""Daemons that share a Redis and ask for tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.access.visitor import SECRET
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of

FLAGS = (
    "--log-format",
    "json",
    "--daemon-node-lease-seconds",
    "1",
    "--limits-connections-per-user",
    "3",
    "--limits-streams-per-user",
    "2",
)


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests of a file."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def pair(
    shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DaemonProcess, DaemonProcess]]:
    """Two daemons for all tests of a file; a user may have 3 connections, 2 of them streams."""
    folder: Path = tmp_path_factory.mktemp("daemons")
    with ExitStack() as stack:
        daemons = [
            DaemonProcess(
                shared_redis.url,
                folder / f"{name}.log",
                (*FLAGS, "--daemon-node", name),
                {"BROKER_AUTH_SECRET": SECRET},
            )
            for name in ("one", "other")
        ]
        for daemon in daemons:
            daemon.start()
            stack.callback(daemon.stop)
        yield daemons[0], daemons[1]
    for daemon in daemons:
        assert errors_of(daemon) == []
