"""`AsyncPublisher`: publishes events from asyncio.

Laws: as `Publisher`'s, with `await`; looking up a name counts as well. Connections belong to the event
loop that made them: one publisher serves several loops, one after another or at once. Order: awaited
calls of one task arrive in that order.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, overload
from weakref import WeakKeyDictionary

from attrs import define, field

from broker.publisher.circuit import Circuit
from broker.publisher.destination import MIB, Destination
from broker.publisher.exchange import CANCELLATION, CLOSED_OUTCOME, Outcome
from broker.publisher.fork import renew_after_fork
from broker.publisher.front import Front
from broker.publisher.publication import (
    USERS_CHANNEL,
    Item,
    Payload,
    Publication,
    listed,
    made,
    publication,
    publications,
    user_publication,
)
from broker.publisher.statistics import Statistics, Tally

if TYPE_CHECKING:
    from broker.events import Event
    from broker.publisher.asyncio_job import AsyncJob
    from broker.publisher.asyncio_pool import LoopPool

_POOL_FILE = "broker.publisher.asyncio_pool"


@define(eq=False, init=False)
class AsyncPublisher:
    """Publishes to Redis, for the daemon to deliver. Share one in a process; close it, or use `async with`.

    Args: as `Publisher`; `connections_max` is for each event loop.
    """

    destination: Destination
    front: Front = field(init=False)
    _pools: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopPool] = field(init=False)
    _lock: threading.Lock = field(init=False)
    _is_closed: bool = field(init=False, default=False)

    def __init__(
        self,
        url: str | None = None,
        *,
        channel_prefix: str | None = None,
        timeout_seconds: float = 0.5,
        pause_seconds: float = 1.0,
        connections_max: int = 16,
        event_max_bytes: int = MIB,
    ) -> None:
        self.destination = Destination.from_settings(
            url,
            channel_prefix,
            timeout_seconds=timeout_seconds,
            pause_seconds=pause_seconds,
            connections_max=connections_max,
            event_max_bytes=event_max_bytes,
        )
        self._is_closed = False
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Called in a forked child: a loop of the parent's is none of the child's."""
        self.front = Front(self.destination, Tally(self.destination.shown, Circuit(self.destination.pause_seconds)))
        self._pools = WeakKeyDictionary()
        self._lock = threading.Lock()

    @overload
    async def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: Literal[False] = False,
        idempotency_key: str | None = None,
    ) -> bool: ...
    @overload
    async def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: Literal[True],
        idempotency_key: str | None = None,
    ) -> int: ...
    @overload
    async def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: bool,
        idempotency_key: str | None = None,
    ) -> bool | int: ...

    async def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: bool = False,
        idempotency_key: str | None = None,
    ) -> bool | int:
        """As `Publisher.publish`. Cancelled, it may or may not have published; it is counted as cancelled."""
        receivers = await self.send(
            lambda: [publication(target, event, self.destination.event_max_bytes, idempotency_key)],
            1,
            await self.deadline(),
            confirm=confirm,
            channel=target if isinstance(target, str) else "",
        )
        if confirm and receivers is not None:
            return receivers[0]
        return receivers is not None

    @overload
    async def publish_many(self, items: Iterable[Item], *, confirm: Literal[False] = False) -> bool: ...
    @overload
    async def publish_many(self, items: Iterable[Item], *, confirm: Literal[True]) -> list[int]: ...
    @overload
    async def publish_many(self, items: Iterable[Item], *, confirm: bool) -> bool | list[int]: ...

    async def publish_many(self, items: Iterable[Item], *, confirm: bool = False) -> bool | list[int]:
        """As `Publisher.publish_many`."""
        found, count = listed(items)
        receivers = await self.send(
            lambda: publications(found, self.destination.event_max_bytes),
            count,
            await self.deadline(),
            confirm=confirm,
        )
        if confirm and receivers is not None:
            return receivers
        return receivers is not None

    @overload
    async def publish_to_user(self, user: str, event: Payload, *, confirm: Literal[False] = False) -> bool: ...
    @overload
    async def publish_to_user(self, user: str, event: Payload, *, confirm: Literal[True]) -> int: ...
    @overload
    async def publish_to_user(self, user: str, event: Payload, *, confirm: bool) -> bool | int: ...

    async def publish_to_user(self, user: str, event: Payload, *, confirm: bool = False) -> bool | int:
        """As `Publisher.publish_to_user`."""
        receivers = await self.send(
            lambda: [user_publication(user, event, self.destination.event_max_bytes)],
            1,
            await self.deadline(),
            confirm=confirm,
            channel=USERS_CHANNEL,
        )
        if confirm and receivers is not None:
            return receivers[0]
        return receivers is not None

    def job(
        self,
        job_id: object,
        *,
        stage: str = "queued",
        message: str = "",
        metadata: Mapping[str, Any] | None = None,
        describe: Callable[[BaseException], str] | None = None,
        per_second: float = 10.0,
    ) -> AsyncJob:
        """As `Publisher.job`: `async with publisher.job("42") as job: await job.progress(0.4)`."""
        from broker.publisher.asyncio_job import AsyncJob
        from broker.publisher.course import Course

        return AsyncJob(self, Course(job_id, stage, message, metadata, self._interval(per_second)), describe)

    def statistics(self) -> Statistics:
        """What was published and lost since the publisher was made, or since the fork."""
        return self.front.tally.statistics()

    async def aclose(self) -> None:
        """Close this loop's connections and tell what is untold; those of other loops close with their loop."""
        self._is_closed = True
        with self._lock:
            pools, self._pools = dict(self._pools), WeakKeyDictionary()
        for loop, pool in pools.items():
            pool.is_closed = True
            if loop is asyncio.get_running_loop():
                await pool.aclose()
        self.front.tally.close()

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def send(
        self,
        check: Callable[[], list[Publication]],
        count: int,
        deadline: float,
        *,
        confirm: bool,
        urgent: bool = False,
        channel: str = "",
    ) -> list[int] | None:
        """Send what `check` makes, by `deadline`; how many received each, None where not all was taken.

        Args:
            urgent: ask Redis in a pause too, as with `confirm`: who asked to be told, or the end of a job.
        """
        front = self.front
        batch = front.checked(check, count, confirm=confirm, channel=channel)
        if batch is None:
            return None
        if not batch:
            return []
        if self._is_closed:
            return front.settle(batch, CLOSED_OUTCOME, confirm=confirm)
        if not front.admits(batch, urgent=confirm or urgent):
            return None
        try:
            outcome = await self._exchange(batch, deadline)
        except asyncio.CancelledError:
            # Whoever cancelled knows; it is only counted.
            front.tally.lost(CANCELLATION.reason, len(batch), CANCELLATION.why, told=True)
            raise
        return front.settle(batch, outcome, confirm=confirm)

    async def send_events(
        self, step: Callable[[float], Sequence[Event]], deadline: float, channel: str, *, urgent: bool
    ) -> None:
        """Send what a step of a job makes, which may be nothing."""
        most = self.destination.event_max_bytes
        await self.send(lambda: made(step, most), 1, deadline, confirm=False, urgent=urgent, channel=channel)

    async def deadline(self) -> float:
        """When a call that begins now has to be over, by `time.monotonic`."""
        if _POOL_FILE not in sys.modules:
            # redis-py takes 0.2 s to load: not in the loop's thread, and before the clock starts.
            await asyncio.to_thread(import_module, _POOL_FILE)
        return time.monotonic() + self.destination.timeout_seconds

    async def _exchange(self, batch: Sequence[Publication], deadline: float) -> Outcome:
        return await self._pool().exchange(batch, deadline)

    def _pool(self) -> LoopPool:
        from broker.publisher.asyncio_pool import LoopPool

        loop = asyncio.get_running_loop()
        with self._lock:
            pool = self._pools.get(loop)
            if pool is None:
                # Its own connections may keep a loop that has ended.
                for ended in [each for each in self._pools if each.is_closed()]:
                    del self._pools[ended]
                pool = self._pools[loop] = LoopPool(self.destination)
            return pool

    def _interval(self, per_second: float) -> float:
        return 1 / per_second if per_second > 0 else 0.0
