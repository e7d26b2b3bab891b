"""The connections of an `AsyncPublisher` in one event loop, over redis.asyncio; loading this file loads it.

Laws: a connection is used by one task at a time, and never again after a breakdown or a cancellation;
one deadline holds for everything, looking up a name included. The connections close with the loop:
`asyncio.run` closes the asynchronous generators that are left, and one of them is ours. Bound:
`connections_max` for each loop.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any

import redis
from attrs import define, field
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from broker.history.keys import Keys
from broker.publisher.connection import broken, one_line, refusal_of, settings_of, unreachable
from broker.publisher.conversation import Conversation, Scripting
from broker.publisher.destination import Destination
from broker.publisher.exchange import CLOSED_OUTCOME, Breakdown, Outcome, busy
from broker.publisher.publication import Publication
from broker.publisher.statistics import BUSY


def maker(destination: Destination) -> Callable[[], Any]:
    """What makes connections: `maker(destination)()` is one that is not connected yet.

    Raises:
        ValueError, TypeError, redis.RedisError: the URL has a part that redis-py cannot use.
    """
    pool = ConnectionPool.from_url(destination.url, protocol=2)
    settings = settings_of(pool) | {"retry": Retry(NoBackoff(), 0), "socket_timeout": None}
    # Closing, too, is bounded by redis-py with the timeout of connecting.
    settings["socket_connect_timeout"] = destination.timeout_seconds
    kind = pool.connection_class
    return lambda: kind(**settings)


@define(eq=False)
class LoopPool:
    """Idle connections of one loop, the last used first. Raises nothing but what cancels it."""

    _destination: Destination
    _free: asyncio.Semaphore = field(init=False)
    _idle: list[Any] = field(init=False, factory=list)
    _make: Callable[[], Any] | None = field(init=False, default=None)
    _until_loop_ends: AsyncGenerator[None] | None = field(init=False, default=None)
    is_closed: bool = field(init=False, default=False)
    _scripting: Scripting = field(init=False, factory=Scripting)

    def __attrs_post_init__(self) -> None:
        self._free = asyncio.Semaphore(self._destination.connections_max)

    async def exchange(self, batch: Sequence[Publication], deadline: float) -> Outcome:
        """Publish `batch` by `deadline`, a time of `time.monotonic`."""
        if self.is_closed:
            return CLOSED_OUTCOME
        step = _Step(BUSY, busy(self._destination))
        conversation = Conversation(Keys(self._destination.channel_prefix), batch, self._scripting)
        try:
            async with asyncio.timeout(deadline - time.monotonic()), self._free:
                breakdown = await self._exchange(conversation, step)
        except TimeoutError:
            breakdown = Breakdown(step.reason, step.why)
        return conversation.outcome(breakdown)

    async def _exchange(self, conversation: Conversation, step: _Step) -> Breakdown | None:
        destination = self._destination
        late = redis.exceptions.TimeoutError("no answer in time")
        connection = await self._fresh()
        try:
            if connection is None:
                step.is_at(unreachable(late, destination))
                try:
                    connection = self._new()
                    await connection.connect()
                except Exception as error:  # redis-py does not say what a bad URL raises
                    return unreachable(error, destination)
                await self._watch_loop()
            step.is_at(broken(late, destination))
            try:
                while commands := conversation.ask():
                    await connection.send_packed_command([b"".join(connection.pack_commands(commands))])
                    for _ in commands:
                        try:
                            reply = await connection.read_response()
                        except redis.ResponseError as error:
                            reply = refusal_of(error, one_line(error, destination))
                        conversation.hear(reply)
            except (redis.RedisError, OSError, ValueError, TypeError) as error:
                return broken(error, destination)
            if not self.is_closed:
                self._idle.append(connection)
                connection = None
            return None
        finally:
            # Also when cancelled half way: its answer would be read as the next one's.
            if connection is not None:
                await drop(connection)

    async def _fresh(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            try:
                if not has_news(connection) and not await connection.can_read():
                    return connection
            except (redis.RedisError, OSError):
                pass
            await drop(connection)
        return None

    def _new(self) -> Any:
        if self._make is None:
            self._make = maker(self._destination)
        return self._make()

    async def _watch_loop(self) -> None:
        if self._until_loop_ends is None:
            self._until_loop_ends = self._close_with_loop()
            await anext(self._until_loop_ends)

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._drop_idle()

    async def aclose(self) -> None:
        """Close what is idle; what is in use closes after its call. May be called again."""
        self.is_closed = True
        await self._drop_idle()
        if self._until_loop_ends is not None:
            await self._until_loop_ends.aclose()

    async def _drop_idle(self) -> None:
        while self._idle:
            await drop(self._idle.pop())


@define
class _Step:
    """What it means if time runs out now."""

    reason: str
    why: str

    def is_at(self, breakdown: Breakdown) -> None:
        self.reason, self.why = breakdown.reason, breakdown.why


def has_news(connection: Any) -> bool:
    """Whether an idle connection has something to read: it was closed, and the loop may not have seen it yet."""
    poll = select.poll()
    poll.register(connection._writer.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


async def drop(connection: Any) -> None:
    """Close at once. Nothing is flushed: what could not be sent in time must not arrive later."""
    with suppress(Exception):
        writer = getattr(connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()
        await connection.disconnect(nowait=True)
