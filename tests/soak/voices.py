"""The voices of a soak: services that publish, through Redis and over HTTP, and go on through every fault.

Each has channels with history, counts up on each of them, and tries again under the same key until it is
answered; so what it says is there once, whatever becomes of Redis and of the answers.
"""

from __future__ import annotations

import http.client
import json
import random
import time
from abc import ABC, abstractmethod
from threading import Event, Thread

import redis
from attrs import define, field

from tests.actors.followers import Truths
from tests.actors.redis_server import RedisServer
from tests.promise.oracle import STAMPED
from tests.promise.publishing import StampingPublisher

HTTP = "http"
CHANNELS = (*(f"long:{number}" for number in range(4)), *(f"short:{number}" for number in range(2)))
PLAIN_CHANNELS = ("plain:0", "plain:1")
_AGAIN_SECONDS = 0.05


@define(eq=False)
class Voice(ABC):
    """One service, in a thread of its own.

    Args:
        name: how its events say who they are from.
        said: how many it has published.
    """

    name: str
    truths: Truths
    dice: random.Random
    a_second: float
    said: int = 0
    retries: int = 0
    failures: list[BaseException] = field(factory=list)
    _may: Event = field(factory=Event)
    _rests: Event = field(factory=Event)
    _over: Event = field(factory=Event)
    _thread: Thread = field(init=False)

    def start(self) -> None:
        self._rests.set()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        self._rests.clear()
        self._may.set()

    def rest(self, seconds: float) -> None:
        """Wait until all that it said is answered, and it says nothing more."""
        self._may.clear()
        assert self._rests.wait(seconds), f"{self.name} had no answer for {seconds:g} s"
        assert self.failures == []

    def end(self) -> None:
        self._over.set()
        self._may.set()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                if not self._may.is_set():
                    self._rests.set()
                    self._may.wait()
                    continue
                self._say(self.dice.choice(CHANNELS))
                time.sleep(self.dice.expovariate(self.a_second))
        except BaseException as error:
            self.failures.append(error)
            self._rests.set()

    def _say(self, channel: str) -> None:
        counts = self.truths[channel].published
        # Counted first: who comes later has to have what comes later.
        number = counts[self.name] = counts[self.name] + 1
        event = {"type": "soak", "c": channel, "by": self.name, "n": number, "pad": "x" * self.dice.randrange(2000)}
        while not self.publish(channel, event, f"{self.name}:{channel}:{number}"):
            self.retries += 1
            time.sleep(_AGAIN_SECONDS)
        self.said += 1

    @abstractmethod
    def publish(self, channel: str, event: dict[str, object], key: str) -> bool:
        """Once. Returns whether it was answered that the event is published."""


@define(eq=False)
class RedisVoice(Voice):
    """Publishes with a stamp, and a plain PUBLISH now and then, which nobody counts."""

    server: RedisServer = field(kw_only=True)
    _publisher: StampingPublisher | None = None

    def publish(self, channel: str, event: dict[str, object], key: str) -> bool:
        try:
            if self._publisher is None:
                self._publisher = StampingPublisher.at(self.server)
            # A key once more is answered with why it is not kept: empty.
            (answer,) = self._publisher.publish(channel, [json.dumps(event).encode()], once=[key])
            if not (isinstance(answer, int) or answer[1] == b""):
                raise AssertionError(f"Redis answered {answer!r}")
            self._publisher.execute("PUBLISH", self.dice.choice(PLAIN_CHANNELS), b'{"type":"plain"}')
        except redis.RedisError:
            if self._publisher is not None:
                self._publisher.close()
                self._publisher = None
            return False
        return True


@define(eq=False)
class HttpVoice(Voice):
    """Publishes with `POST /api/publish`, over one connection."""

    port: int = field(kw_only=True)
    _connection: http.client.HTTPConnection | None = None

    def publish(self, channel: str, event: dict[str, object], key: str) -> bool:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = json.dumps({"channel": channel, "event": event})
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            self._connection.request("POST", "/api/publish", body, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.hang_up()
            return False
        if answer.status not in (200, 503):
            raise AssertionError(f"HTTP {answer.status}: {text!r}")
        return answer.status == 200

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def voices(
    truths: Truths, server: RedisServer, port: int, seed: int, pace: float = 1.0
) -> tuple[RedisVoice, HttpVoice]:
    """Both, and their counts begin at nothing."""
    for channel in CHANNELS:
        truths[channel].published |= {STAMPED: 0, HTTP: 0}
    return (
        RedisVoice(STAMPED, truths, random.Random(f"{seed}:{STAMPED}"), 40.0 * pace, server=server),
        HttpVoice(HTTP, truths, random.Random(f"{seed}:{HTTP}"), 10.0 * pace, port=port),
    )
