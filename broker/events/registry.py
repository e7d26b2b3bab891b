"""Every type of event there is, and reading one from its bytes.

Laws: `decode` takes what `check` finds nothing wrong with, and nothing else; see `check` for the one
exception. Neither raises anything else than it says, whatever the bytes.

Bounds: an error shows at most 80 characters of a value. The size of the bytes is the caller's to bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Union

import msgspec

from broker.errors import EventError
from broker.events.ai import AiEvaluationStream, AiStreamChunk, CouncilScoreStream
from broker.events.alert import Alert
from broker.events.campaign import AbTestResult, CampaignMetrics, LiveMetricUpdate
from broker.events.evaluation import Complete, EvaluationRestarted
from broker.events.event import Event
from broker.events.gap import Gap
from broker.events.job import JobProgress
from broker.events.render import VideoRenderProgress
from broker.events.rules import described, explained, struct_of
from broker.events.session import (
    Authenticated,
    Connected,
    Disconnected,
    Error,
    Heartbeat,
    Published,
    Subscribed,
    TokenExpired,
    Unsubscribed,
)

EVENT_TYPES: Mapping[str, type[Event]] = MappingProxyType(
    {
        event_type.type: event_type
        for event_type in (
            JobProgress,
            VideoRenderProgress,
            AiStreamChunk,
            CouncilScoreStream,
            AiEvaluationStream,
            CampaignMetrics,
            AbTestResult,
            LiveMetricUpdate,
            Alert,
            EvaluationRestarted,
            Complete,
            Connected,
            Authenticated,
            TokenExpired,
            Disconnected,
            Error,
            Heartbeat,
            Subscribed,
            Unsubscribed,
            Published,
            Gap,
        )
    }
)

_read = msgspec.json.Decoder().decode
# RecursionError: nesting without end. ValueError: bytes that are not UTF-8, integers of thousands of digits.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


@cache
def _examiner() -> Callable[[bytes], object]:
    """One decoder for all types: msgspec finds the struct by its tag, the field `type`.

    Made when it is first used, not when it is imported: that takes 20 ms.
    """
    every_struct: Any = Union[tuple(struct_of(event_type) for event_type in EVENT_TYPES.values())]  # noqa: UP007
    return msgspec.json.Decoder(every_struct).decode


def check(payload: bytes) -> str | None:
    """Why `payload` is no event, or None where it is one. Raises nothing.

    What no class declares is only skipped over: a number out of range or half a surrogate pair in
    it passes here, and not in `decode`, which must build it.
    """
    try:
        if not payload.isascii():
            payload.decode()
        _examiner()(payload)
    except msgspec.ValidationError as error:
        return _why(payload, error)
    except _UNREADABLE as error:
        return f"not JSON that can be read: {error}"
    return None


def decode(payload: bytes | str) -> Event:
    """The event that `payload` is. Fields that its class does not declare are kept in `extra`.

    Raises:
        EventError: no event; names the field by its path, and its value.
    """
    try:
        encoded = payload.encode() if isinstance(payload, str) else bytes(payload)
        if (why := check(encoded)) is not None:
            raise EventError(why)
        wire = _read(encoded)
    except _UNREADABLE as error:
        raise EventError(f"not JSON that can be read: {error}") from None
    return EVENT_TYPES[wire["type"]]._from_wire(wire)


def _why(payload: bytes, error: msgspec.ValidationError) -> str:
    try:
        wire: Any = _read(payload)
    except _UNREADABLE as unreadable:
        # The field that is wrong stands before the place where the JSON is.
        return f"not JSON that can be read: {unreadable}"
    if not isinstance(wire, dict):
        return f"an event must be an object, not {described(wire)}"
    if "type" not in wire:
        return "type is missing"
    name = wire["type"]
    event_type = EVENT_TYPES.get(name) if isinstance(name, str) else None
    if event_type is None:
        return f"type must be the type of an event, such as job_progress, not {described(name)}"
    return f"{name}: {explained(str(error), wire, event_type)}"
