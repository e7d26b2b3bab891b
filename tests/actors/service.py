"""A service that publishes events with a stamp, so many a second, whatever becomes of Redis meanwhile.

What was not answered it publishes again under the same idempotency key, as the publishers do. What could not be
published while Redis was away it publishes when it is back, in larger batches. The events are those of
`tests.promise.publishing`.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable

import redis
from attrs import define, field

from tests.actors.followers import Truths
from tests.actors.redis_server import RedisServer
from tests.promise.oracle import STAMPED
from tests.promise.publishing import StampingPublisher

_AGAIN_SECONDS = 0.01
BATCH_MAX = 50


@define(eq=False)
class Service:
    """Publishes on every channel of `truths` in turn, from `start` to `end`, in a thread of its own.

    Args:
        truths: what is published is counted in them, before it is.
        rate: events a second.
        seed: of the sizes of its batches, and of the tags.
        pad: that many bytes more in each event.
        batch: events in a batch at most, where nothing is overdue.
    """

    server: RedisServer
    truths: Truths
    rate: float
    seed: int
    pad: int = 0
    batch: int = 4
    published: int = field(init=False, default=0)
    seconds: float = field(init=False, default=0.0)
    _dice: random.Random = field(init=False)
    _over: threading.Event = field(init=False, factory=threading.Event)
    _interruption: Callable[[], object] | None = field(init=False, default=None)
    _failures: list[Exception] = field(init=False, factory=list)
    _publisher: StampingPublisher | None = field(init=False, default=None)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """What is overdue is published first. Raises what went wrong."""
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the service does not end"
        if self._failures:
            raise self._failures[0]

    def interrupt(self, what: Callable[[], object]) -> None:
        """Have this called while the next batch is on its way and not yet answered."""
        self._interruption = what

    def _run(self) -> None:
        began = time.monotonic()
        channels = itertools.cycle(self.truths)
        try:
            while True:
                is_over = self._over.is_set()
                due = int((time.monotonic() - began) * self.rate) - self.published
                if due > 0:
                    self._publish(next(channels), min(due, BATCH_MAX))
                elif is_over:
                    return
                else:
                    self._over.wait(self._dice.randint(1, self.batch) / self.rate)
        except Exception as error:
            self._failures.append(error)
        finally:
            self.seconds = time.monotonic() - began
            self._hang_up()

    def _publish(self, channel: str, count: int) -> None:
        """Until it is answered."""
        counts = self.truths[channel].published
        numbers = range(counts[STAMPED] + 1, counts[STAMPED] + count + 1)
        counts[STAMPED] += count
        pad = "x" * self.pad
        events = [json.dumps({"c": channel, "by": STAMPED, "n": number, "pad": pad}).encode() for number in numbers]
        keys = [str(number) for number in numbers]
        while True:
            try:
                if self._publisher is None:
                    self._publisher = StampingPublisher.at(self.server, seed=self._dice.getrandbits(30))
                what, self._interruption = self._interruption, None
                if what is not None:
                    self._publisher.send(channel, events, once=keys)
                    self._hang_up()
                    what()
                    continue
                answers = self._publisher.publish(channel, events, once=keys)
            except redis.RedisError:
                self._hang_up()
                time.sleep(_AGAIN_SECONDS)
                continue
            # What was published before is answered with why it is not kept: empty.
            assert all(isinstance(each, int) or each[1] == b"" for each in answers), answers
            self.published += count
            return

    def _hang_up(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
