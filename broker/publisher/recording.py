"""A publisher for tests: it keeps what it is given, and can be told to fail.

Law: everything but the round trip is the real `Publisher`'s; `tests/publisher/test_contract.py` holds
both to the same promises. Nothing is throttled, so that a test sees every value, in any haste.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, overload

from attrs import define, field, frozen

from broker.publisher.circuit import Circuit
from broker.publisher.destination import MIB
from broker.publisher.exchange import Breakdown, Outcome
from broker.publisher.front import Front
from broker.publisher.pool import Pool
from broker.publisher.publication import Publication
from broker.publisher.publisher import Publisher
from broker.publisher.statistics import UNREACHABLE, Tally
from broker.publisher.timer import Timer


@frozen
class RecordedEvent:
    """What was published: the channel without the prefix, the event as plain data, and its bytes.

    Args:
        user: whom it was published to; then the channel is the daemons' own, `broker:users`.
    """

    channel: str
    event: Any
    payload: bytes
    user: str | None = None

    @property
    def type(self) -> str | None:
        """The event's `type`; None for what is no object or has none."""
        return self.event.get("type") if isinstance(self.event, dict) else None


@define(eq=False)
class Recorder(Sequence[RecordedEvent]):
    """Recorded events, in the order in which they were published. A sequence; safe in threads.

    Args:
        receivers: how many are said to have received each event.
    """

    receivers: int = 1
    _events: list[RecordedEvent] = field(init=False, factory=list)
    _why: str | None = field(init=False, default=None)
    # The answer to each channel and idempotency key.
    _remembered: dict[tuple[str, str], int] = field(init=False, factory=dict)

    @property
    def types(self) -> list[str | None]:
        """The `type` of each event."""
        return [event.type for event in self]

    @property
    def channels(self) -> list[str]:
        """The channel of each event."""
        return [event.channel for event in self]

    def on(self, channel: str) -> list[Any]:
        """The events of one channel, as plain data."""
        return [event.event for event in self if event.channel == channel]

    def to_user(self, user: str) -> list[Any]:
        """The events that were published to one user, as plain data."""
        return [event.event for event in self if event.user == user]

    def clear(self) -> None:
        """Forget what was recorded, and every idempotency key."""
        self._events.clear()
        self._remembered.clear()

    def fail(self, why: str = "Redis is away, says the test") -> None:
        """Lose what is published from now on, as if Redis could not be reached."""
        self._why = why

    def recover(self) -> None:
        """Record again."""
        self._why = None

    def take(self, batch: Sequence[Publication]) -> Outcome:
        """What Redis would answer."""
        if self._why is not None:
            return Outcome((), Breakdown(UNREACHABLE, self._why))
        return Outcome([self._record(publication) for publication in batch])

    def _record(self, publication: Publication) -> int:
        if publication.idempotency_key is not None:
            memory = (publication.channel, publication.idempotency_key)
            if memory in self._remembered:
                return self._remembered[memory]
            self._remembered[memory] = self.receivers
        event = json.loads(publication.payload)
        self._events.append(RecordedEvent(publication.channel, event, publication.payload, publication.user))
        return self.receivers

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[RecordedEvent]:
        return iter(list(self._events))

    @overload
    def __getitem__(self, place: int) -> RecordedEvent: ...
    @overload
    def __getitem__(self, place: slice) -> list[RecordedEvent]: ...

    def __getitem__(self, place: int | slice) -> RecordedEvent | list[RecordedEvent]:
        return self._events[place]

    def __repr__(self) -> str:
        return f"<Recorder: {list(self._events)!r}>"


@define(eq=False, init=False)
class RecordingPublisher(Publisher):
    """A `Publisher` without Redis; `published` has what it was given.

    Args:
        receivers: how many are said to have received each event.
        event_max_bytes: as for `Publisher`.
    """

    published: Recorder = field(init=False)

    def __init__(self, *, receivers: int = 1, event_max_bytes: int = MIB) -> None:
        self.published = Recorder(receivers)
        super().__init__("redis://recording:6379/0", channel_prefix="", event_max_bytes=event_max_bytes)

    def _start(self) -> None:
        # No pause after a failure: `recover` means now.
        self.front = Front(self.destination, Tally(self.destination.shown, Circuit(0.0)))
        self._pool = Pool(self.destination)
        self.timer = Timer()

    def deadline(self) -> float:
        return time.monotonic() + self.destination.timeout_seconds

    def _exchange(self, batch: Sequence[Publication], deadline: float) -> Outcome:
        return self.published.take(batch)

    def _interval(self, per_second: float) -> float:
        return 0.0
