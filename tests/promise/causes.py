"""What a story did, and so which gaps may be told on which channel: a gap that nothing justifies is a fault."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, define

from broker.gap import (
    EPOCH_CHANGED,
    NO_HISTORY,
    OVERFLOW,
    RECORDER_CHANGED,
    REDIS_AWAY,
    ROLLED_BACK,
    TRIMMED,
    UNKNOWN_POSITION,
)
from tests.promise.oracle import Begun, Record, Told

# A short history is soon over, slow clients lose what their type says, and what is not kept cannot be read.
ALWAYS = {"long": (), "short": (TRIMMED,), "dropping": (TRIMMED, OVERFLOW), "none": (NO_HISTORY,)}


@define(eq=False)
class Causes:
    """Of one story.

    Args:
        allowed: the reasons that gaps may have, by channel.
    """

    allowed: dict[str, set[str]] = Factory(dict)

    def begin(self, kind: str, channel: str) -> None:
        self.allowed[channel] = set(ALWAYS[kind])

    def trimmed(self, channel: str) -> None:
        """Events are gone, and positions are not."""
        self.allowed[channel].add(TRIMMED)

    def deleted(self, channel: str) -> None:
        """The position is gone; who comes with it is told so, and who reads while it goes may find either state."""
        self.allowed[channel] |= {TRIMMED, EPOCH_CHANGED, ROLLED_BACK, UNKNOWN_POSITION}

    def interrupted(self) -> None:
        """For a moment nobody may have recorded, or heard what is not kept."""
        for channel, reasons in self.allowed.items():
            reasons.add(REDIS_AWAY if NO_HISTORY in ALWAYS[channel.partition(":")[0]] else RECORDER_CHANGED)

    def unjustified(self, channel: str, record: Record) -> Iterable[str]:
        for gap in record.gaps():
            if gap.reason not in self.allowed[channel]:
                yield f"{channel}: nothing justifies {gap}"


def resumed(record: Record) -> int:
    """How often the client came back to a place, and went on from there without a gap."""
    entries = record.entries
    return sum(
        isinstance(entry, Begun) and bool(entry.since) and entry.position == entry.since and not isinstance(then, Told)
        for entry, then in zip(entries, [*entries[1:], None], strict=True)
    )
