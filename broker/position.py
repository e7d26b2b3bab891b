"""A position: how far somebody has read a channel. On the wire `<epoch>:<offset>:<tag>`, all decimal.

The epoch is made with the channel's history; the offset counts its events from 1; the tag is random for each
append, so that an offset which was given out twice, after Redis came back with an older state, is told apart.
The position before a channel's first event has the offset 0 and any tag. Clients take it as it is.
"""

from __future__ import annotations

import re

from attrs import frozen

NOWHERE = b"0:0:0"
"""A position that no channel has: who comes with it is told that something may be missing."""

ANY_TAG = b"0"
"""Where the tag is not known: of an event that is kept no more, or of none."""

_GRAMMAR = re.compile(r"([0-9]{1,10}):([0-9]{1,15}):([0-9]{1,10})")


@frozen
class Position:
    """One place in one channel."""

    epoch: bytes
    offset: int
    tag: bytes

    @classmethod
    def from_text(cls, text: str) -> Position | None:
        """The position that `text` is; None where it is none, as what clients send may be anything."""
        found = _GRAMMAR.fullmatch(text)
        return cls(found[1].encode(), int(found[2]), found[3].encode()) if found else None

    def is_same(self, other: Position) -> bool:
        """Whether it is the same place: also by its tag, where both have one."""
        return (
            self.epoch == other.epoch
            and self.offset == other.offset
            and (self.tag == other.tag or ANY_TAG in (self.tag, other.tag))
        )

    @property
    def text(self) -> bytes:
        return b"%b:%d:%b" % (self.epoch, self.offset, self.tag)


@frozen
class Since:
    """What a client that comes back says about one channel: where it was; None where that cannot be known."""

    position: Position | None


@frozen
class Start:
    """Where a subscriber begins in a channel.

    Args:
        position: everything behind it follows, or a gap does; None where the channel has no history.
        recovered: it said where it was, and nothing since then is missing.
        replay: how many of the newest events a subscriber without a position gets first.
    """

    position: bytes | None
    recovered: bool
    replay: int = 0


def start_facts(start: Start | None) -> dict[str, str | bool | int | None]:
    """What a client of `broker.v1` is told of where it begins. None: the channel has no history."""
    if start is None:
        return {"position": None, "recovered": False, "replay": 0}
    position = None if start.position is None else start.position.decode()
    return {"position": position, "recovered": start.recovered, "replay": start.replay}
