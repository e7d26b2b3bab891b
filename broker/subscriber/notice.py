"""A notice: what a subscription tells besides events."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from broker.subscriber.gap import Gap

Kind = Literal["disconnected", "waiting", "reconnected", "gap"]


@frozen
class Notice:
    """What happened.

    Args:
        kind: `waiting` is for the broker, or for its Redis; `gap`: events may be missing on a channel.
        seconds: how long the connection has been away; 0 where it has not.
        gap: for `gap`, which.
        recovered: for `reconnected`, nothing is missing: what was published meanwhile follows.
    """

    kind: Kind
    text: str
    seconds: float
    gap: Gap | None = None
    recovered: bool = False
