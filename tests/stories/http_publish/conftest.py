"""Two daemons with the defaults, and one with everything set that publishing knows, on one Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from broker.history.keys import Keys
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer, free_port
from tests.conftest import errors_of


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for every test that does it no harm."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="package")
def pair(
    server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DaemonProcess, DaemonProcess]]:
    """Two daemons with the defaults. At the end they have logged no error."""
    folder = tmp_path_factory.mktemp("daemons")
    pair = tuple(DaemonProcess(server.url, folder / f"{name}.log", ("--log-format", "json")) for name in "ab")
    for daemon in pair:
        daemon.start()
    yield pair[0], pair[1]
    for daemon in pair:
        daemon.stop()
    assert [errors_of(daemon) for daemon in pair] == [[], []]


@pytest.fixture
def daemon(pair: tuple[DaemonProcess, DaemonProcess], server: RedisServer) -> DaemonProcess:
    """One of the two, on a Redis that remembers nothing but who records: to forget that is told as a gap."""
    keys = Keys("")
    with server.client() as client:
        for key in client.keys("*"):
            if key.decode() not in (keys.types, keys.lease, keys.generation):
                client.delete(key)
    return pair[0]


@pytest.fixture
def other(pair: tuple[DaemonProcess, DaemonProcess]) -> DaemonProcess:
    return pair[1]


@define(eq=False)
class Special:
    """A daemon with everything set that publishing knows, and an address of each sort."""

    daemon: DaemonProcess
    open_port: int
    unix_path: Path


@pytest.fixture(scope="package")
def special(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Special]:
    folder, port = tmp_path_factory.mktemp("special"), free_port()
    (folder / "broker.toml").write_text('[channels]\nundeclared = "refuse"\n[types.job_progress]\nvalidate = "event"\n')
    flags = [
        *("--log-format", "json", "--config", str(folder / "broker.toml"), "--redis-channel-prefix", "app:"),
        *("--publish-idempotency-seconds", "1", "--listen-allowed-origins", "https://app.example"),
        *("--listen", f"0.0.0.0:{port}", "--listen", f"unix:{folder / 's'}", "--auth-mode", "off"),
    ]
    daemon = DaemonProcess(server.url, folder / "daemon.log", tuple(flags))
    daemon.start()
    yield Special(daemon, port, folder / "s")
    daemon.stop()
    assert errors_of(daemon) == []
