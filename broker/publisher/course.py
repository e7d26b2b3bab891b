"""The course of a job: from queued over processing to completed or failed, and what of it is sent when.

Laws: a change of status is sent at once. Progress is sent at once if the last was sent an interval ago,
else held back; a newer value replaces what is held, and what is held is due when the interval is over.
The first value of a new stage is sent at once, `_STAGES_PER_SECOND` times a second at most; more often,
it is progress like any other. Whatever is sent, what is held goes before it: the last value is always
sent. What is wrong changes nothing. Sans-I/O; the caller brings the clock and the lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from attrs import define, field

from broker.errors import EventError
from broker.events import JobProgress

_STAGES_PER_SECOND = 10

Status = Literal["queued", "processing", "completed", "failed"]


def failure(error: BaseException) -> str:
    """What everybody may be told of an exception: its class. Its text may hold secrets, paths or names."""
    return f"failed: {type(error).__name__}"


def _id(job_id: object) -> str:
    # None, as of a task that was called directly, is no id: its events are refused.
    return "" if job_id is None else str(job_id)


@define(eq=False)
class Course:
    """One job. Each step returns the events to send now, in order; none, where its event is held.

    Raises, in every step:
        EventError: a value that a `job_progress` event cannot have, or a step at the wrong time.
    """

    job_id: str = field(converter=_id)
    _stage: str
    _message: str
    _metadata: Mapping[str, Any] | None
    _interval: float
    _status: Status | None = field(init=False, default=None)
    _progress: float = field(init=False, default=0.0)
    _held: JobProgress | None = field(init=False, default=None)
    _sent_at: float = field(init=False, default=float("-inf"))
    _stages_at: deque[float] = field(init=False, factory=lambda: deque(maxlen=_STAGES_PER_SECOND))

    @property
    def channel(self) -> str:
        return f"job_progress:{self.job_id}"

    @property
    def due(self) -> float | None:
        """When what is held is to be sent; None if nothing is held."""
        return None if self._held is None else self._sent_at + self._interval

    def enter(self, now: float) -> list[JobProgress]:
        if self._status is not None:
            raise EventError(f"job {self.job_id} has begun already; make a new one for each run")
        return self._send(self._event("queued", 0.0, self._stage, self._message, self._metadata), now)

    def advance(
        self,
        now: float,
        progress: float | None,
        stage: str | None,
        message: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> list[JobProgress]:
        """Progress from 0 to 1; what is None stays as it was."""
        if self._status not in ("queued", "processing"):
            raise EventError(f"job {self.job_id} is not running; publish its progress inside the with block")
        begins = self._status == "queued"
        previous_stage = self._stage
        event = self._event(
            "processing",
            self._progress if progress is None else progress,
            previous_stage if stage is None else stage,
            self._message if message is None else message,
            self._metadata if metadata is None else metadata,
        )
        if begins or now >= self._sent_at + self._interval or self._is_new_stage(event.stage != previous_stage, now):
            return self._send(event, now)
        self._held = event
        return []

    def release(self, now: float) -> list[JobProgress]:
        """What is held, if it is due."""
        if self._held is None or now < self._sent_at + self._interval:
            return []
        return self._send(None, now)

    def end(self, now: float, failed: str | None) -> list[JobProgress]:
        """Completed, or failed with a message for everybody."""
        if self._status not in ("queued", "processing"):
            raise EventError(f"job {self.job_id} is not running")
        if failed is None:
            event = self._event("completed", 1.0, "completed", "completed", self._metadata)
        else:
            event = self._event("failed", self._progress, self._stage, failed, self._metadata)
        return self._send(event, now)

    def _event(
        self, status: Status, progress: float, stage: str, message: str, metadata: Mapping[str, Any] | None
    ) -> JobProgress:
        event = JobProgress(
            job_id=self.job_id, status=status, stage=stage, progress=progress, message=message, metadata=metadata
        )
        # Only now: what is refused must not be what the next event is made of.
        self._status, self._progress, self._stage = status, progress, stage
        self._message, self._metadata = message, metadata
        return event

    def _is_new_stage(self, is_new: bool, now: float) -> bool:
        if not is_new or (len(self._stages_at) == _STAGES_PER_SECOND and now < self._stages_at[0] + 1):
            return False
        self._stages_at.append(now)
        return True

    def _send(self, event: JobProgress | None, now: float) -> list[JobProgress]:
        events = [each for each in (self._held, event) if each is not None]
        self._held, self._sent_at = None, now
        return events
