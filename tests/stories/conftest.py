"""What every story has: its peers are gone before its daemons are stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.actors import peers
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.actors.talking_worker import TalkingWorker


@pytest.fixture(autouse=True)
def peers_leave_first(start_daemon: Any) -> Iterator[None]:
    yield
    peers.close_all()


@pytest.fixture
def start_worker(redis_server: RedisServer) -> Iterator[Callable[..., TalkingWorker]]:
    """Starts workers: `start_worker(lease_seconds=..., concurrency=...)`."""
    started: list[TalkingWorker] = []

    def start(**options: Any) -> TalkingWorker:
        worker = TalkingWorker(redis_server.url, **options)
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def hasty(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon that waits two seconds for a worker and one for a watcher, where the defaults are ten."""
    return start_daemon(redis_server.url, "--evaluations-start-seconds", "2", "--evaluations-grace-seconds", "1")
