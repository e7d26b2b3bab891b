"""A topic: one channel as this daemon hands it on to those who listen, and what becomes of who is too slow.

Clients are in lanes, one for each wire format, and get the same bytes. Where the channel type's policy for
slow clients is not `disconnect`, a client that has too much unread leaves its lane for a backlog of its own,
and comes back when it has read:

    latest        of what came meanwhile it gets the newest event; the others are counted
    drop_oldest   up to a bound it gets everything; over it the oldest are dropped, and a gap event says how many
    catch_up      see `trail`

Synchronous; no I/O, no clock. Bounds: a client's backlogs have at most `backlog_max_bytes` together, or one
event of each channel.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import ClassVar, Protocol, cast

from attrs import Factory, define, field

from broker.gap import NO_HISTORY, OVERFLOW, REDIS_AWAY, Gap
from broker.histogram import Stopwatch
from broker.run import Run
from broker.wireformat import WireFormat


class Outlet(Protocol):
    """Where a subscriber's bytes go. Taking them never waits.

    Args:
        backlog_bytes: what waits for the subscriber in the backlogs of all its channels.
    """

    backlog_bytes: int

    def deliver(self, data: bytes, events: int, now: float) -> None:
        """Take `data`, which holds `events` events, at `now`."""

    def offer(self, data: bytes, events: int, now: float, most: int) -> bool:
        """As `deliver`; refused where more than `most` bytes wait already: then the owner is told when none wait."""


class Subscriber(Protocol):
    """What a topic tells one client."""

    @property
    def outlet(self) -> Outlet: ...

    def stream_ended(self, name: bytes) -> None:
        """The channel's last event was delivered. Must not change the hub."""

    def failed(self) -> None:
        """What came on the channel could not be handed on, as the log says. Must not change the hub."""


class Composer(Subscriber, Protocol):
    """A subscriber with a personal format."""

    def compose(self, name: bytes, item: Run | Gap) -> bytes:
        """The bytes of events with positions, or of a gap up to one."""

    def passed(self, name: bytes, position: bytes) -> None:
        """What was composed up to `position` was taken."""


@define(eq=False)
class Tally:
    """Events delivered in one wire format, and their bytes."""

    deliveries: int = 0
    bytes: int = 0


@define(eq=False)
class Books:
    """What is counted over all topics, since the start.

    Args:
        encoding: how long it takes to turn what arrived together for a channel into a wire format; one of a batch.
    """

    messages: int = 0
    tallies: defaultdict[WireFormat, Tally] = Factory(lambda: defaultdict(Tally))
    encoding: Stopwatch = Factory(Stopwatch)
    gaps: Counter[str] = Factory(Counter)
    fell_behind: Counter[str] = Factory(Counter)  # by policy
    skipped: int = 0  # events that `latest` left out
    dropped: int = 0  # events that `drop_oldest` dropped

    @property
    def deliveries(self) -> int:
        return sum(tally.deliveries for tally in self.tallies.values())

    @property
    def bytes(self) -> int:
        return sum(tally.bytes for tally in self.tallies.values())


@define(eq=False)
class Terms:
    """What all topics share.

    Args:
        clock: seconds since 1970.
        late_bytes: so much may wait for a client before its channels' policies apply.
        on_end: told when a stream with an end has had it.
    """

    clock: Callable[[], float]
    late_bytes: int
    backlog_max_bytes: int
    on_end: Callable[[bytes], None]
    books: Books = Factory(Books)


@define(eq=False)
class _Backlog:
    """What one client still has to get, in its order; where events were dropped stands a gap."""

    format: WireFormat
    outlet: Outlet
    items: deque[Run | Gap] = Factory(deque)


