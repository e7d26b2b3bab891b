"""What was refused: messages from Redis that were dropped, counted by reason, and channels that Redis does not allow.

Each is logged once for a burst.

Synchronous. Bounds: one counter for each reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import structlog
from attrs import Factory, define

BURST_SECONDS = 5.0
_SHOWN_BYTES = 60

log = structlog.get_logger(__name__)


@define(eq=False)
class Refusals:
    """What could not be delivered, and why."""

    _counts: Counter[str] = Factory(Counter)
    _unlogged: int = 0
    _logged_at: float = float("-inf")
    _channels_unlogged: int = 0
    _channel_logged_at: float = float("-inf")

    def add(self, reason: str, name: bytes, payload: bytes, now: float) -> None:
        """Count one message; log it when none was logged in the last five seconds."""
        self._counts[reason] += 1
        if now - self._logged_at < BURST_SECONDS:
            self._unlogged += 1
            return
        log.warning(
            "message from Redis dropped",
            reason=reason,
            channel=name.decode("utf-8", "backslashreplace"),
            size_bytes=len(payload),
            begins=ascii(payload[:_SHOWN_BYTES])[2:-1],
            more_since_last_line=self._unlogged,
        )
        self._logged_at = now
        self._unlogged = 0

    def note_channel(self, name: bytes, why: str, now: float) -> None:
        """Log a channel that Redis refused, when none was logged in the last five seconds."""
        if now - self._channel_logged_at < BURST_SECONDS:
            self._channels_unlogged += 1
            return
        log.warning(
            "Redis refused a channel",
            channel=name.decode("utf-8", "backslashreplace"),
            why=why,
            more_since_last_line=self._channels_unlogged,
        )
        self._channel_logged_at = now
        self._channels_unlogged = 0

    def counts(self) -> Mapping[str, int]:
        return dict(self._counts)
