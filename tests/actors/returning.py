"""Clients that come back when they were told to, and somebody who knocks at the door all the while."""

from __future__ import annotations

import json
import resource
import socket
import time
from threading import Event, Thread
from types import TracebackType
from typing import Any

from attrs import Factory, define

from tests.actors.followers import SseFollower, Truths, V1Follower
from tests.actors.redis_server import RedisServer
from tests.promise.oracle import STAMPED, Truth
from tests.promise.publishing import StampingPublisher


def raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Returning:
    """Notes how long it is told to stay away, and does so.

    `told` is in milliseconds, one for each goodbye; `refused` counts connections that were not taken.
    """

    told: list[int]
    refused: int
    _was_told = False

    def connect(self) -> None:
        super().connect()
        self.refused += self.peer is None

    def cut(self) -> None:
        super().cut()
        if self._was_told:
            self._was_told = False
            self._again_at = time.monotonic() + self.told[-1] / 1000

    def _note_goodbye(self, milliseconds: int) -> None:
        self.told.append(milliseconds)
        self._was_told = True


@define(eq=False, repr=False, slots=False)
class ReturningWebSocket(_Returning, V1Follower):
    told: list[int] = Factory(list)
    refused: int = 0

    def _take(self, text: bytes) -> None:
        super()._take(text)
        if text.startswith(b'{"type":"disconnected"'):
            self._note_goodbye(json.loads(text)["reconnectInMs"])


@define(eq=False, repr=False, slots=False)
class ReturningStream(_Returning, SseFollower):
    told: list[int] = Factory(list)
    refused: int = 0

    def _dispatch(self, block: bytes) -> None:
        super()._dispatch(block)
        if block.startswith(b"retry: "):
            self._note_goodbye(int(block.partition(b"\n")[0][7:]))


@define(eq=False)
class Service:
    """Publishes with a stamp, `rate` events a second on each channel, from its making until `end`."""

    _server: RedisServer
    channels: tuple[str, ...]
    rate: float
    truths: Truths = Factory(lambda self: {name: Truth({STAMPED: 0}) for name in self.channels}, takes_self=True)
    _over: Any = Factory(Event)
    _thread: Any = None
    _failures: list[Exception] = Factory(list)

    def __attrs_post_init__(self) -> None:
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many it has published on each channel, at least."""
        return self.truths[self.channels[-1]].published[STAMPED]

    def end(self) -> int:
        """Returns the count; raises what kept it from publishing."""
        self._over.set()
        self._thread.join()
        if self._failures:
            raise self._failures[0]
        return self.count

    def _run(self) -> None:
        try:
            self._publish()
        except Exception as error:
            self._failures.append(error)

    def _publish(self) -> None:
        publisher = StampingPublisher.at(self._server)
        while not self._over.wait(1 / self.rate):
            for channel in self.channels:
                published = self.truths[channel].published
                published[STAMPED] += 1
                payload = json.dumps({"c": channel, "by": STAMPED, "n": published[STAMPED]}).encode()
                publisher.publish(channel, [payload])
        publisher.close()


@define(eq=False)
class Knocking:
    """Connects without a pause, asks for /health, and notes what went wrong; half of them think before they ask.

    Args:
        where: what to connect to.
    """

    where: tuple[str, int] | str
    answered: int = 0
    wrong: list[str] = Factory(list)
    _over: Any = Factory(Event)
    _threads: list[Any] = Factory(list)

    def __enter__(self) -> Knocking:
        for pause in (0.0, 0.3):
            thread = Thread(target=self._knock, args=(pause,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _knock(self, pause: float) -> None:
        while not self._over.wait(0.002):
            try:
                self._ask(pause)
            except OSError as error:
                self.wrong.append(f"{type(error).__name__} after {pause} s: {error}")

    def _ask(self, pause: float) -> None:
        family = socket.AF_UNIX if isinstance(self.where, str) else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(10)
            sock.connect(self.where)
            if pause:
                time.sleep(pause)
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(65536):
                answer += data
        if answer.startswith(b"HTTP/1.1 200 "):
            self.answered += 1
        else:
            self.wrong.append(f"after {pause} s: {answer[:60]!r}")
