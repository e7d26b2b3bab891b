"""Row 14: hundreds say what they have to say a byte at a time, and never come to its end; others want to be served."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import Peer, wait_until
from tests.actors.raw_client import head, upgrade
from tests.faults.healthy import Healthy
from tests.faults.row import Row
from tests.faults.stage import Stage

FIELD = b"X-Slow: " + b"a" * 2000
POST = b"POST /api/publish HTTP/1.1"
CHUNKED = b"".join(b"1\r\na\r\n" for _ in range(400))
# What is sent at once, and what then trickles.
KINDS = {
    "handshakes": (b"", upgrade(b"/ws", FIELD)),
    "heads": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", FIELD),
    "bodies": (head(POST, b"Content-Length: 2000"), b"[" * 2000),
    "chunked bodies": (head(POST, b"Transfer-Encoding: chunked"), CHUNKED),
    "trailers": (head(POST, b"Transfer-Encoding: chunked") + b"0\r\n", FIELD),
}


@define(eq=False)
class Loris:
    """One of them. It goes on trickling when it has been answered, until its connection breaks."""

    peer: Peer
    rest: bytes
    began: float = field(factory=time.monotonic)
    dropped_after: float | None = None

    def trickle(self) -> None:
        with suppress(OSError):
            self.peer.socket.send(self.rest[:1])
        self.rest = self.rest[1:]

    def look(self) -> None:
        """Note when the daemon has said no, and closed its side."""
        self.peer.read()
        if self.peer.ended and self.dropped_after is None:
            self.dropped_after = time.monotonic() - self.began


def play(stage: Stage) -> None:
    redis = stage.redis()
    # At its small size the daemon gives them less time, and a busy machine more.
    given_seconds = 8.0 if stage.is_full else 0.8
    flags = () if stage.is_full else ("--listen-head-seconds", "0.8", "--listen-body-seconds", "0.8")
    within_seconds = stage.pick(10.0, 5.0)
    daemon = stage.daemon(redis.url, *flags)
    with Healthy(redis, daemon.port) as healthy:
        alone_from = time.monotonic()
        wait_until(lambda: time.monotonic() - alone_from > stage.pick(5.0, 0.5))
        base = connections_of(daemon)
        flood_from = time.monotonic()
        crowd = open_crowd(daemon.port, stage.pick(500, 100))
        trickle(crowd, every_seconds=stage.pick(1.0, 0.1), seconds=2 * within_seconds)
        with suppress(AssertionError):  # then it took too long, which the figure says
            wait_until(lambda: connections_of(daemon) <= base)
        freed_after = time.monotonic() - flood_from
        alone, flooded = healthy.p99(alone_from, flood_from), healthy.p99(flood_from)
    refused = sum(loris.peer.raw.startswith(b"HTTP/1.1 408 ") for loris in crowd)
    dropped = [loris.dropped_after for loris in crowd if loris.dropped_after is not None]
    stage.exactly("dropped with 408", refused, len(crowd))
    as_counted = daemon.stats()["limits"]["head_or_body_seconds"]
    stage.exactly("dropped for taking too long, as the daemon counts them", as_counted, len(crowd))
    stage.at_least("the first one dropped after", min(dropped, default=0.0), given_seconds - 0.1, "s")
    stage.at_most("the last one dropped after", max(dropped, default=float("inf")), within_seconds, "s")
    stage.at_most("their places free after", freed_after, within_seconds, "s")
    # Below 50 ms there is more noise of the machine in it than flood.
    slowest = max(2 * alone, stage.pick(0.05, 1.0))
    stage.at_most("p99 of healthy clients beside them", flooded, slowest, "s")
    healthy.measure(stage)


def connections_of(daemon: DaemonProcess) -> int:
    return int(daemon.stats()["connections"]["open"])


def open_crowd(port: int, count: int) -> list[Loris]:
    kinds = list(KINDS.values())
    return [Loris(Peer(port, kinds[at % len(kinds)][0]), kinds[at % len(kinds)][1]) for at in range(count)]


def trickle(crowd: list[Loris], *, every_seconds: float, seconds: float) -> None:
    """A byte of each now and then, and an eye on all, until all have been dropped."""
    deadline = time.monotonic() + seconds
    due = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for loris in crowd:
            selector.register(loris.peer.socket, selectors.EVENT_READ, loris)
        left = len(crowd)
        while left and time.monotonic() < deadline:
            if time.monotonic() >= due:
                due += every_seconds
                for loris in crowd:
                    loris.trickle()
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                key.data.look()
                if key.data.dropped_after is not None:
                    selector.unregister(key.fileobj)
                    left -= 1


ROW = Row(
    14,
    "Who says its head or body a byte at a time is dropped, and slows nobody down",
    "500 connections that trickle WebSocket handshakes, heads, bodies, chunked bodies and trailers, a byte a second; "
    "healthy clients beside",
    "all dropped within 10 s; healthy ones unaffected: their 99th percentile at most twice that without (or 50 ms), "
    "nothing lost",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
