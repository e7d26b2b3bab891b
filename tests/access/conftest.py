"""A daemon that asks for tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.access.visitor import SECRET
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer

Guard = Callable[..., DaemonProcess]


@pytest.fixture
def guard(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> Guard:
    """Starts daemons with the tests' secret: `guard(*flags)`."""

    def start(*flags: str, environ: dict[str, str] | None = None) -> DaemonProcess:
        return start_daemon(redis_server.url, *flags, environ={"BROKER_AUTH_SECRET": SECRET, **(environ or {})})

    return start


@pytest.fixture
def guarded(guard: Guard) -> DaemonProcess:
    return guard()
