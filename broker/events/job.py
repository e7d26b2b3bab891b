"""Events of a job: how far it is.

Source: the wire contract, "Events".
"""

from __future__ import annotations

from typing import ClassVar, Literal

from attrs import field

from broker.events.event import Event
from broker.events.rules import Name, Object, Progress
from broker.events.value import value_class


@value_class
class JobProgress(Event):
    """How far a job is.

    Args:
        progress: 0 to 1.
        metadata: whatever the producer wants to add.
    """

    type: ClassVar[str] = "job_progress"
    channel_type: ClassVar[str | None] = "job_progress"
    channel_id: ClassVar[str | None] = "job_id"
    id_stem: ClassVar[str | None] = "job_{0.job_id}"

    job_id: Name
    status: Literal["queued", "processing", "completed", "failed"]
    stage: str
    progress: Progress
    message: str
    metadata: Object | None = field(default=None)
