"""What the daemon says to one client where events of a channel may be missing. It has no channel of its own.

Source: the wire contract, "Gaps"; `docs/protocol.md`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from attrs import field

from broker.events.event import Event
from broker.events.rules import Name
from broker.events.value import value_class


@value_class
class Gap(Event):
    """Events of a channel may be missing: behind one position, up to another.

    Args:
        channel: the channel's whole name. The attribute is `gap_channel`, as `channel` is where an event is published.
        reason: why; `docs/events.md` says what each means.
        from_: the last position before the gap, `from` on the wire; None where it is not known.
        to: the last position in it; None where it is not known.
        count: how many are missing, where that is known.
    """

    type: ClassVar[str] = "gap"

    gap_channel: Name = field(alias="channel")
    reason: Literal[
        "epoch_changed",
        "rolled_back",
        "trimmed",
        "redis_away",
        "overflow",
        "recorder_changed",
        "unknown_position",
        "no_history",
        "not_kept",
    ]
    from_: Name | None = None
    to: Name | None = None
    count: int | None = None
