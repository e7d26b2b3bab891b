"""An event as a service published it."""

from __future__ import annotations

import json
from typing import Any

from attrs import field, frozen


@frozen
class Event:
    """One event.

    Args:
        raw: as it was published. Text that is no JSON, which a channel type may allow, is a JSON string here,
            where the broker gives positions.
        data: the same decoded; empty if it is no JSON object.
        channel: its name; None where it was published to the user, or where a broker that does not say was asked
            for several.
        position: where it is in its channel; None where the channel has no history.
        is_to_user: it was published to the user of this connection, not to a channel. Such an event has no history:
            what came while the connection was lost is missed, and no gap tells of it.
    """

    raw: str
    data: dict[str, Any] = field(eq=False, repr=False)
    channel: str | None = None
    position: str | None = None
    is_to_user: bool = False

    @property
    def type(self) -> str:
        kind = self.data.get("type")
        return kind if isinstance(kind, str) else ""

    @classmethod
    def from_raw(
        cls, message: str | bytes, channel: str | None = None, position: str | None = None, *, is_to_user: bool = False
    ) -> Event:
        raw = message if isinstance(message, str) else message.decode(errors="replace")
        try:
            data = json.loads(raw)  # msgspec would refuse a lone \ud800, which JSON and the broker allow
        except (ValueError, RecursionError):
            data = None
        return cls(raw, data if isinstance(data, dict) else {}, channel, position, is_to_user)
