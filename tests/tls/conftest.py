"""A daemon that speaks TLS on its port, with a certificate that only the tests trust."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of
from tests.tls.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One of this test's own."""
    return Authority(tmp_path)


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests of a file."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def tls_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who issued the certificate of `tls_daemon`."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_daemon(
    tls_redis: RedisServer, tls_authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """A daemon for all tests of a file, with the defaults."""
    log = tmp_path_factory.mktemp("daemon") / "daemon.log"
    environ = tls_authority.issue().environ
    daemon = DaemonProcess(tls_redis.url, log, ("--log-format", "json", "--log-level", "debug"), environ)
    daemon.start()
    yield daemon
    assert daemon.stop() == 0
    assert errors_of(daemon) == []


@pytest.fixture
def start_tls_daemon(
    tls_redis: RedisServer, start_daemon: Callable[..., DaemonProcess], authority: Authority
) -> Callable[..., DaemonProcess]:
    """Starts daemons with TLS: `start_tls_daemon({"LISTEN_IDLE_SECONDS": "1"})`, settings by their variable."""

    def start(settings: dict[str, str] | None = None) -> DaemonProcess:
        environ = {f"BROKER_{name}": value for name, value in (settings or {}).items()}
        return start_daemon(tls_redis.url, "--log-level", "debug", environ={**authority.issue().environ, **environ})

    return start
