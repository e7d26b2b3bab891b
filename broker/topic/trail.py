"""A trail: a channel with history, as this daemon follows it in Redis and hands it on.

Those who are live are all at one position, and get stamped messages as they come. Everybody else reads: who
has just come (the last few events, or what it missed), who was too slow and is served from history in steps,
and the trail itself, when a message is missing or Redis was away. A reader that has come to the end goes
live, from exactly there: what arrived while it read is kept in a tail until it has caught up.

    reader ──page──▶ ... ──page──▶ at the end ──tail──▶ live
       ▲                                               │ too slow
       └───────────────────────────────────────────────┘

Laws: each offset is handed on once, in order; before anything newer than a hole, the hole is read from
history; where that cannot be, a gap is told first.
Bounds: `TAIL_BYTES` of tail while somebody reads, `HELD_BYTES` of live messages while the trail itself reads;
over them they are read from history as well. Synchronous; no I/O, no clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, cast

from attrs import Factory, define, field

from broker.gap import EPOCH_CHANGED, NO_HISTORY, NOT_KEPT, RECORDER_CHANGED, ROLLED_BACK, Gap
from broker.position import Position, Since
from broker.run import Held, Run, Tail
from broker.topic.page import Page
from broker.topic.reader import Historian, OnFirst, Reader
from broker.topic.topic import Composer, Subscriber, Topic
from broker.wireformat import WireFormat

TAIL_BYTES = 256 * 1024
HELD_BYTES = 1024 * 1024

_eras = itertools.count()


@define(eq=False)
class Trail(Topic):
    """One channel with history."""

    keeps_history: ClassVar[bool] = True

    historian: Historian = field(kw_only=True)
    replay: int = field(kw_only=True, default=0)  # the newest events that who comes without a position gets first
    readers: dict[Subscriber, Reader] = Factory(dict)
    position: Position | None = None
    heard_at: float = 0.0  # loop seconds of the last sign that the position is the newest
    _unkept_at: Position | None = None  # where the last event went by that Redis did not keep
    _recorded: int = 0
    _told_generation: int = 0
    _era: int = Factory(lambda: next(_eras))  # another one whenever Redis begins to deliver the channel
    _healing: object | None = None  # the read under way for the trail itself
    _is_away: bool = False  # Redis does not deliver the channel; then the trail is no further than it was
    _held: Held = Factory(lambda: Held(HELD_BYTES))
    _waiting: set[Reader] = Factory(set)  # at the end, and ahead of the trail
    _tail: Tail = Factory(lambda: Tail(TAIL_BYTES))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.is_plain = False

    @property
    def subscribers(self) -> int:
        return super().subscribers + self._begun

    @property
    def late(self) -> int:
        return super().late + self._begun

    @property
    def _begun(self) -> int:
        return sum(reader.has_begun for reader in self.readers.values())

    def everyone(self) -> list[Subscriber]:
        return [*super().everyone(), *self.readers]

    def leave(self, subscriber: Subscriber) -> bool:
        reader = self.readers.get(subscriber)
        was_here = super().leave(subscriber) or (reader is not None and reader.has_begun)
        self._forget(subscriber)
        return was_here

    def read(self, subscriber: Subscriber, format: WireFormat, since: Since | None, on_first: OnFirst) -> None:
        """The subscriber comes. `on_first` is called when it is known where it begins; then call `begin`."""
        reader = Reader(subscriber, format, since, on_first)
        if reader.was_before(self._unkept_at):
            reader.owed.add(NOT_KEPT)  # for as long as this trail knows of it
        self.readers[subscriber] = reader
        self._ask(reader)

    def begin(self, reader: Reader, now: float) -> None:
        """Send what was read, and go on until the reader is live."""
        reader.on_first = None
        if reader.page is not None:
            self._serve(reader, now)
            return
        # Nothing can be read: it listens from here on, and is told what that means.
        self._forget(reader.subscriber)
        if reader.since is not None or reader.position is not None:
            self.tell_no_history(reader.subscriber, reader.format, now)
        self.enter(reader.subscriber, reader.format)

    def drained(self, subscriber: Subscriber, now: float) -> None:
        super().drained(subscriber, now)
        reader = self.readers.get(subscriber)
        if reader is None or reader.is_asking or reader.on_first is not None:
            return
        if reader.page is not None:
            self._serve(reader, now)
        elif reader.position is None:
            self._ask(reader)
        else:
            self._settle(reader, now)

    def fell_behind(self, subscriber: Subscriber, format: WireFormat, run: Run) -> None:
        if self.policy != "catch_up" or not run.epoch or self.position is None:
            super().fell_behind(subscriber, format, run)
            return
        told = self._told_generation
        reader = Reader(subscriber, format, None, None, generation=told, told=told)
        reader.position = self.position  # still the one before the run
        self.readers[subscriber] = reader

    def lost(self, *, is_plain: bool) -> None:
        """The Redis connection is gone: what was held until something was read is in history, or lost."""
        if is_plain or self.position is None:
            super().lost(is_plain=is_plain)  # there is no history to make up for it
        self._healing = None
        self._held.clear()
        # Where Redis comes back with an older state, this is behind nothing that is read from now on.
        self._tail.clear()
        self._is_away = True

    def reopened(self, now: float) -> None:
        """Redis delivers the channel, perhaps again: then what was missed meanwhile comes first."""
        super().reopened(now)
        self._is_away = False
        # What was read before now may end before what Redis delivers begins.
        self._era = next(_eras)
        if self.position is not None:
            self._heal()
        for reader in self.readers.values():
            if reader.has_begun:
                reader.forget_page()
            if reader.is_asking:
                self._ask(reader)

    def take(self, runs: Sequence[Run], now: float) -> None:
        """Stamped messages, in the order of their coming."""
        for run in runs:
            if run.epoch:
                self._take(run, now)
            else:
                self._take_unkept(run, now)

    def compare(self, top: bytes | None, now: float) -> None:
        """The newest position in Redis, as history has it; the trail reads where that is not where it is."""
        self.heard_at = now
        if self.position is None or self._healing is not None:
            return
        epoch, offset, tag, _ = top.split(b" ") if top is not None else (b"", b"0", b"", b"")
        if (epoch, int(offset), tag) != (self.position.epoch, self.position.offset, self.position.tag):
            self._heal()

    def recorder_changed(self, generation: int, now: float, *, is_sure: bool = False) -> None:
        """Another daemon records what is published plainly; for a moment nobody did.

        Args:
            is_sure: an event says so. Else a channel that only ever had stamped events has missed nothing.
        """
        if generation <= self._told_generation or self.position is None:
            return
        if is_sure or self._recorded or not self.position.offset:
            self._told_generation = generation
            self.tell(self._recorder_gap(self.position, self._told_generation), now)

    def _take(self, run: Run, now: float) -> None:
        if self.position is None:
            if self.lanes or self.backlogs:
                self._advance(run, now)  # they listen without history
            elif self.readers:
                self._held.add(run)
            return
        if self._healing is not None:
            self._held.add(run)
        elif run.epoch != self.position.epoch or run.first > self.position.offset + 1:
            self._held.add(run)
            self._heal()
        elif run.last > self.position.offset:
            self.heard_at = now
            if run.generation:
                self.recorder_changed(run.generation, now, is_sure=True)
            self._advance(run.after(self.position.offset), now)
            self._settle_waiting(now)

    def _take_unkept(self, run: Run, now: float) -> None:
        self.hand_on(run, now)
        self._unkept_at = self.position
        for reader in self.readers.values():
            reader.owed.add(NOT_KEPT)

    def _advance(self, run: Run, now: float) -> None:
        """Hand on what follows, and be there."""
        if run.is_recorded:
            self._recorded = max(self._recorded, run.generation, 1)
        elif run.first == 1:
            self._recorded = 0
        self.hand_on(run, now)
        self.position = run.end_position
        if self.readers:
            self._tail.add(run)

    def _release_held(self, now: float) -> None:
        for run in self._held.take():
            self._take(run, now)

    def _heal(self) -> None:
        assert self.position is not None
        token = self._healing = object()
        self._held.asked()

        def healed(page: Page | None, now: float) -> None:
            if self._healing is token:
                self._healing = None
                self._take_page(page, now)

        # In an era of its own: what is held by now must be in the answer.
        self.historian.read(self.name, Since(self.position), next(_eras), healed, lambda: self._healing is token)

    def _take_page(self, page: Page | None, now: float) -> None:
        if page is None or not (self.lanes or self.backlogs or self.readers):
            self.position = None
            self._held.clear()
            self._tail.clear()
            self.tell(Gap(NO_HISTORY, None, None, self.terms.clock()), now)
            while self._waiting:
                self._ask(self._waiting.pop())
            return
        self.heard_at = now
        for item in page.items:
            if isinstance(item, Run):
                self._advance(item, now)
            elif item.reason == RECORDER_CHANGED:
                self.recorder_changed(item.generation, now, is_sure=True)
            else:
                self.tell(item, now)
                self._tail.clear()
                if item.end is not None:
                    self.position = Position.from_text(item.end.decode())
                if item.reason == EPOCH_CHANGED:
                    self._recorded = 0
                elif item.reason == ROLLED_BACK:
                    # Who is still before that place will never read what others had, and cannot know it.
                    for reader in self.readers.values():
                        reader.owed.add(ROLLED_BACK)
        self.position = page.end
        self._recorded = max(self._recorded, page.recorded)
        if page.is_last:
            self._held.answered()
        if not page.is_last or self._held.has_forgotten(page.end):
            self._heal()
            return
        self._release_held(now)
        self._settle_waiting(now, is_healed=True)

    def _ask(self, reader: Reader) -> None:
        reader.is_asking = True
        era = self._era

        def is_wanted() -> bool:
            return self.readers.get(reader.subscriber) is reader and self._era == era

        def came(page: Page | None, now: float) -> None:
            if is_wanted():
                reader.is_asking = False
                self._take_readers_page(reader, page, now)

        since = reader.since if reader.position is None else Since(reader.position)
        self.historian.read(self.name, since, era, came, is_wanted)

    def _take_readers_page(self, reader: Reader, page: Page | None, now: float) -> None:
        reader.page = page
        if reader.on_first is not None:
            reader.on_first(reader, self.name, now)
        elif page is None:
            self.begin(reader, now)
        else:
            self._serve(reader, now)

    def _serve(self, reader: Reader, now: float) -> None:
        """Send the page that came, if there is room for it."""
        page = reader.page
        assert page is not None
        if not self._send(reader, page.since(reader.told), now):
            return
        reader.page = None
        reader.position = page.end
        reader.is_at_end = page.is_last
        reader.learn(page)
        self._settle(reader, now)

    def _send(self, reader: Reader, page: Page, now: float) -> bool:
        subscriber, format = reader.subscriber, reader.format
        most = self.terms.late_bytes
        if format.is_personal:
            data = b"".join([cast(Composer, subscriber).compose(self.name, item) for item in page.items])
            count = sum(len(item.payloads) for item in page.items if isinstance(item, Run))
            is_taken = self.give(subscriber, format, data, count, now, most, passed=page.end.text)
        else:
            data, count, ends = page.encoded(format, self.name)
            is_taken = self.give(subscriber, format, data, count, now, most, ends=ends)
        if is_taken:
            self.terms.books.gaps.update(item.reason for item in page.items if isinstance(item, Gap))
        return is_taken

    def _settle_waiting(self, now: float, *, is_healed: bool = False) -> None:
        waiting, self._waiting = self._waiting, set()
        for reader in waiting:
            if self.readers.get(reader.subscriber) is reader:
                self._settle(reader, now, is_healed=is_healed)
                # The trail has read to the end, and is not where the reader is: that place is no more.
                if is_healed and reader in self._waiting and self._healing is None:
                    self._waiting.discard(reader)
                    self._ask(reader)

    def _settle(self, reader: Reader, now: float, *, is_healed: bool = False) -> None:
        """What a reader does next: go live, read on, or wait for the trail, which is behind it."""
        there = reader.position
        assert there is not None
        if self.position is None:
            if not reader.is_at_end:
                self._ask(reader)
                return
            # Nobody is live yet, or only who listens without history: the trail begins where this reader is.
            if self.lanes or self.backlogs:
                self.tell(Gap(NO_HISTORY, None, there.text, self.terms.clock()), now)
            self.position = there
            self._told_generation = max(self._told_generation, reader.generation)
            self._recorded = max(self._recorded, reader.recorded)
            self._go_live(reader, now)
            self._release_held(now)
            if self._held.has_forgotten(there):
                self._heal()
            self._settle_waiting(now)
        elif (self._healing is not None or self._is_away) and reader.is_at_end:
            self._waiting.add(reader)  # until it is known where the trail is
        elif there.epoch != self.position.epoch and reader.is_at_end:
            self._waiting.add(reader)
            if not is_healed:
                self._heal()
        elif there.offset > self.position.offset and reader.is_at_end:
            self._waiting.add(reader)
        elif there.is_same(self.position):
            self._go_live(reader, now)
        elif there.offset == self.position.offset and there.epoch == self.position.epoch:
            self._waiting.add(reader)  # another tag: one of the two is no more
            if not is_healed:
                self._heal()
        elif there.offset < self.position.offset and self._tail.follows(there.epoch, there.offset):
            if self._send_tail(reader, now):
                self._go_live(reader, now)
        else:
            self._ask(reader)

    def _send_tail(self, reader: Reader, now: float) -> bool:
        assert reader.position is not None
        for run in self._tail.after(reader.position.offset):
            if run.generation > reader.told:
                reader.told = reader.generation = run.generation
                gap = self._recorder_gap(reader.position, run.generation)
                self.tell_one(reader.subscriber, reader.format, gap, now)
            if not self.offer(reader.subscriber, reader.format, run, now):
                return False
            reader.position = run.end_position
        return True

    def _go_live(self, reader: Reader, now: float) -> None:
        self._forget(reader.subscriber)
        if reader.generation > self._told_generation:
            # The others hear of it now: told later, it would be told to this one too, who came after it.
            self.recorder_changed(reader.generation, now)
        for reason in reader.owed:
            self.tell_one(reader.subscriber, reader.format, Gap(reason, None, None, self.terms.clock()), now)
        if reader.generation < self._told_generation and self._recorded and self.position is not None:
            gap = self._recorder_gap(self.position, self._told_generation)
            self.tell_one(reader.subscriber, reader.format, gap, now)
        self.enter(reader.subscriber, reader.format)

    def _recorder_gap(self, at: Position, generation: int) -> Gap:
        return Gap(RECORDER_CHANGED, at.text, at.text, self.terms.clock(), generation=generation)

    def _forget(self, subscriber: Subscriber) -> None:
        reader = self.readers.pop(subscriber, None)
        if reader is not None:
            self._waiting.discard(reader)
        if not self.readers:
            self._tail.clear()
