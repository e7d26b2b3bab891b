"""The publisher library: how services publish events, from plain code, threads, asyncio or trio.

Importing this package loads nothing else: a name is loaded at its first use, redis-py at the first
connection, and trio only with `TrioPublisher`. `docs/publishing.md` says how to use it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.errors import PublishError
    from broker.publisher.asyncio_publisher import AsyncPublisher
    from broker.publisher.publisher import Publisher
    from broker.publisher.recording import RecordedEvent, RecordingPublisher
    from broker.publisher.statistics import Statistics
    from broker.publisher.trio_publisher import TrioPublisher

__all__ = [
    "AsyncPublisher",
    "PublishError",
    "Publisher",
    "RecordedEvent",
    "RecordingPublisher",
    "Statistics",
    "TrioPublisher",
]

_HOMES = {
    "AsyncPublisher": "broker.publisher.asyncio_publisher",
    "PublishError": "broker.errors",
    "Publisher": "broker.publisher.publisher",
    "RecordedEvent": "broker.publisher.recording",
    "RecordingPublisher": "broker.publisher.recording",
    "Statistics": "broker.publisher.statistics",
    "TrioPublisher": "broker.publisher.trio_publisher",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
