"""Events of a video render.

Source: the wire contract, "Events".
"""

from __future__ import annotations

from typing import ClassVar, Literal

from broker.events.event import Event
from broker.events.rules import Name, Progress
from broker.events.value import value_class


@value_class
class VideoRenderProgress(Event):
    """How far the render of a video is. The stage `complete` ends the stream of a browser that watches it.

    Args:
        progress: 0 to 1.
        fps: frames rendered a second.
        estimated_time_remaining: seconds.
    """

    type: ClassVar[str] = "video_render_progress"
    channel_type: ClassVar[str | None] = "video_render"
    channel_id: ClassVar[str | None] = "job_id"

    job_id: Name
    current_frame: int
    total_frames: int
    progress: Progress
    fps: float
    estimated_time_remaining: float
    stage: Literal["preparing", "rendering", "encoding", "uploading", "complete"]
