"""A reader: one subscriber that is served from a channel's history, and whoever reads it there.

Synchronous; no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import Factory, define

from broker.gap import Gap
from broker.position import Position, Since
from broker.topic.page import Page
from broker.topic.topic import Subscriber
from broker.wireformat import WireFormat

OnPage = Callable[[Page | None, float], None]
"""Takes a page and the time in loop seconds."""


class Historian(Protocol):
    """Whoever reads history for the trails."""

    def read(self, name: bytes, since: Since | None, era: int, on_page: OnPage, is_wanted: Callable[[], bool]) -> None:
        """Call `on_page` some time later, with a page and the time; None for no history: Redis does not let us read.

        Args:
            era: reads of one era may be shared: none of them was asked before the era began.
            is_wanted: asked before Redis is: where nobody wants the page any more, nobody is called.
        """


@define(eq=False)
class Reader:
    """One subscriber that reads.

    Args:
        since: where it said it was; None for who comes for the first time.
        on_first: told when the first page is there; nothing is sent before `begin`.
    """

    subscriber: Subscriber
    format: WireFormat
    since: Since | None
    on_first: OnFirst | None
    position: Position | None = None
    page: Page | None = None  # came, and is not taken yet
    is_asking: bool = False
    is_at_end: bool = False
    owed: set[str] = Factory(set)  # reasons of gaps that it is told when it goes live
    generation: int = 0  # the recorder's, up to which there is nothing left to tell
    told: int = 0  # the last that it was told of, or need not be
    recorded: int = 0  # under which the channel's last plain event was recorded, when the page was read

    @property
    def has_begun(self) -> bool:
        """Whether it has been told where it begins."""
        return self.on_first is None

    def learn(self, page: Page) -> None:
        """The page was taken: what is known now of the changes of the recorder."""
        told = [item.generation for item in page.items if isinstance(item, Gap)]
        # The last page tells of the last change, if anything was recorded before it.
        self.told = max(self.told, *told, page.generation if page.is_last else 0)
        # On another, what comes under the recorder of today is marked where it begins.
        if page.is_last or page.recorded in (0, page.generation):
            self.generation = max(self.generation, page.generation)
        self.recorded = page.recorded

    def forget_page(self) -> None:
        """What was read and not taken may be true no more: it is asked again, from the same place."""
        if self.page is not None and self.position is None and self.since is None:
            self.position = self.page.begin
        self.page, self.is_at_end = None, False

    def was_before(self, place: Position | None) -> bool:
        """Whether it came back to a place at or before that one, of the same epoch."""
        was = self.since.position if self.since is not None else None
        return was is not None and place is not None and was.epoch == place.epoch and was.offset <= place.offset


OnFirst = Callable[[Reader, bytes, float], None]
"""Takes the reader whose first page is there, its channel, and the time in loop seconds."""
