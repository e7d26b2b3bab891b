"""The hub: who listens to which channel, and the one loop that hands messages on.

Two indexes are kept in step: channel -> topic -> format -> subscribers here, subscriber -> channels at each
subscriber. `dispatch` is the hot path: it turns what arrived together for a channel into each wire
format in use once, and offers the same bytes to every subscriber of that format.

Laws: nothing here waits, and nothing that a subscriber does during `deliver` may change the hub (it
flags itself and leaves later, from its own task). A subscriber is told `joined` before the first
message, and joins several channels as one: it is in all of them or in none.

Synchronous; no I/O, no clock but that of `Books.encoding`. Bounds: the clients' limits on subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import structlog
from attrs import Factory, define, frozen

from broker.position import NOWHERE, Since, Start
from broker.run import Run
from broker.topic.reader import Reader
from broker.topic.topic import Books, Topic
from broker.topic.topic import Subscriber as TopicSubscriber
from broker.topic.trail import Trail
from broker.wireformat import WireFormat

log = structlog.get_logger(__name__)

# Channels on which daemons talk to each other: nobody's subscriptions, so they are not counted.
INTERNAL = b"broker:"


class Subscriber(TopicSubscriber, Protocol):
    """What the hub tells one client."""

    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        """From here on nothing published on `names` is missed. `starts` tells where, for those with history."""

    def refused(self, name: bytes, why: str) -> None:
        """Redis does not let the broker listen to `name`."""


@frozen
class Outage:
    """A time without Redis, in seconds since 1970: from the last byte read to the last channel confirmed."""

    begun_at: float
    ended_at: float


@frozen
class UpstreamStatistics:
    """A snapshot; counts are since the start.

    Args:
        connected: Redis delivers every channel that is wanted.
        refused: messages dropped, by reason.
        away_since: when the outage that lasts began, in seconds since 1970; None while connected.
        refused_by_type: messages dropped, by channel type, then by reason.
    """

    connected: bool
    redis_subscriptions: int
    messages: int
    refused: Mapping[str, int]
    outages: int
    last_outage: Outage | None
    away_since: float | None
    refused_by_type: Mapping[str, Mapping[str, int]] = Factory(dict)


class Upstream(Protocol):
    """Whoever listens to Redis for the hub."""

    def want(self, name: bytes) -> bool:
        """Listen to a channel. Returns whether it is live already; `Hub.opened` tells otherwise."""

    def release(self, name: bytes) -> None:
        """Nobody listens to the channel any more."""

    def statistics(self) -> UpstreamStatistics: ...


@define(eq=False)
class _Joining:
    """A subscriber that waits for the last of its channels to be live, and then for where it begins in each."""

    subscriber: Subscriber
    format: WireFormat
    names: tuple[bytes, ...]
    since: Mapping[bytes, Since]
    missing: set[bytes]
    reading: dict[bytes, Reader | None] = Factory(dict)


@define(eq=False)
class _Entry:
    """One channel: its topic, and who waits for it."""

    topic: Topic
    joining: dict[Subscriber, _Joining] = Factory(dict)


@frozen
class HubStatistics:
    """A snapshot: channels, subscriptions and clients that are too slow now; the rest since the start."""

    channels: int
    subscriptions: int
    late: int
    messages: int
    deliveries: int
    bytes: int
    gaps: Mapping[str, int]
    fell_behind: Mapping[str, int]
    skipped: int
    dropped: int


@define(eq=False)
class Hub:
    """The table of channels.

    Args:
        upstream: asked for a channel when its first subscriber comes.
        make_topic: makes the topic of a channel, by its type's options.
        books: what the topics count.
        on_recorded: told when somebody records all the same.
    """

    upstream: Upstream
    make_topic: Callable[[bytes], Topic]
    books: Books
    # Nobody records what is published plainly, as Redis does not let us: then it is handed on as it comes.
    is_plain: bool = False
    on_recorded: Callable[[], None] = lambda: None
    _entries: dict[bytes, _Entry] = Factory(dict)
    _subscriptions: int = 0
    _internal: set[bytes] = Factory(set)  # those between daemons that were ever joined: a few

    def join(
        self,
        subscriber: Subscriber,
        names: tuple[bytes, ...],
        format: WireFormat,
        since: Mapping[bytes, Since],
        now: float,
    ) -> bool:
        """Subscribe to `names`, none of which the subscriber has yet, as one.

        Args:
            since: where the subscriber was, in the channels that it comes back to.
            now: loop seconds.

        Returns:
            Whether all were live: then `joined` has been called, or will be when history is read.
        """
        missing = set()
        for name in names:
            if name not in self._entries:
                self._entries[name] = _Entry(self.make_topic(name))
                if name.startswith(INTERNAL):
                    self._internal.add(name)
            if not self.upstream.want(name):
                missing.add(name)
        joining = _Joining(subscriber, format, names, since, missing)
        for name in names:
            self._entries[name].joining[subscriber] = joining
        if not missing:
            self._read(joining, now)
        return not missing

    def leave(self, subscriber: Subscriber, name: bytes) -> None:
        """Unsubscribe from one channel, joined or still joining. Not to be called during `dispatch`."""
        entry = self._entries.get(name)
        if entry is None:
            return
        joining = entry.joining.get(subscriber)
        if joining is not None:
            self._abandon(joining)
        self._subscriptions -= entry.topic.leave(subscriber) and not name.startswith(INTERNAL)
        self._release_if_empty(name)

    def opened(self, name: bytes, now: float) -> None:
        """Redis confirmed the channel."""
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.topic.reopened(now)
        for joining in list(entry.joining.values()):
            joining.missing.discard(name)
            if not joining.missing and not joining.reading:
                self._read(joining, now)

    def refused(self, name: bytes, why: str) -> None:
        """Redis refused the channel: everyone on it is told and taken off it."""
        entry = self._entries.get(name)
        if entry is None:
            return
        concerned = dict.fromkeys((*entry.joining, *entry.topic.everyone()))
        for subscriber in concerned:
            self._subscriptions -= entry.topic.leave(subscriber) and not name.startswith(INTERNAL)
        for joining in list(entry.joining.values()):
            self._abandon(joining)
        if self._entries.pop(name, None) is not None:
            self.upstream.release(name)
        for subscriber in concerned:
            subscriber.refused(name, why)  # type: ignore[attr-defined]

    def lost(self) -> None:
        """The Redis connection is gone: whoever was waiting for a channel waits for all of them again."""
        for entry in self._entries.values():
            entry.topic.lost(is_plain=self.is_plain)
            for subscriber, joining in entry.joining.items():
                joining.missing.update(joining.names)
                joining.reading.clear()
                if not entry.topic.is_plain:
                    entry.topic.leave(subscriber)

    def dispatch(self, batch: Mapping[bytes, Sequence[bytes]], now: float) -> None:
        """Hand on what arrived together: for each channel its payloads, in order. Never waits, raises nothing."""
        entries = self._entries
        books = self.books
        tallies, encoding = books.tallies, books.encoding
        encoding.is_due = True  # of what comes together, one is timed
        for name, payloads in batch.items():
            entry = entries.get(name)
            if entry is None:
                continue
            try:
                topic = entry.topic
                if not topic.is_plain:
                    if topic.keeps_history and not self.is_plain:
                        continue  # comes again, stamped
                    topic.take((Run.without_positions(payloads),), now)
                    continue
                count = len(payloads)
                books.messages += count
                topic.messages += count
                for format, lane in topic.lanes.items():
                    if encoding.is_due:
                        data = encoding.time(format.encode, payloads, name)
                    else:
                        data = format.encode(payloads, name)
                    for outlet in lane.values():
                        outlet.deliver(data, count, now)
                    tally = tallies[format]
                    tally.deliveries += count * len(lane)
                    tally.bytes += len(data) * len(lane)
            except Exception:
                self.failed(name)

    def take(self, name: bytes, runs: Sequence[Run], now: float) -> None:
        """Hand on what arrived stamped. Never waits, raises nothing."""
        if self.is_plain and any(run.is_recorded for run in runs):
            self.on_recorded()  # somebody else may what we may not: nothing is handed on twice
        entry = self._entries.get(name)
        if entry is not None:
            entry.topic.take(runs, now)

    def failed(self, name: bytes) -> None:
        """What came on a channel could not be handed on, for the exception that is being handled.

        One channel must not take the others along. Nobody knows who has had what of it: whoever listens there ends,
        and comes back to where it was.
        """
        entry = self._entries.get(name)
        concerned = entry.topic.everyone() if entry is not None else ()
        log.exception("a channel failed", channel=name.decode(errors="replace"), clients=len(concerned))
        for subscriber in concerned:
            subscriber.failed()

    def drained(self, subscriber: Subscriber, names: Iterable[bytes], now: float) -> None:
        """Nothing waits for a subscriber any more that was too slow; `names` are its channels."""
        for name in names:
            entry = self._entries.get(name)
            if entry is not None:
                entry.topic.drained(subscriber, now)

    def hands_on(self, name: bytes, *, is_stamped: bool) -> bool:
        """Whether somebody gets what comes on a channel, as it comes."""
        entry = self._entries.get(name)
        if entry is None or name.startswith(INTERNAL) or not entry.topic.subscribers:
            return False
        return is_stamped or self.is_plain or not entry.topic.keeps_history

    def trails(self) -> list[Trail]:
        """The channels with history."""
        return [entry.topic for entry in self._entries.values() if isinstance(entry.topic, Trail)]

    def topics(self) -> list[Topic]:
        """Every channel but those between daemons."""
        return [entry.topic for name, entry in self._entries.items() if not name.startswith(INTERNAL)]

    def names(self) -> list[str]:
        return [name.decode() for name in self._entries if not name.startswith(INTERNAL)]

    @property
    def subscriptions(self) -> int:
        """Clients times their channels, now."""
        return self._subscriptions

    def channel_count(self) -> int:
        """How many channels somebody listens to now, but for those of the daemons among themselves."""
        return len(self._entries) - sum(name in self._entries for name in self._internal)

    def statistics(self) -> HubStatistics:
        books = self.books
        return HubStatistics(
            self.channel_count(),
            self._subscriptions,
            sum(entry.topic.late for entry in self._entries.values()),
            books.messages,
            books.deliveries,
            books.bytes,
            dict(books.gaps),
            dict(books.fell_behind),
            books.skipped,
            books.dropped,
        )

    def _read(self, joining: _Joining, now: float) -> None:
        """All channels are live: find out where the subscriber begins in those with history."""
        topics = [self._entries[name].topic for name in joining.names]
        trails = [topic for topic in topics if isinstance(topic, Trail)]
        if not trails:
            self._complete(joining, now)
            return
        joining.reading = {trail.name: None for trail in trails}

        def came(reader: Reader, name: bytes, now: float) -> None:
            joining.reading[name] = reader
            if all(joining.reading.values()):
                self._complete(joining, now)

        for trail in trails:
            trail.read(joining.subscriber, joining.format, joining.since.get(trail.name), came)

    def _complete(self, joining: _Joining, now: float) -> None:
        starts = {
            name: _start_of(reader, cast(Trail, self._entries[name].topic).replay)
            for name, reader in joining.reading.items()
            if reader is not None
        }
        for name in joining.names:
            del self._entries[name].joining[joining.subscriber]
        joining.subscriber.joined(joining.names, starts)
        for name in joining.names:
            self._subscriptions += not name.startswith(INTERNAL)
            topic = self._entries[name].topic
            reader = joining.reading.get(name)
            if isinstance(topic, Trail) and reader is not None:
                topic.begin(reader, now)
            else:
                topic.enter(joining.subscriber, joining.format)
                if name in joining.since:
                    topic.tell_no_history(joining.subscriber, joining.format, now)

    def _abandon(self, joining: _Joining) -> None:
        for name in joining.names:
            entry = self._entries.get(name)
            if entry is not None and entry.joining.pop(joining.subscriber, None) is not None:
                entry.topic.leave(joining.subscriber)
                self._release_if_empty(name)

    def _release_if_empty(self, name: bytes) -> None:
        entry = self._entries.get(name)
        if entry is not None and not entry.topic.subscribers and not entry.joining:
            del self._entries[name]
            self.upstream.release(name)


def _start_of(reader: Reader, replay: int) -> Start:
    page, since = reader.page, reader.since
    if page is None:
        return Start(None, False)
    if since is None or page.recovered:
        return Start(page.begin.text, since is not None, replay)
    # It is where it was until it has been told of the gap, lest a cut before that is the end of it.
    return Start(since.position.text if since.position is not None else NOWHERE, False, replay)
