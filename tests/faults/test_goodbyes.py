"""Row 10: SIGTERM while events go to a crowd. Who reads gets a goodbye; who does not read holds nobody up."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

from tests.actors.followers import SseFollower, WebSocketFollower, follow, open_followers
from tests.actors.returning import ReturningStream, ReturningWebSocket, Service, raise_open_files
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.promise.oracle import Truth

CHANNELS = tuple(f"kept:{index}" for index in range(10))
FLAGS = ("--type", "kept.history_length=1000", "--type", "kept.history_seconds=600")
OPEN_AT_ONCE = 200
# Little fits on the way to who does not read: for each of them something waits in the daemon.
NARROW = {"receive_buffer": 4096, "segment_bytes": 1400}
UNREAD = "much:1"
PAYLOAD = b'{"pad":"%b"}' % (b"x" * 8000)
CLOSE_1012 = b"\x03\xf4server shutting down"
LAST_CHUNK = b"\r\n0\r\n\r\n"


class _Attentive:
    """Looks at how its connection ended."""

    was_reset = False
    last_bytes = b""

    def cut(self) -> None:
        if self.peer is not None:
            self.was_reset, self.last_bytes = self.peer.was_reset, bytes(self.peer.raw[-100:])
        super().cut()


class _WebSocket(_Attentive, ReturningWebSocket):
    @property
    def has_goodbye(self) -> bool:
        return len(self.told) == 1 and self.last_bytes.endswith(CLOSE_1012)


class _Stream(_Attentive, ReturningStream):
    @property
    def has_goodbye(self) -> bool:
        return len(self.told) == 1 and not self.was_reset and self.last_bytes.endswith(LAST_CHUNK)


def play(stage: Stage) -> None:
    raise_open_files()
    redis = stage.redis()
    drain_seconds = stage.pick(10.0, 3.0)
    daemon = stage.daemon(redis.url, *FLAGS, "--daemon-drain-seconds", str(drain_seconds))
    half = stage.pick(1000, 100)
    service = Service(redis, CHANNELS, 5.0)
    try:
        readers = [
            kind((CHANNELS[index % len(CHANNELS)],), service.truths, daemon.port)
            for index in range(half * 9 // 10)
            for kind in (_WebSocket, _Stream)
        ]
        for begin in range(0, len(readers), OPEN_AT_ONCE):
            open_followers(readers[begin : begin + OPEN_AT_ONCE])
        asleep = [
            kind((UNREAD,), {UNREAD: Truth()}, daemon.port, **NARROW)
            for _ in range(half // 10)
            for kind in (WebSocketFollower, SseFollower)
        ]
        open_followers(asleep)
        redis.publish(UNREAD, *[PAYLOAD] * 40)
        follow(readers, lambda: daemon.stats()["outboxes"]["queuedBytes"] > len(asleep) * len(PAYLOAD))

        for reader in readers:
            reader.port = None  # nobody comes back
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        follow(readers, lambda: all(reader.peer is None for reader in readers), drain_seconds + 15)
        told = time.monotonic() - began
        status = daemon.process.wait(drain_seconds + 15)
        ended = time.monotonic() - began
    finally:
        published = service.end()
    faults = [fault for reader in readers for fault in reader.faults()]
    stage.faults += faults[:5]
    untold = [reader for reader in readers if not reader.has_goodbye]
    stage.faults += [f"{each} was told {each.told}, reset {each.was_reset}, {each.last_bytes!r}" for each in untold[:5]]
    stage.at_least("events published", published * len(CHANNELS), stage.pick(400, 50))
    [cut_off] = [
        entry["cut_off"] for entry in map(json.loads, daemon.log().splitlines()) if entry["event"] == "stopped"
    ]
    stage.exactly("clients that read nothing and were cut off, as the daemon says", cut_off, half // 10 * 2)
    stage.exactly("goodbyes to those that read", len(readers) - len(untold), half // 10 * 18)
    stage.at_most("all told within", told, drain_seconds, "s")
    stage.exactly("events lost, doubled or out of order before it", len(faults), 0)
    stage.exactly("exit status", status, 0)
    # At small size others have the processors too.
    stage.at_most("exit within", ended, drain_seconds + stage.pick(2.0, 10.0), "s")


ROW = Row(
    10,
    "A daemon that stops says goodbye to everybody who reads",
    "SIGTERM with 1000 WebSocket and 1000 SSE clients, 10 % not reading, while 50 events a second go to the others",
    "every reading client gets its goodbye (close 1012, or `retry:` and a clean end); exit 0 within the drain time + "
    "2 s",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
