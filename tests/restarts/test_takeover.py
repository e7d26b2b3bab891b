"""A new process takes over: no event is lost, no connection refused, and what goes wrong with it harms nobody.

`BROKER_TEST_TAKEOVER_CLIENTS=2000` makes the first test as large as the promise is.
"""

from __future__ import annotations

import json
import os
import time
from threading import Thread

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import follow, open_followers
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.returning import Knocking, ReturningStream, ReturningWebSocket, Service, raise_open_files
from tests.restarts.conftest import Row

CLIENTS = int(os.environ.get("BROKER_TEST_TAKEOVER_CLIENTS", "400"))
CHANNELS = tuple(f"kept:{index}" for index in range(10))
RECONNECT_SECONDS = 1.0
FLAGS = (
    *("--type", "kept.history_length=10000", "--type", "kept.history_seconds=600"),
    *("--daemon-reconnect-seconds", str(RECONNECT_SECONDS)),
)


def lines_of(daemon: DaemonProcess) -> list[str]:
    """The events of its log."""
    return [json.loads(line)["event"] for line in daemon.log().splitlines()]


def test_nothing_is_lost_and_nobody_refused(redis_server: RedisServer, row: Row) -> None:
    raise_open_files()
    seconds = max(10.0, CLIENTS / 60)
    old = row.first(redis_server.url, *FLAGS, "--daemon-drain-seconds", f"{seconds}")
    new = row.after(old)
    service = Service(redis_server, CHANNELS, 10.0)
    kinds = (ReturningWebSocket, ReturningStream)
    clients = [
        kinds[index % 2]((CHANNELS[index // 2 % len(CHANNELS)],), service.truths, old.port) for index in range(CLIENTS)
    ]
    try:
        open_followers(clients)
        begun = service.count + 5
        follow(clients, lambda: service.count >= begun, 3 * seconds)
        with Knocking(("127.0.0.1", old.port)) as knocking:
            wait_until(lambda: knocking.answered >= 5)
            starting = Thread(target=new.start, daemon=True)
            began = time.monotonic()
            starting.start()
            follow(
                clients,
                lambda: old.process.poll() is not None and all(client.is_live for client in clients),
                3 * seconds,
            )
            took = time.monotonic() - began
            starting.join()
        count = service.end()

        def faults() -> list[str]:
            return [fault for client in clients for fault in client.faults(is_end=True)]

        follow(clients, lambda: not faults(), 3 * seconds, why=lambda: faults()[:5])
    finally:
        service.end()
    print(
        f"{CLIENTS} clients, {count * CLIENTS} deliveries: all back {took:.1f} s after the new process was started; "
        f"{knocking.answered} connections meanwhile"
    )
    assert knocking.wrong == []
    assert [client.gaps() for client in clients] == [[]] * CLIENTS
    assert [(client.endings, client.refused) for client in clients] == [(1, 0)] * CLIENTS
    told = [client.told for client in clients]
    assert all(len(each) == 1 and 0 <= each[0] <= 1000 * RECONNECT_SECONDS for each in told)
    assert len({each[0] for each in told}) > CLIENTS / 5
    assert old.process.returncode == 0
    assert "took over" in lines_of(new)
    wait_until(lambda: new.stats()["history"]["isRecorder"])
