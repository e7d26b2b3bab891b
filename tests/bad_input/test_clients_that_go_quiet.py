"""Clients that stop reading, or stay after their goodbye; each with a daemon of its own settings."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.actors.bystander import watch
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, frame, head, text, wait_until
from tests.actors.redis_server import RedisServer

StartDaemon = Callable[..., DaemonProcess]


@pytest.mark.parametrize(
    ("flags", "ending", "code"),
    [
        (("--clients-outbox-max-bytes", "65536", "--channels-message-max-bytes", "65536"), "outbox_full", 4001),
        (("--clients-outbox-max-age-seconds", "0.5"), "outbox_stale", 4002),
    ],
    ids=["full", "stale"],
)
def test_a_client_that_never_reads(
    redis_server: RedisServer, start_daemon: StartDaemon, flags: tuple[str, ...], ending: str, code: int
) -> None:
    """It is ended with its name; those who start to read in time learn why; nobody else notices."""
    daemon = start_daemon(redis_server.url, *flags, "--clients-farewell-seconds", "1")
    payload = b'"%b"' % (b"a" * 30000)
    with (
        watch(daemon, redis_server),
        RawClient.websocket(daemon.port, receive_buffer=4096) as socket,
        RawClient.websocket(daemon.port, receive_buffer=4096) as reading_late,
        RawClient.connect(daemon.port, receive_buffer=4096) as stream,
    ):
        for client in socket, reading_late:
            client.send(text({"type": "subscribe", "channel": "slow:1"}))
            assert client.frame().json()["success"] is True
        stream.send(head(b"GET /api/stream?channel=slow:1 HTTP/1.1"))
        stream.answer()
        stream.read_until(b"\n\n\r\n")
        enough = 400 if ending == "outbox_full" else 120
        for _ in range(enough // 20):
            redis_server.publish("slow:1", *[payload] * 20)
        if ending == "outbox_stale":
            time.sleep(0.6)
        frames = reading_late.frames()
        assert frames[-1].code == code
        assert {frame.payload for frame in frames[:-1]} == {payload}
        wait_until(lambda: daemon.stats()["delivery"]["endings"].get(ending) == 3)


def test_a_client_that_stays_after_its_goodbye_is_cut_off(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--clients-farewell-seconds", "0.5")
    with RawClient.websocket(daemon.port) as client:
        client.send(frame(3))
        assert client.frame().code == 1002
        began = time.monotonic()
        while wait_until(lambda: True) and time.monotonic() - began < 5:
            try:
                client.send(b"\0" * 1000)
            except OSError:
                break
            time.sleep(0.02)
        assert 0.3 < time.monotonic() - began < 2
