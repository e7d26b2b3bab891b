"""What was refused: messages from Redis that were dropped, and channels that Redis does not allow.

Messages are counted by the type of their channel and by reason. Each is logged once for a burst.

Synchronous. Bounds: a counter for each reason of each declared type, and of `UNDECLARED_MAX` others; types
beyond those, whose names come from outside, are counted together as `other`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

import structlog
from attrs import Factory, define, field

from broker.message import explained

BURST_SECONDS = 5.0
UNDECLARED_MAX = 100
OTHER = "other"
_SHOWN_BYTES = 60

log = structlog.get_logger(__name__)


@define(eq=False)
class _Burst:
    """Lets one line through every five seconds, and counts those that it held back."""

    held_back: int = 0
    _logged_at: float = float("-inf")

    def begins(self, now: float) -> bool:
        if now - self._logged_at < BURST_SECONDS:
            self.held_back += 1
            return False
        self._logged_at = now
        return True

    def take_held_back(self) -> int:
        count, self.held_back = self.held_back, 0
        return count


@define(eq=False)
class Refusals:
    """What could not be delivered, and why; each reason has bursts of its own.

    Args:
        declared: the channel types that are always counted under their own names.
    """

    _declared: Collection[str] = ()
    _counts: defaultdict[str, Counter[str]] = Factory(lambda: defaultdict(Counter))
    _undeclared: set[str] = field(init=False, factory=set)
    _bursts: defaultdict[str, _Burst] = Factory(lambda: defaultdict(_Burst))

    def add(self, reason: str, name: bytes, payload: bytes, now: float) -> None:
        """Count one message; log it when none of that reason was logged in the last five seconds."""
        self._counts[self._counted_as(name)][reason] += 1
        burst = self._bursts[reason]
        if burst.begins(now):
            log.warning(
                "message from Redis dropped",
                reason=reason,
                channel=name.decode("utf-8", "backslashreplace"),
                size_bytes=len(payload),
                begins=ascii(payload[:_SHOWN_BYTES])[2:-1],
                **({"why": why} if (why := explained(reason, payload)) else {}),
                more_since_last_line=burst.take_held_back(),
            )

    def note_channel(self, name: bytes, why: str, now: float) -> None:
        """Log a channel that Redis refused, when none was logged in the last five seconds."""
        burst = self._bursts["channel"]
        if burst.begins(now):
            log.warning(
                "Redis refused a channel",
                channel=name.decode("utf-8", "backslashreplace"),
                why=why,
                more_since_last_line=burst.take_held_back(),
            )

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """By channel type, then by reason."""
        return {type: dict(reasons) for type, reasons in self._counts.items()}

    def _counted_as(self, name: bytes) -> str:
        type = name.partition(b":")[0].decode("utf-8", "backslashreplace")
        if type in self._declared or type in self._undeclared:
            return type
        if len(self._undeclared) == UNDECLARED_MAX:
            return OTHER
        self._undeclared.add(type)
        return type
