"""Connections that come and go, and more of them than there are descriptors."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.actors.bystander import watch
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, descriptors_of, head, upgrade, wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.refusal import assert_refusal
from tests.conftest import errors_of

StartDaemon = Callable[..., DaemonProcess]
HEALTH = head(b"GET /health HTTP/1.1")
# Promised is 1 s (rows 12 and 13), on a machine that does nothing else.
RECOVERY_SECONDS = 5.0
WARNINGS = {
    "at the start": "as many connections as allowed; answering 503",
    "later": "out of file descriptors or memory; the door rests",
}


def test_5000_connections_that_leave_before_a_byte(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url)
    with watch(daemon, redis_server):
        daemon.stats()
        base = descriptors_of(daemon.process.pid)
        for number in range(5000):
            client = RawClient.connect(daemon.port)
            if number % 2:
                client.reset()
            else:
                client.sock.close()
        wait_until(lambda: descriptors_of(daemon.process.pid) <= base, RECOVERY_SECONDS)
        with RawClient.connect(daemon.port) as client:
            assert client.ask(HEALTH).status == 200


@pytest.mark.parametrize("limited", ["at the start", "later"])
def test_500_clients_and_200_descriptors(redis_server: RedisServer, tmp_path: Path, limited: str) -> None:
    """Limited at its start the daemon knows its cap and says 503; limited later it runs out, and rests.

    Either way Redis stays connected, who is served loses nothing, and when the crowd has left all is as before.
    """
    under = ("sh", "-c", 'ulimit -n 200; exec "$@"', "sh") if limited == "at the start" else ()
    daemon = DaemonProcess(redis_server.url, tmp_path / "daemon.log", ("--log-format", "json"), under=under)
    daemon.start()
    try:
        if limited == "later":
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (200, 200))
        crowd(daemon, redis_server, limited)
    finally:
        daemon.stop()
    assert errors_of(daemon) == []


def crowd(daemon: DaemonProcess, redis_server: RedisServer, limited: str) -> None:
    """500 clients come, those beside lose nothing, and all of the 500 leave."""
    with watch(daemon, redis_server):
        began = time.monotonic()
        clients = [RawClient.connect(daemon.port) for _ in range(500)]
        for client in clients:
            client.try_send(upgrade())
        if limited == "at the start":
            # Two places are taken by those beside; 32 refusals at once, each for as long as it is not read.
            for client in clients[:102]:
                client.expect_upgrade()
            for client in clients[102:134]:
                answer = assert_refusal(client.answer(), 503)
                assert int(answer.headers["retry-after"]) > 0
        else:
            clients[0].expect_upgrade()
            wait_until(lambda: descriptors_of(daemon.process.pid) == 200)
            time.sleep(1.0)
        for client in clients:
            client.sock.close()
        left = time.monotonic()
        with RawClient.connect(daemon.port) as client:
            assert client.ask(HEALTH).status == 200
        assert time.monotonic() - left < RECOVERY_SECONDS
        lasted = time.monotonic() - began
        wait_until(lambda: daemon.stats()["websocket"]["totalConnections"] == 1)
        assert daemon.stats()["redis"]["outages"] == 0
    # Of the door alone: on a busy machine the recorder's lease may have something to say as well.
    warned = [line for line in map(json.loads, daemon.log().splitlines()) if line["event"] == WARNINGS[limited]]
    assert 1 <= len(warned) <= lasted + 1, warned
    assert {line["level"] for line in warned} == {"warning"}
