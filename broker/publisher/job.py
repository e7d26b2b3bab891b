"""`Job`: the progress of one job of a `Publisher`, as a `with` block.

Laws: events of a job go out in order, whichever thread sends them; what is held back is sent by the
publisher's timer, or by the next call if that is sooner. The end is tried in a pause too. Nothing is
raised into the block, and what it raises goes on. Bound: each call, with its wait for the timer's,
takes at most the publisher's timeout.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attrs import define, field

from broker.events import JobProgress
from broker.publisher.course import Course, failure
from broker.publisher.exchange import busy
from broker.publisher.fork import renew_after_fork
from broker.publisher.statistics import BUSY

if TYPE_CHECKING:
    from broker.publisher.publisher import Publisher


def described(error: BaseException, describe: Callable[[BaseException], str] | None) -> str:
    """What subscribers are told of `error`; the class alone, where `describe` fails."""
    if describe is None:
        return failure(error)
    try:
        return str(describe(error))
    except Exception:
        return failure(error)


@define(eq=False)
class Job:
    """One run of a job. Safe in threads."""

    _publisher: Publisher = field(repr=False)
    _course: Course
    _describe: Callable[[BaseException], str] | None = None
    _turn: threading.Lock = field(init=False, factory=threading.Lock)
    _is_scheduled: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        renew_after_fork(self)

    @property
    def channel(self) -> str:
        """Where the events go: `job_progress:<job_id>`."""
        return self._course.channel

    def start(self, stage: str | None = None, message: str | None = None) -> None:
        """Say that the job is processing now. The first `progress` says it too."""
        self.progress(None, stage, message)

    def progress(
        self,
        fraction: float | None = None,
        stage: str | None = None,
        message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish how far the job is. What is None stays as it was.

        Args:
            fraction: 0 to 1; a value outside is counted as invalid and logged, not raised.
            metadata: replaces what was there.
        """
        self._step(lambda now: self._course.advance(now, fraction, stage, message, metadata))

    def __enter__(self) -> Job:
        self._step(self._course.enter)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failed = None if error is None else described(error, self._describe)
        self._step(lambda now: self._course.end(now, failed), urgent=True)

    def renew(self) -> None:
        """Called in a forked child: a lock of its own; what was held there is the parent's to send."""
        self._turn = threading.Lock()
        self._is_scheduled = False

    def _step(self, step: Callable[[float], list[JobProgress]], *, urgent: bool = False) -> None:
        publisher = self._publisher
        deadline = publisher.deadline()
        turn = self._turn
        if not turn.acquire(timeout=publisher.destination.timeout_seconds):
            publisher.front.tally.lost(BUSY, 1, busy(publisher.destination), channel=self.channel)
            return
        try:
            publisher.send_events(step, deadline, self.channel, urgent=urgent)
            due = self._course.due
            if due is not None and not self._is_scheduled:
                self._is_scheduled = True
                publisher.timer.call_at(due, self._release)
        finally:
            turn.release()

    def _release(self) -> None:
        self._is_scheduled = False
        self._step(self._course.release)
