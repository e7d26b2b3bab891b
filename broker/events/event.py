"""An event: one JSON object with a `type` and a `timestamp`, which services publish and clients receive.

Laws: an event knows its type, its channel and its bytes. `timestamp` is filled when it is not given;
`id` too, where the type has a form for it.

Source: the wire contract, "Events"; `docs/events.md`.
"""

from __future__ import annotations

import time
from typing import ClassVar

from attrs import field

from broker.channel import Channel
from broker.errors import EventError
from broker.events.ids import unique_id
from broker.events.rules import Timestamp
from broker.events.value import Value, value_class
from broker.timestamp import timestamp


def _now() -> str:
    return timestamp(time.time())


@value_class
class Event(Value):
    """The base of all events.

    Args:
        timestamp: RFC 3339 with an offset or `Z`; now, if not given.
        id: the producer's own name of this event.
    """

    type: ClassVar[str]
    # The channel's type, and the attribute that is its id (None: the type is the whole name).
    # A channel type of None: not published, only said by the daemon.
    channel_type: ClassVar[str | None] = None
    channel_id: ClassVar[str | None] = None
    # What an id is made of: `job_{job_id}` gives `job_42_<milliseconds>`. None: only given ones.
    id_stem: ClassVar[str | None] = None

    timestamp: Timestamp = field(factory=_now)
    id: str | None = None

    @property
    def channel(self) -> str:
        """The name of the channel that this event belongs to.

        Raises:
            ChannelError: the id in it has what a channel's name cannot have.
            EventError: an event that only the daemon says; it has no channel.
        """
        if self.channel_type is None:
            raise EventError(f"{self.type}: has no channel of its own; name one to publish it to")
        if self.channel_id is None:
            return self.channel_type
        return Channel.from_wire({"type": self.channel_type, "id": getattr(self, self.channel_id)}).name

    def encode(self) -> bytes:
        """The JSON to publish: camelCase, what is None left out.

        Raises:
            EventError: an open object in it was changed into what JSON cannot say.
        """
        return self._payload()

    def _wire(self) -> dict[str, object]:
        return {"type": self.type, **super()._wire()}

    def _fill(self) -> None:
        if self.id is None and self.id_stem is not None:
            object.__setattr__(self, "id", unique_id(self.id_stem.format(self)))
