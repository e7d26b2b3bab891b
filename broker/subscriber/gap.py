"""A gap: a place in a channel where events may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from broker.gap import NO_HISTORY, REASONS


@frozen
class Gap:
    """What the broker told, or what the subscriber knows by itself: that it came back without a position.

    Args:
        reason: one word for programs; `broker.gap.REASONS` has what each means.
        begin, end: the last position before it, and the last one in it; None where they are not known.
        timestamp: when it was found; None where the subscriber found it.
        count: how many events were dropped; None where that is not known.
    """

    channel: str
    reason: str
    begin: str | None
    end: str | None
    timestamp: str | None = None
    count: int | None = None

    @classmethod
    def from_message(cls, data: Mapping[str, Any]) -> Gap:
        begin, end, at = (_text(data.get(key)) for key in ("from", "to", "timestamp"))
        count = data.get("count")
        number = count if isinstance(count, int) else None
        return cls(str(data.get("channel")), str(data.get("reason")), begin, end, at, number)

    @classmethod
    def without_position(cls, channel: str, begin: str | None, end: str | None) -> Gap:
        """The subscriber came back, and the broker could not be asked for what it missed."""
        return cls(channel, NO_HISTORY, begin, end)

    def __str__(self) -> str:
        """In words, on one line."""
        dropped = "" if self.count is None else f", {self.count} events"
        means = REASONS.get(self.reason, "for a reason that this version has no words for")
        return f"events may be missing on {self.channel}: {self.reason}{dropped}: {means}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
