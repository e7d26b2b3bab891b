"""Whatever arrives while a connection is being closed: at every point of it, nothing leaves its scope."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import CONTINUATION, PING, TEXT, RawClient, close_frame, frame, head, text, wait_until

ROUNDS = 200
CLOSES: list[Callable[[], bytes]] = [
    lambda: close_frame(1000),
    lambda: frame(3),
    lambda: frame(TEXT, b"\xff"),
    lambda: frame(TEXT, b"*" * 65537),
]
ARRIVALS: dict[str, bytes | None] = {
    "ping": frame(PING, b"late"),
    "data": text({"type": "subscribe", "channel": "race:2"}) + text({"type": "ping"}),
    "bad-frame": frame(5, b"late"),
    "reset": None,
    "oversized": frame(TEXT, b"*" * 70000),
    "second-close": close_frame(1001) + frame(CONTINUATION, b"x"),
}


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_at_every_point_of_a_close(port: int, served: DaemonProcess, arrival: str) -> None:
    """The close and what races it are cut at every place, and sent in one piece, in two, or with a pause between."""
    dice = random.Random(arrival)
    late = ARRIVALS[arrival]
    for number in range(ROUNDS):
        closing = CLOSES[number % len(CLOSES)]()
        opening = text({"type": "subscribe", "channel": "race:1"})
        with RawClient.websocket(port, greeted=bool(number % 3)) as client:
            both = opening + closing + (late or b"")
            cut = dice.randrange(len(both) if number % 2 else min(len(both), len(opening) + 30))
            client.try_send(both[:cut])
            if number % 15 == 0:
                client.frame()
            if late is None:
                client.reset()
                continue
            client.try_send(both[cut:])
            if number % 7 == 0:
                client.reset()
                continue
            last = client.frames()[-1]
            assert last.code in (1000, 1002, 1007, 1009)
    wait_until(lambda: served.stats()["websocket"]["totalConnections"] == 1)
    wait_until(lambda: "race:1" not in served.stats()["channels"]["channels"])


def test_while_the_daemon_says_goodbye(served: DaemonProcess, beside: None) -> None:
    """A stream that is ended by too many bytes, and reset, finished or fed while it ends."""
    for number in range(ROUNDS // 4):
        with RawClient.connect(served.port) as client:
            client.send(head(b"GET /api/stream?channel=race:3 HTTP/1.1"))
            client.try_send(b"*" * 140_000)
            if number % 3 == 0:
                client.reset()
            elif number % 3 == 1:
                client.try_send(b"*" * 1000)
                client.read_to_end()
            else:
                client.read_to_end()
    wait_until(lambda: "race:3" not in served.stats()["channels"]["channels"])


@pytest.mark.parametrize("how", ["ping", "data", "bad-frame", "reset", "oversized", "close"])
def test_at_every_point_of_a_shutdown(
    redis_server: object, start_daemon: Callable[..., DaemonProcess], how: str
) -> None:
    """The daemon closes; clients do everything else. It is gone in time, with status 0 and no error."""
    daemon = start_daemon(redis_server.url, "--clients-farewell-seconds", "0.5")  # type: ignore[attr-defined]
    late = {**ARRIVALS, "close": close_frame(1000)}[how]
    clients = [RawClient.websocket(daemon.port) for _ in range(ROUNDS)]
    daemon.process.terminate()
    for number, client in enumerate(clients):
        if number % 2:
            client.sock.recv(1)
        if late is None:
            client.reset()
        else:
            client.try_send(late[: number % len(late) + 1] if number % 3 else late)
    assert daemon.process.wait(5) == 0
    for client in clients:
        client.sock.close()
