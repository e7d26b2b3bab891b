"""`TrioPublisher`: publishes events from trio.

Laws: as `Publisher`'s, with `await`. It is a `Publisher` whose calls run in worker threads, because
redis-py has no trio; the wait for a thread is part of the call's time. Cancelling does not wait for the
thread, which ends within the timeout: the event may or may not be published, and is counted as it
turns out. Order: awaited calls of one task arrive in that order. Bound: `threads_max` for each run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import trio
from attrs import define, field

from broker.publisher.destination import MIB, Destination
from broker.publisher.publication import Item, Payload, listed
from broker.publisher.publisher import Publisher
from broker.publisher.statistics import CANCELLED, Statistics

if TYPE_CHECKING:
    from broker.events import Event
    from broker.publisher.job import Job

_CONNECTION_FILE = "broker.publisher.connection"

T = TypeVar("T")


@define(eq=False, init=False)
class TrioPublisher:
    """Publishes to Redis, for the daemon to deliver. Share one in a process; close it, or use `async with`.

    Args: as `Publisher`; `threads_max` stands for `connections_max`.
    """

    _publisher: Publisher
    _threads_max: int
    # A limiter's tokens do not outlive the run that they were taken in.
    _limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = field(init=False, repr=False)

    def __init__(
        self,
        url: str | None = None,
        *,
        channel_prefix: str | None = None,
        timeout_seconds: float = 0.5,
        pause_seconds: float = 1.0,
        threads_max: int = 4,
        event_max_bytes: int = MIB,
    ) -> None:
        self._publisher = Publisher(
            url,
            channel_prefix=channel_prefix,
            timeout_seconds=timeout_seconds,
            pause_seconds=pause_seconds,
            connections_max=threads_max,
            event_max_bytes=event_max_bytes,
        )
        self._threads_max = threads_max
        self._limiter = trio.lowlevel.RunVar("broker.publisher threads")

    @property
    def destination(self) -> Destination:
        return self._publisher.destination

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
        """As `Publisher.publish`."""
        deadline = await self._deadline()
        return await self._in_thread(
            partial(
                self._publisher.publish_by, deadline, target, event, confirm=confirm, idempotency_key=idempotency_key
            )
        )

    @overload
    async def publish_many(self, items: Iterable[Item], *, confirm: Literal[False] = False) -> bool: ...
    @overload
    async def publish_many(self, items: Iterable[Item], *, confirm: Literal[True]) -> list[int]: ...
    @overload
    async def publish_many(self, items: Iterable[Item], *, confirm: bool) -> bool | list[int]: ...

    async def publish_many(self, items: Iterable[Item], *, confirm: bool = False) -> bool | list[int]:
        """As `Publisher.publish_many`."""
        found, count = listed(items)
        deadline = await self._deadline()
        return await self._in_thread(
            partial(self._publisher.publish_many_by, deadline, found, count, confirm=confirm), count
        )

    @overload
    async def publish_to_user(self, user: str, event: Payload, *, confirm: Literal[False] = False) -> bool: ...
    @overload
    async def publish_to_user(self, user: str, event: Payload, *, confirm: Literal[True]) -> int: ...
    @overload
    async def publish_to_user(self, user: str, event: Payload, *, confirm: bool) -> bool | int: ...

    async def publish_to_user(self, user: str, event: Payload, *, confirm: bool = False) -> bool | int:
        """As `Publisher.publish_to_user`."""
        deadline = await self._deadline()
        return await self._in_thread(
            partial(self._publisher.publish_to_user_by, deadline, user, event, confirm=confirm)
        )

    def job(
        self,
        job_id: object,
        *,
        stage: str = "queued",
        message: str = "",
        metadata: Mapping[str, Any] | None = None,
        describe: Callable[[BaseException], str] | None = None,
        per_second: float = 10.0,
    ) -> TrioJob:
        """As `Publisher.job`: `async with publisher.job("42") as job: await job.progress(0.4)`."""
        job = self._publisher.job(
            job_id, stage=stage, message=message, metadata=metadata, describe=describe, per_second=per_second
        )
        return TrioJob(job, self._in_thread, self.destination.timeout_seconds)

    def statistics(self) -> Statistics:
        """What was published and lost since the publisher was made, or since the fork."""
        return self._publisher.statistics()

    async def aclose(self) -> None:
        """Close what is open and tell what is untold. Synchronous but for a checkpoint at its end."""
        self._publisher.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> TrioPublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._publisher.close()

    async def _deadline(self) -> float:
        if _CONNECTION_FILE not in sys.modules:
            # redis-py takes 0.2 s to load: not in the run's thread, and before the clock starts.
            await trio.to_thread.run_sync(import_module, _CONNECTION_FILE, abandon_on_cancel=True)
        return time.monotonic() + self.destination.timeout_seconds

    async def _in_thread(self, call: Callable[[], T], count: int = 1) -> T:
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = trio.CapacityLimiter(self._threads_max)
            self._limiter.set(limiter)
        # Whoever takes it first, the thread or the cancellation, decides: an event is counted once.
        claim = threading.Lock()

        def run() -> T:
            if not claim.acquire(blocking=False):
                raise RuntimeError("cancelled before its thread began")
            return call()

        try:
            return await trio.to_thread.run_sync(run, limiter=limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            if claim.acquire(blocking=False):
                self._publisher.front.tally.lost(CANCELLED, count, told=True)
            raise


@define(eq=False)
class TrioJob:
    """One run of a job, as an `async with` block: a `Job` whose calls run in worker threads.

    What is held back is sent by the publisher's timer thread, so that the block needs no nursery and
    what it raises goes on as it is.
    """

    _job: Job
    _in_thread: Callable[[Callable[[], object]], Any] = field(repr=False)
    _timeout_seconds: float

    @property
    def channel(self) -> str:
        """Where the events go: `job_progress:<job_id>`."""
        return self._job.channel

    async def start(self, stage: str | None = None, message: str | None = None) -> None:
        """Say that the job is processing now. The first `progress` says it too."""
        await self._in_thread(partial(self._job.start, stage, message))

    async def progress(
        self,
        fraction: float | None = None,
        stage: str | None = None,
        message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """As `Job.progress`."""
        await self._in_thread(partial(self._job.progress, fraction, stage, message, metadata))

    async def __aenter__(self) -> TrioJob:
        await self._in_thread(self._job.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Cancelled, the job still says so; twice the timeout, as the thread waits for its turn first.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * self._timeout_seconds):
            await self._in_thread(partial(self._job.__exit__, kind, error, traceback))
