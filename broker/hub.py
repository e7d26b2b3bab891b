"""The hub: who listens to which channel, and the one loop that hands messages on.

Two indexes are kept in step: channel -> format -> subscribers here, subscriber -> channels at each
subscriber. `dispatch` is the hot path: it turns what arrived together for a channel into each wire
format in use once, and offers the same bytes to every subscriber of that format.

Laws: nothing here waits, and nothing that a subscriber does during `deliver` may change the hub (it
flags itself and leaves later, from its own task). A subscriber is told `joined` before the first
message, and joins several channels as one: it is in all of them or in none.

Synchronous; no I/O, no clock. Bounds: the clients' limits on subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import Factory, define, field, frozen

from broker.wireformat import WireFormat


class Outlet(Protocol):
    """Where a subscriber's bytes go. Taking them never waits."""

    def deliver(self, data: bytes, events: int, now: float) -> None:
        """Take `data`, which holds `events` events, at `now`."""


class Subscriber(Protocol):
    """What the hub tells one client."""

    @property
    def outlet(self) -> Outlet: ...

    def joined(self, names: tuple[bytes, ...]) -> None:
        """From here on nothing published on `names` is missed."""

    def refused(self, name: bytes, why: str) -> None:
        """Redis does not let the broker listen to `name`."""

    def stream_ended(self, name: bytes) -> None:
        """The channel's last event was delivered. Must not change the hub."""


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
    """A subscriber that waits for the last of its channels to be live."""

    subscriber: Subscriber
    format: WireFormat
    names: tuple[bytes, ...]
    missing: set[bytes]


@define(eq=False)
class _Topic:
    lanes: dict[WireFormat, dict[Subscriber, Outlet]] = Factory(dict)
    joining: dict[Subscriber, _Joining] = Factory(dict)


@frozen
class HubStatistics:
    """A snapshot: channels and subscriptions now; messages, deliveries and bytes since the start."""

    channels: int
    subscriptions: int
    messages: int
    deliveries: int
    bytes: int


@define(eq=False)
class Hub:
    """The table of channels. `upstream` is asked for a channel when its first subscriber comes."""

    upstream: Upstream
    on_end: Callable[[bytes], None] = field(default=lambda name: None)
    _topics: dict[bytes, _Topic] = Factory(dict)
    _messages: int = 0
    _deliveries: int = 0
    _bytes: int = 0

    def join(self, subscriber: Subscriber, names: tuple[bytes, ...], format: WireFormat) -> bool:
        """Subscribe to `names`, none of which the subscriber has yet, as one.

        Returns:
            Whether all were live: then `joined` has been called; else it will be.
        """
        missing = set()
        for name in names:
            if name not in self._topics:
                self._topics[name] = _Topic()
            if not self.upstream.want(name):
                missing.add(name)
        joining = _Joining(subscriber, format, names, missing)
        if not missing:
            self._complete(joining)
            return True
        for name in names:
            self._topics[name].joining[subscriber] = joining
        return False

    def leave(self, subscriber: Subscriber, name: bytes) -> None:
        """Unsubscribe from one channel, joined or still joining. Not to be called during `dispatch`."""
        topic = self._topics.get(name)
        if topic is None:
            return
        joining = topic.joining.get(subscriber)
        if joining is not None:
            self._abandon(joining)
        for format, lane in list(topic.lanes.items()):
            if lane.pop(subscriber, None) is not None and not lane:
                del topic.lanes[format]
        self._release_if_empty(name)

    def opened(self, name: bytes) -> None:
        """Redis confirmed the channel."""
        topic = self._topics.get(name)
        if topic is None:
            return
        for joining in list(topic.joining.values()):
            joining.missing.discard(name)
            if not joining.missing:
                for joined in joining.names:
                    del self._topics[joined].joining[joining.subscriber]
                self._complete(joining)

    def refused(self, name: bytes, why: str) -> None:
        """Redis refused the channel: everyone on it is told and taken off it."""
        topic = self._topics.get(name)
        if topic is None:
            return
        concerned = dict.fromkeys(topic.joining)
        for lane in topic.lanes.values():
            concerned.update(dict.fromkeys(lane))
        for joining in list(topic.joining.values()):
            self._abandon(joining)
        if self._topics.pop(name, None) is not None:
            self.upstream.release(name)
        for subscriber in concerned:
            subscriber.refused(name, why)

    def lost(self) -> None:
        """The Redis connection is gone: whoever was waiting for a channel waits for all of them again."""
        for topic in self._topics.values():
            for joining in topic.joining.values():
                joining.missing.update(joining.names)

    def dispatch(self, batch: Mapping[bytes, Sequence[bytes]], now: float) -> None:
        """Hand on what arrived together: for each channel its payloads, in order. Never waits, raises nothing."""
        topics = self._topics
        deliveries = size = 0
        for name, payloads in batch.items():
            topic = topics.get(name)
            if topic is None:
                continue
            count = len(payloads)
            self._messages += count
            for format, lane in topic.lanes.items():
                if format.last_index is not None:
                    self._dispatch_finite(name, format, lane, payloads, now)
                    continue
                data = format.encode(payloads)
                for outlet in lane.values():
                    outlet.deliver(data, count, now)
                deliveries += count * len(lane)
                size += len(data) * len(lane)
        self._deliveries += deliveries
        self._bytes += size

    def names(self) -> list[str]:
        return [name.decode() for name in self._topics]

    def statistics(self) -> HubStatistics:
        subscriptions = sum(len(lane) for topic in self._topics.values() for lane in topic.lanes.values())
        return HubStatistics(len(self._topics), subscriptions, self._messages, self._deliveries, self._bytes)

    def _dispatch_finite(
        self,
        name: bytes,
        format: WireFormat,
        lane: dict[Subscriber, Outlet],
        payloads: Sequence[bytes],
        now: float,
    ) -> None:
        assert format.last_index is not None
        assert format.encode_end is not None
        last = format.last_index(payloads)
        if last is None:
            data = format.encode(payloads)
            count = len(payloads)
        else:
            data = format.encode(payloads[: last + 1]) + format.encode_end(payloads[last])
            count = last + 1
        for outlet in lane.values():
            outlet.deliver(data, count, now)
        self._deliveries += count * len(lane)
        self._bytes += len(data) * len(lane)
        if last is not None:
            self.on_end(name)
            for subscriber in lane:
                subscriber.stream_ended(name)

    def _complete(self, joining: _Joining) -> None:
        joining.subscriber.joined(joining.names)
        for name in joining.names:
            lane = self._topics[name].lanes.setdefault(joining.format, {})
            lane[joining.subscriber] = joining.subscriber.outlet

    def _abandon(self, joining: _Joining) -> None:
        for name in joining.names:
            topic = self._topics.get(name)
            if topic is not None and topic.joining.pop(joining.subscriber, None) is not None:
                self._release_if_empty(name)

    def _release_if_empty(self, name: bytes) -> None:
        topic = self._topics.get(name)
        if topic is not None and not topic.lanes and not topic.joining:
            del self._topics[name]
            self.upstream.release(name)
