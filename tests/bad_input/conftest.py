"""One Redis and one daemon for the whole folder, with healthy subscribers beside everything that is done to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.actors.bystander import watch
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of

# What the daemon says about a request head or body that trickles, it says after this.
TRICKLE_SECONDS = 0.6


@pytest.fixture(scope="package")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="package")
def served(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with short deadlines for heads and bodies, and no worker. At the end it has logged no error."""
    flags = ("--listen-head-seconds", str(TRICKLE_SECONDS), "--listen-body-seconds", str(TRICKLE_SECONDS))
    flags += ("--evaluations-pending-max", "100000", "--limits-commands-burst", "20000")
    log_path = tmp_path_factory.mktemp("daemon") / "daemon.log"
    # Not forked: what it holds is measured, and a fork counts what it shares as its own.
    daemon = DaemonProcess(redis.url, log_path, ("--log-format", "json", *flags), is_forked=False)
    daemon.start()
    yield daemon
    daemon.stop()
    assert errors_of(daemon) == []


@pytest.fixture(scope="module")
def beside(served: DaemonProcess, redis: RedisServer) -> Iterator[None]:
    """Healthy subscribers, through the whole module."""
    with watch(served, redis):
        yield


@pytest.fixture
def port(served: DaemonProcess, beside: None) -> int:
    """Where to be bad at; `beside` holds that nobody else notices."""
    return served.port
