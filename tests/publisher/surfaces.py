"""The publishers behind one synchronous face, so that one contract is tested against each of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import redis
import trio
from attrs import define, field

from broker.publisher import AsyncPublisher, Publisher, RecordedEvent, RecordingPublisher, Statistics, TrioPublisher

BOUND_SECONDS = 5.0

Step = tuple[Any, ...]
"""What a job does: ("progress", ...), ("start", ...), ("wait", seconds), ("call", function) or ("raise", error)."""


class Surface(Protocol):
    """A publisher; coroutines are run to their end."""

    def publish(self, *arguments: Any, **options: Any) -> Any: ...
    def publish_many(self, *arguments: Any, **options: Any) -> Any: ...
    def publish_to_user(self, *arguments: Any, **options: Any) -> Any: ...
    def run_job(self, job_id: object, steps: list[Step], **options: Any) -> None: ...
    def statistics(self) -> Statistics: ...
    def close(self) -> None: ...
    def end(self) -> None: ...


@define(eq=False)
class Sync:
    publisher: Publisher

    def publish(self, *arguments: Any, **options: Any) -> Any:
        return self.publisher.publish(*arguments, **options)

    def publish_many(self, *arguments: Any, **options: Any) -> Any:
        return self.publisher.publish_many(*arguments, **options)

    def publish_to_user(self, *arguments: Any, **options: Any) -> Any:
        return self.publisher.publish_to_user(*arguments, **options)

    def run_job(self, job_id: object, steps: list[Step], **options: Any) -> None:
        with self.publisher.job(job_id, **options) as job:
            assert job.channel == f"job_progress:{'' if job_id is None else job_id}"
            for verb, *arguments in steps:
                if verb == "wait":
                    time.sleep(*arguments)
                elif verb == "call":
                    arguments[0]()
                elif verb == "raise":
                    raise arguments[0]
                else:
                    getattr(job, verb)(*arguments)

    def statistics(self) -> Statistics:
        return self.publisher.statistics()

    def close(self) -> None:
        self.publisher.close()

    def end(self) -> None:
        self.publisher.close()


@define(eq=False)
class Async:
    """What a coroutine publisher does, over `run`, which runs one coroutine function."""

    publisher: Any
    run: Callable[[Callable[[], Any]], Any]
    sleep: Callable[[float], Any]
    stop: Callable[[], None] = field(default=lambda: None)

    def publish(self, *arguments: Any, **options: Any) -> Any:
        return self.run(partial(self.publisher.publish, *arguments, **options))

    def publish_many(self, *arguments: Any, **options: Any) -> Any:
        return self.run(partial(self.publisher.publish_many, *arguments, **options))

    def publish_to_user(self, *arguments: Any, **options: Any) -> Any:
        return self.run(partial(self.publisher.publish_to_user, *arguments, **options))

    def run_job(self, job_id: object, steps: list[Step], **options: Any) -> None:
        async def body() -> None:
            async with self.publisher.job(job_id, **options) as job:
                assert job.channel == f"job_progress:{'' if job_id is None else job_id}"
                for verb, *arguments in steps:
                    if verb == "wait":
                        await self.sleep(*arguments)
                    elif verb == "call":
                        arguments[0]()
                    elif verb == "raise":
                        raise arguments[0]
                    else:
                        await getattr(job, verb)(*arguments)

        self.run(body)

    def statistics(self) -> Statistics:
        found = self.publisher.statistics()
        assert isinstance(found, Statistics)
        return found

    def close(self) -> None:
        self.run(self.publisher.aclose)

    def end(self) -> None:
        self.close()
        self.stop()


def sync_surface(url: str, **options: Any) -> Surface:
    return Sync(Publisher(url, **options))


def asyncio_surface(url: str, **options: Any) -> Surface:
    runner = asyncio.Runner()
    return Async(AsyncPublisher(url, **options), lambda call: runner.run(call()), asyncio.sleep, runner.close)


def trio_surface(url: str, **options: Any) -> Surface:
    return Async(TrioPublisher(url, **options), trio.run, trio.sleep)


REAL = {"sync": sync_surface, "asyncio": asyncio_surface, "trio": trio_surface}


def unstamped(message: bytes) -> bytes:
    """The event of a message from a channel with history, where a stamp is in front; of another, the message."""
    return message.partition(b" ")[2] if message.startswith(b"\x01") else message


@define(eq=False)
class RedisEar:
    """A plain redis-py subscriber of everything: what a service, or the daemon, would receive."""

    client: redis.Redis
    pubsub: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pubsub = self.client.pubsub()
        self.pubsub.psubscribe("*")
        assert self.pubsub.get_message(timeout=BOUND_SECONDS)["type"] == "psubscribe"

    def hear(self, count: int | None) -> list[tuple[str, bytes]]:
        """The events that were published before now, `count` of them, if it is given, without their stamps."""
        return [(channel, unstamped(message)) for channel, message in self.hear_stamped(count)]

    def hear_stamped(self, count: int | None) -> list[tuple[str, bytes]]:
        """The same as they are in Redis."""
        found = []
        self.client.publish("end-of-test", b"")
        while True:
            message = self.pubsub.get_message(timeout=BOUND_SECONDS)
            assert message is not None
            if message["channel"] == b"end-of-test":
                break
            found.append((message["channel"].decode(), message["data"]))
        assert count is None or len(found) == count, found
        return found

    def close(self) -> None:
        self.pubsub.close()
        self.client.close()


@define(eq=False)
class RecordedEar:
    """The same of a RecordingPublisher."""

    publisher: RecordingPublisher

    def hear(self, count: int | None) -> list[tuple[str, bytes]]:
        found = [(event.channel, _in_redis(event)) for event in self.publisher.published]
        self.publisher.published.clear()
        assert count is None or len(found) == count, found
        return found

    def close(self) -> None:
        pass


def _in_redis(event: RecordedEvent) -> bytes:
    """What a publisher with a Redis would have published."""
    if event.user is None:
        return event.payload
    return b'{"user":%b,"event":%b}' % (json.dumps(event.user, ensure_ascii=False).encode(), event.payload)


Ear = RedisEar | RecordedEar
