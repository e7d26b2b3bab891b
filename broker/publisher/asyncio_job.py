"""`AsyncJob`: the progress of one job of an `AsyncPublisher`, as an `async with` block.

Laws: as `Job`'s. What is held back is sent by a task of the loop, or by the next call if that is sooner;
no task is left when the block has ended. Cancelled, the job says that it failed, within the timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attrs import define, field

from broker.events import JobProgress
from broker.publisher.course import Course
from broker.publisher.exchange import busy
from broker.publisher.job import described
from broker.publisher.statistics import BUSY

if TYPE_CHECKING:
    from broker.publisher.asyncio_publisher import AsyncPublisher


@define(eq=False)
class AsyncJob:
    """One run of a job, for the tasks of one event loop."""

    _publisher: AsyncPublisher = field(repr=False)
    _course: Course
    _describe: Callable[[BaseException], str] | None = None
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _timer: asyncio.Task[None] | None = field(init=False, default=None)

    @property
    def channel(self) -> str:
        """Where the events go: `job_progress:<job_id>`."""
        return self._course.channel

    async def start(self, stage: str | None = None, message: str | None = None) -> None:
        """Say that the job is processing now. The first `progress` says it too."""
        await self.progress(None, stage, message)

    async def progress(
        self,
        fraction: float | None = None,
        stage: str | None = None,
        message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """As `Job.progress`."""
        await self._step(lambda now: self._course.advance(now, fraction, stage, message, metadata))
        if self._course.due is not None and (self._timer is None or self._timer.done()):
            self._timer = asyncio.create_task(self._release(), name=f"{self.channel} held progress")

    async def __aenter__(self) -> AsyncJob:
        await self._step(self._course.enter)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failed = None if error is None else described(error, self._describe)
        try:
            await self._step(lambda now: self._course.end(now, failed), urgent=True)
        finally:
            # Nothing is held any more, and it has no turn: it waits for its time.
            if self._timer is not None:
                self._timer.cancel()

    async def _step(self, step: Callable[[float], list[JobProgress]], *, urgent: bool = False) -> None:
        publisher = self._publisher
        deadline = await publisher.deadline()
        try:
            async with asyncio.timeout(publisher.destination.timeout_seconds):
                await self._turn.acquire()
        except TimeoutError:
            publisher.front.tally.lost(BUSY, 1, busy(publisher.destination), channel=self.channel)
            return
        try:
            await publisher.send_events(step, deadline, self.channel, urgent=urgent)
        finally:
            self._turn.release()

    async def _release(self) -> None:
        while (due := self._course.due) is not None:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._step(self._course.release)