@define(eq=False)
class Topic:
    """One channel. `policy` is what its type says about slow clients."""

    keeps_history: ClassVar[bool] = False

    name: bytes
    policy: str
    terms: Terms
    lanes: dict[WireFormat, dict[Subscriber, Outlet]] = Factory(dict)
    backlogs: dict[Subscriber, _Backlog] = Factory(dict)
    is_plain: bool = field(init=False)
    _was_away: bool = field(init=False, default=False)
    # Messages since it is followed, and as many as there were when all topics were marked last, and before.
    messages: int = field(init=False, default=0)
    marked: int = field(init=False, default=0)
    marked_before: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        # Then the hub hands messages on by itself.
        self.is_plain = self.policy == "disconnect"

    @property
    def subscribers(self) -> int:
        return sum(map(len, self.lanes.values())) + len(self.backlogs)

    @property
    def late(self) -> int:
        """How many clients are too slow for what comes, now."""
        return len(self.backlogs)

    def enter(self, subscriber: Subscriber, format: WireFormat) -> None:
        """From here on the subscriber gets what comes."""
        if format.last_index is not None:
            self.is_plain = False
        self.lanes.setdefault(format, {})[subscriber] = subscriber.outlet

    def leave(self, subscriber: Subscriber) -> bool:
        """Nothing more for this subscriber. Safe to call for one that is not here; returns whether it was."""
        backlog = self.backlogs.pop(subscriber, None)
        was_here = backlog is not None
        if backlog is not None:
            backlog.outlet.backlog_bytes -= sum(item.size for item in backlog.items if isinstance(item, Run))
        for format, lane in list(self.lanes.items()):
            if lane.pop(subscriber, None) is not None:
                was_here = True
                if not lane:
                    del self.lanes[format]
        return was_here

    def everyone(self) -> list[Subscriber]:
        return [*(subscriber for lane in self.lanes.values() for subscriber in lane), *self.backlogs]

    def take(self, runs: Sequence[Run], now: float) -> None:
        """What a publisher stamped all the same: a channel without history has no positions."""
        for run in runs:
            self.hand_on(Run.without_positions(run.payloads), now)

    def lost(self, *, is_plain: bool) -> None:
        """The Redis connection is gone. `is_plain`: what is published plainly is not recorded."""
        self._was_away = bool(self.subscribers)

    def reopened(self, now: float) -> None:
        """Redis delivers the channel, for the first time or again."""
        if self._was_away:
            self._was_away = False
            self.tell(Gap(REDIS_AWAY, None, None, self.terms.clock()), now)

    def hand_on(self, run: Run, now: float) -> None:
        """To everyone who listens. Never waits, raises nothing."""
        books = self.terms.books
        books.messages += len(run.payloads)
        self.messages += len(run.payloads)
        most = 0 if self.policy == "latest" else self.terms.late_bytes
        for format, lane in list(self.lanes.items()):
            if format.is_personal and run.positions:
                late = [each for each in lane if not self.offer(each, format, run, now)]
                ends = False
            else:
                encoding = books.encoding
                encoded = format.encoded
                data, count, ends = (
                    encoding.time(encoded, self.name, run) if encoding.is_due else encoded(self.name, run)
                )
                if not data:
                    continue
                late = []
                if self.policy == "disconnect":
                    for outlet in lane.values():
                        outlet.deliver(data, count, now)
                else:
                    late = [each for each, outlet in lane.items() if not outlet.offer(data, count, now, most)]
                taken = len(lane) - len(late)
                tally = books.tallies[format]
                tally.deliveries += count * taken
                tally.bytes += len(data) * taken
            for subscriber in late:
                self._move_out(subscriber, format, lane)
                books.fell_behind[self.policy] += 1
                self.fell_behind(subscriber, format, run)
            if ends:
                self.terms.on_end(self.name)
                for subscriber in lane:
                    subscriber.stream_ended(self.name)
        for backlog in self.backlogs.values():
            self._add(backlog, run)

    def offer(self, subscriber: Subscriber, format: WireFormat, run: Run, now: float) -> bool:
        """A run for one subscriber. Returns whether it was taken."""
        most = {"latest": 0, "disconnect": None}.get(self.policy, self.terms.late_bytes)
        if format.is_personal and run.positions:
            data = cast(Composer, subscriber).compose(self.name, run)
            return self.give(subscriber, format, data, len(run.payloads), now, most, passed=run.end)
        data, count, ends = format.encoded(self.name, run)
        return self.give(subscriber, format, data, count, now, most, ends=ends)

    def give(
        self,
        subscriber: Subscriber,
        format: WireFormat,
        data: bytes,
        count: int,
        now: float,
        most: int | None,
        *,
        passed: bytes | None = None,
        ends: bool = False,
    ) -> bool:
        """Bytes for one subscriber. Returns whether they were taken.

        Args:
            most: so many bytes may wait already; None for whatever the outlet bears.
            passed: the position behind them, where they are in a personal format.
            ends: they end the stream.
        """
        if data:
            if most is None:
                subscriber.outlet.deliver(data, count, now)
            elif not subscriber.outlet.offer(data, count, now, most):
                return False
            tally = self.terms.books.tallies[format]
            tally.deliveries += count
            tally.bytes += len(data)
        if passed is not None:
            cast(Composer, subscriber).passed(self.name, passed)
        if ends:
            self.terms.on_end(self.name)
            subscriber.stream_ended(self.name)
        return True

    def tell(self, gap: Gap, now: float) -> None:
        """A gap, to everyone who listens."""
        for format, lane in self.lanes.items():
            for subscriber in lane:
                self.tell_one(subscriber, format, gap, now)
        for backlog in self.backlogs.values():
            backlog.items.append(gap)  # behind what comes before it

    def tell_one(self, subscriber: Subscriber, format: WireFormat, gap: Gap, now: float) -> None:
        self.terms.books.gaps[gap.reason] += 1
        if format.is_personal and gap.end is not None:
            composer = cast(Composer, subscriber)
            subscriber.outlet.deliver(composer.compose(self.name, gap), 0, now)
            composer.passed(self.name, gap.end)
        else:
            subscriber.outlet.deliver(format.encoded(self.name, gap)[0], 0, now)

    def tell_no_history(self, subscriber: Subscriber, format: WireFormat, now: float) -> None:
        """The subscriber came back, and what it missed is not known."""
        self.tell_one(subscriber, format, Gap(NO_HISTORY, None, None, self.terms.clock()), now)

    def fell_behind(self, subscriber: Subscriber, format: WireFormat, run: Run) -> None:
        """The subscriber did not take `run`, and is in no lane any more."""
        self.backlogs[subscriber] = _Backlog(format, subscriber.outlet)

    def drained(self, subscriber: Subscriber, now: float) -> None:
        """Nothing waits for the subscriber any more: it gets what it has to get."""
        backlog = self.backlogs.get(subscriber)
        if backlog is None:
            return
        while backlog.items:
            item = backlog.items[0]
            if isinstance(item, Gap):
                self.tell_one(subscriber, backlog.format, item, now)
            elif self.offer(subscriber, backlog.format, item, now):
                backlog.outlet.backlog_bytes -= item.size
            else:
                return
            backlog.items.popleft()
        if self.backlogs.pop(subscriber, None) is not None:
            self.enter(subscriber, backlog.format)

    def _move_out(self, subscriber: Subscriber, format: WireFormat, lane: dict[Subscriber, Outlet]) -> None:
        del lane[subscriber]
        if not lane:
            del self.lanes[format]

    def _add(self, backlog: _Backlog, run: Run) -> None:
        if self.policy != "latest":
            backlog.items.append(run)
            backlog.outlet.backlog_bytes += run.size
            while backlog.outlet.backlog_bytes > self.terms.backlog_max_bytes and self._drop_oldest(backlog):
                pass
        elif run.payloads:
            waiting = [item for item in backlog.items if isinstance(item, Run)]
            self.terms.books.skipped += sum(len(each.payloads) for each in waiting) + len(run.payloads) - 1
            for each in waiting:
                backlog.items.remove(each)
                backlog.outlet.backlog_bytes -= each.size
            newest = run.only(slice(-1, None))
            backlog.items.append(newest)
            backlog.outlet.backlog_bytes += newest.size

    def _drop_oldest(self, backlog: _Backlog) -> bool:
        """Returns whether there was one to drop: the newest event stays."""
        items = backlog.items
        waiting = list(islice((each for each in items if isinstance(each, Run)), 2))
        oldest = waiting[0]
        if len(waiting) == 1 and len(oldest.payloads) < 2:
            return False
        place = items.index(oldest)
        del items[place]
        if len(oldest.payloads) > 1:
            items.insert(place, oldest.only(slice(1, None)))
        if oldest.payloads:
            backlog.outlet.backlog_bytes -= len(oldest.payloads[0])
            self.terms.books.dropped += 1
            # Told with what was dropped right before: another gap in between keeps its reason, and its place.
            before = items[place - 1] if place else None
            if isinstance(before, Gap) and before.reason == OVERFLOW:
                items[place - 1] = self._overflow(oldest, before)
            else:
                items.insert(place, self._overflow(oldest, None))
        return True

    def _overflow(self, run: Run, before: Gap | None) -> Gap:
        """The gap of a run's first event, and of those that were dropped `before` it."""
        begin, end, count = (before.begin, before.end, before.count or 0) if before else (None, None, 0)
        if run.positions:
            end = run.positions[0]
            epoch, offset, _ = end.split(b":")
            begin = begin or b"%b:%d:0" % (epoch, int(offset) - 1)
        return Gap(OVERFLOW, begin, end, self.terms.clock(), count + 1)
