"""Bookmarks: how far a subscriber has read each channel, to go on from there.

There are two for a channel: what has been received, which the next connection asks to go on behind, and what
the consumer has taken, which is what a program stores. Positions are opaque: they are compared, never read.

Laws: a bookmark never moves past an event that has not come. So a gap moves it only where it begins at the
bookmark: one that begins elsewhere is told while events from before it are still on their way.

Synchronous; no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field

from broker.subscriber.event import Event
from broker.subscriber.gap import Gap


@define(eq=False)
class Bookmarks:
    """By channel. `since` is where to begin."""

    received: dict[str, str]
    taken: dict[str, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.taken = dict(self.received)

    @classmethod
    def at(cls, since: Mapping[str, str]) -> Bookmarks:
        return cls(dict(since))

    def begin(self, channel: str, position: str | None) -> None:
        """A channel of which nothing, or nothing more, is known begins at `position`; None: it has none."""
        for positions in (self.received, self.taken):
            positions.pop(channel, None)
            if position is not None:
                positions[channel] = position

    def receive(self, event: Event) -> None:
        if event.channel is not None and event.position is not None:
            self.received[event.channel] = event.position

    def take(self, event: Event) -> None:
        if event.channel is not None and event.position is not None:
            self.taken[event.channel] = event.position

    def pass_over(self, gap: Gap) -> None:
        here = self.received.get(gap.channel)
        if gap.end is None or gap.begin not in (None, here):
            return
        self.received[gap.channel] = gap.end
        if self.taken.get(gap.channel) == here:  # else the consumer has yet to take what comes before it
            self.taken[gap.channel] = gap.end
