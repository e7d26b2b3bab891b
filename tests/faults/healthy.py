"""Healthy clients beside what a row does to a daemon: they read at once, answer pings, and must notice nothing.

A publisher numbers its events, so many a second; clients of both transports, with positions and without, follow them.
What they note is for the oracle. How old an event is when it arrives counts from when it was due, so a publisher that
is held up makes it older, too.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from attrs import define, field

from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.peers import _masked
from tests.actors.redis_server import RedisServer
from tests.faults.stage import Stage
from tests.faults.verdicts import judge
from tests.promise.oracle import STAMPED, Event, Truth
from tests.promise.publishing import StampingPublisher

END_SECONDS = 15.0
_PONG_SECONDS = 0.2
_PONG = _masked(10, b"")


@define(eq=False)
class Healthy:
    """Lives as long as its `with`, in a thread of its own; `measure` afterwards.

    Args:
        a_second: how many events are published.
    """

    server: RedisServer
    port: int
    a_second: float = 50.0
    channel: str = field(init=False, factory=lambda: f"job_progress:healthy_{os.urandom(4).hex()}")
    published: int = field(init=False, default=0)
    followers: tuple[Follower, ...] = field(init=False)
    arrivals: list[tuple[float, float]] = field(init=False, factory=list)  # when, and how old the event was
    _truth: Truth = field(init=False, factory=Truth)
    _due_at: list[float] = field(init=False, factory=list)
    _noted: list[int] = field(init=False)
    _began_at: float = field(init=False)
    _lived_seconds: float = field(init=False)
    _failures: list[BaseException] = field(init=False, factory=list)
    _over: threading.Event = field(init=False, factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        truths: Truths = {self.channel: self._truth}
        kinds = (WebSocketFollower, V1Follower, SseFollower)
        self.followers = tuple(kind((self.channel,), truths, self.port) for kind in kinds)
        self._noted = [0] * len(self.followers)
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Healthy:
        open_followers(self.followers)
        self._began_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lived_seconds = time.monotonic() - self._began_at
        self._over.set()
        self._thread.join(2 * END_SECONDS)
        if self._failures and error is None:
            raise self._failures[0]

    def p99(self, begin: float = 0.0, end: float = float("inf")) -> float:
        """Of 99 in 100 events that arrived between two times: how old they were at most, in seconds."""
        ages = [age for at, age in self.arrivals if begin <= at < end]
        return statistics.quantiles(ages, n=100)[-1]

    def measure(self, stage: Stage) -> None:
        """What was not as promised to them, in figures."""
        # At small size others have the processors as well.
        due = stage.pick(0.9, 0.1) * self.a_second * self._lived_seconds
        stage.at_least("events to each of three healthy clients", self.published, max(1, int(due)))
        judge(stage, self.followers)
        stage.exactly("gaps told", sum(len(follower.gaps()) for follower in self.followers), 0)
        stage.exactly("healthy connections ended", sum(follower.endings for follower in self.followers), 0)

    def _live(self) -> None:
        try:
            publisher = StampingPublisher.at(self.server)
            due = time.monotonic()
            pong_at = 0.0
            while not self._over.is_set():
                self._publish(publisher, due)
                due += 1 / self.a_second
                follow(self.followers, self._until(due))
                if time.monotonic() >= pong_at:
                    self._answer_pings()
                    pong_at = time.monotonic() + _PONG_SECONDS
            follow(self.followers, lambda: self._note() >= self.published, END_SECONDS)
            publisher.close()
        except BaseException as error:
            self._failures.append(error)

    def _until(self, due: float) -> Callable[[], bool]:
        """Whether it is time; not before what has come was read once."""
        turns = itertools.count()

        def is_due() -> bool:
            self._note()
            return next(turns) > 0 and time.monotonic() >= due

        return is_due

    def _publish(self, publisher: StampingPublisher, due: float) -> None:
        self.published += 1
        self._truth.published[STAMPED] = self.published  # before it is there: the oracle asks for no later one
        self._due_at.append(due)
        said = {"type": "progress", "c": self.channel, "by": STAMPED, "n": self.published}
        publisher.publish(self.channel, [json.dumps(said).encode()])

    def _note(self) -> int:
        """Note when new events arrived. Returns the number of the last that all have heard."""
        now = time.monotonic()
        last = self.published
        for index, follower in enumerate(self.followers):
            entries = follower.records[self.channel].entries
            for entry in entries[self._noted[index] :]:
                if isinstance(entry, Event):
                    self.arrivals.append((now, now - self._due_at[entry.heard[1] - 1]))
            self._noted[index] = len(entries)
            heard = entries[-1].heard[1] if entries and isinstance(entries[-1], Event) else 0
            last = min(last, heard)
        return last

    def _answer_pings(self) -> None:
        for follower in self.followers:
            if isinstance(follower, WebSocketFollower) and follower.peer is not None:
                with suppress(OSError):
                    follower.peer.socket.send(_PONG)
