"""Publishing as a load: commands for Redis, made beforehand, sent at a rate or with so many in flight.

Bounds: `QUIET_SECONDS` without a delivery ends the wait for those that are missing.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

from attrs import define, field, frozen

from broker.history import call
from broker.history.keys import Keys
from broker.publisher.publication import Publication
from broker.upstream.commands import packed
from tests.bench.subscribers import Subscribers

PAYLOAD_BYTES = 200
QUIET_SECONDS = 5.0

Way = Callable[[str, bytes], bytes]
"""Makes the command that publishes an event on a channel."""


def plain(channel: str, payload: bytes) -> bytes:
    """A bare PUBLISH."""
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(channel),
        channel.encode(),
        len(payload),
        payload,
    )


def stamped(channel: str, payload: bytes) -> bytes:
    """The script that keeps the event and publishes it with its position, as `Publisher` calls it."""
    return packed(call.publish(_KEYS, Publication(channel, payload), None, 0).by_digest())


def unkept(channel: str, payload: bytes) -> bytes:
    """A bare PUBLISH that nobody records: as the script's own, and to the same listeners."""
    return plain(channel, b"\x01u " + payload)


_KEYS = Keys("")


def payload_of(number: int, size: int = PAYLOAD_BYTES) -> bytes:
    payload = b'{"n":%d,"d":"' % number
    return payload + b"x" * (size - len(payload) - 2) + b'"}'


@frozen
class Pace:
    """`rate` a second, or `window` of them in flight."""

    rate: float = 0.0
    window: int = 0


@define(eq=False)
class Publishing:
    """One connection to Redis; nothing waits for an answer, and an error among the answers is raised."""

    port: int
    _socket: socket.socket = field(init=False)
    _end: bytes = b"\n"

    def __attrs_post_init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    def run(
        self,
        commands: Sequence[bytes],
        pace: Pace,
        subscribers: Subscribers,
        deliveries_each: float,
        *,
        first: int = 0,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> float:
        """Publish everything and wait for all of it. Returns the seconds until the last delivery.

        Args:
            deliveries_each: how many subscribers a command reaches.
            first: the number in the first command's event.
            meanwhile: called again and again.
        """
        before = subscribers.received
        expected = round(len(commands) * deliveries_each)
        begun = last = time.monotonic()
        sent = received = 0
        while received < expected:
            due = self._due(pace, sent, len(commands), begun, received / deliveries_each)
            if due:
                subscribers.published(first + sent, due, time.monotonic())
                self._send(b"".join(commands[sent : sent + due]), subscribers)
                sent += due
            subscribers.poll(0.001)
            meanwhile()
            now = time.monotonic()
            if subscribers.received - before != received or sent < len(commands):
                received, last = subscribers.received - before, now
            elif now - last > QUIET_SECONDS:
                break
        self._drain()
        return last - begun

    def ask(self, *commands: bytes) -> None:
        """Send commands, each of which is answered with one line, and wait for the answers."""
        answers, before = b"", self._socket.gettimeout()
        self._socket.settimeout(QUIET_SECONDS)
        self._socket.sendall(b"".join(commands))
        while answers.count(b"\n") < len(commands):
            answers += self._socket.recv(1 << 16)
        self._socket.settimeout(before)
        self._check(answers)

    def send(self, data: bytes, subscribers: Subscribers) -> None:
        """Send commands and wait for nothing."""
        self._send(data, subscribers)

    def close(self) -> None:
        self._socket.close()

    def _due(self, pace: Pace, sent: int, total: int, begun: float, arrived: float) -> int:
        if pace.rate:
            return max(0, min(total, int((time.monotonic() - begun) * pace.rate) + 1) - sent)
        return max(0, min(total - sent, pace.window - (sent - int(arrived))))

    def _send(self, data: bytes, subscribers: Subscribers) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                subscribers.poll(0.001)
            self._drain()

    def _drain(self) -> None:
        """Redis' answers: read, or it would stop reading us."""
        try:
            while data := self._socket.recv(1 << 16):
                self._check(data)
        except BlockingIOError:
            pass

    def _check(self, answers: bytes) -> None:
        # A number is one line; where an answer begins in the middle of what is read, the line before ended.
        if b"\n-" in (answers := self._end + answers):
            raise RuntimeError(f"Redis answered {answers[:200]!r}")
        self._end = answers[-1:]
