"""A gap: what a client is told where events of a channel may be missing.

    {"type": "gap", "channel": ..., "reason": ..., "from": position, "to": position, "timestamp": ...}

`from` is the last position before the gap, `to` the last one in it; each null where it is not known. With
`overflow` there is a `count` of the events that were dropped.

Synchronous; no I/O, no clock.
"""

from __future__ import annotations

import msgspec
from attrs import frozen

from broker.timestamp import timestamp

EPOCH_CHANGED = "epoch_changed"
ROLLED_BACK = "rolled_back"
TRIMMED = "trimmed"
REDIS_AWAY = "redis_away"
OVERFLOW = "overflow"
RECORDER_CHANGED = "recorder_changed"
UNKNOWN_POSITION = "unknown_position"
NO_HISTORY = "no_history"
NOT_KEPT = "not_kept"

REASONS = {
    EPOCH_CHANGED: "the channel's history began anew: Redis lost it, or it was quiet for too long",
    ROLLED_BACK: "Redis came back with an older state, and the position is not in it",
    TRIMMED: "what was missed is longer, or longer ago, than the history that is kept",
    REDIS_AWAY: "Redis was away, and the channel has no history",
    OVERFLOW: "the client read too slowly, and the channel's policy dropped the oldest events",
    RECORDER_CHANGED: "plain PUBLISHes were recorded by nobody for a moment",
    UNKNOWN_POSITION: "the position that the client came with is none of this channel's",
    NO_HISTORY: "the client came back to a channel that has no history, or whose history cannot be read",
    NOT_KEPT: "Redis took no writes, and an event went only to those who were live",
}
"""Every reason, and what it means."""


@frozen
class Gap:
    """Events that may be missing.

    Args:
        begin, end: positions as the wire has them; None where they are not known.
        generation: the recorder's, where that is the reason.
    """

    reason: str
    begin: bytes | None
    end: bytes | None
    at: float
    count: int | None = None
    generation: int = 0

    def body(self, name: bytes) -> bytes:
        """The event's JSON."""
        event: dict[str, object] = {
            "type": "gap",
            "channel": name.decode(),
            "reason": self.reason,
            "from": None if self.begin is None else self.begin.decode(),
            "to": None if self.end is None else self.end.decode(),
        }
        if self.count is not None:
            event["count"] = self.count
        return msgspec.json.encode({**event, "timestamp": timestamp(self.at)})
