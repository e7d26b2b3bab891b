"""A conversation: what is said on one connection, and what of it is an event.

With the subprotocol `broker.v1` an event comes in an envelope, `{"channel":...,"position":...,"event":...}`, to
the letter, so that `event` can be cut out as it was published; what was published to the user has null for channel
and position. All else is the broker's own, and what is unknown of that is passed over.

Without it, as older brokers speak, events have no envelope, and the broker's own messages are told apart by
place and shape:

    connected     the first message of a connection, before anything is subscribed
    subscribed    `success` true, and the `name` of one of our channels
    error         a `code` of the session's while an answer is awaited; `upstream_refused` at any time
    heartbeat     `serverTime` equal to `timestamp`
    disconnected  the farewell to the letter: only `message` "Server shutting down", `timestamp` and, of newer
                  brokers, `reconnectInMs`

All else is an event then: `pong` and `unsubscribed` too, as what they answer is never sent.

Synchronous; no I/O, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import define, field, frozen

from broker.errors import SubscriberError
from broker.subscriber.event import Event
from broker.subscriber.gap import Gap

SUBPROTOCOL = "broker.v1"
UPSTREAM_UNAVAILABLE, UPSTREAM_REFUSED = "upstream_unavailable", "upstream_refused"
UNAUTHENTICATED, FORBIDDEN = "unauthenticated", "forbidden"
# The session's that answer a `subscribe`; a client does not import them, and a test holds the two together.
ERROR_CODES = ["bad_json", "bad_command", "unknown_command", "bad_channel", "channel_type_refused", "binary_frame"]
ERROR_CODES += ["too_many_subscriptions", UPSTREAM_REFUSED, UPSTREAM_UNAVAILABLE, UNAUTHENTICATED, FORBIDDEN]

# What is longer waits no longer (`loss.RETRY_MAX_SECONDS`), and a number of hundreds of digits is no float.
_WAIT_MAX_MILLISECONDS = 1_000_000
# A channel and a position have no character that JSON would escape.
_ENVELOPE = re.compile(r'\{"channel":(?:null|"([^"\\]+)"),"position":(?:null|"([^"\\]+)"),"event":')


@frozen
class Subscribed:
    """The channel is live. `recovered`: nothing is missing since where we said we were."""

    channel: str
    position: str | None
    recovered: bool


@frozen
class Waiting:
    """The broker waits for its Redis."""

    text: str


@frozen
class Authenticated:
    """Our token counts, for so many seconds more; None: for ever, or the broker does not say."""

    seconds: float | None


@frozen
class Farewell:
    """The broker stops or restarts, and wants nobody back before so many seconds."""

    wait_seconds: float


Said = Event | Subscribed | Waiting | Authenticated | Farewell | Gap | None
"""What one message means; None: nothing to us."""


class _NotOurs:
    """No message of the broker's own."""


_NOT_OURS = _NotOurs()


@define(eq=False)
class Conversation:
    """One connection's.

    Args:
        shown: the broker, as messages name it.
        since: where we are in channels that we come back to; asked for only where `is_v1`.
    """

    shown: str
    channels: tuple[str, ...]
    since: Mapping[str, str]
    is_v1: bool
    awaited: set[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.awaited = set(self.channels)

    def greet(self, message: str | bytes) -> Authenticated:
        """The first message.

        Raises:
            SubscriberError: no broker's.
        """
        first = Event.from_raw(message)
        if first.type != "connected" or not str(first.data.get("clientId")).startswith("ws_"):
            raise SubscriberError(f"{self.shown} is no broker: it greets with {first.raw[:80]!a}")
        return Authenticated(_seconds_left(first.data))

    def requests(self) -> list[str]:
        """What to send to subscribe."""
        found = []
        for name in self.channels:
            since = {"since": self.since[name]} if self.is_v1 and name in self.since else {}
            found.append(json.dumps({"type": "subscribe", "channel": name, **since}))
        return found

    def receive(self, message: str | bytes) -> Said:
        """Any later message.

        Raises:
            SubscriberError: the broker refuses us, or says what is not `broker.v1`.
        """
        if not self.is_v1:
            # Who asked for one channel knows where an event is from.
            event = Event.from_raw(message, self.channels[0] if len(self.channels) == 1 else None)
            own = self._own(event.data)
            return event if isinstance(own, _NotOurs) else own
        text = message if isinstance(message, str) else message.decode(errors="replace")
        head = _ENVELOPE.match(text)
        if head is not None and text.endswith("}"):
            return Event.from_raw(text[head.end() : -1], head[1], head[2], is_to_user=head[1] is None)
        data = Event.from_raw(text).data
        if not data or "event" in data:
            raise SubscriberError(f"{self.shown} does not speak {SUBPROTOCOL}: it says {text[:80]!a}")
        if data.get("type") == "gap":
            return Gap.from_message(data)
        own = self._own(data)
        return None if isinstance(own, _NotOurs) else own

    def _own(self, data: Mapping[str, Any]) -> Said | _NotOurs:
        """What the broker's own message means."""
        kind = data.get("type")
        if kind == "subscribed" and data.get("success") is True and data.get("name") in self.channels:
            position = data.get("position") if self.is_v1 else None
            self.awaited.discard(data["name"])
            is_position = isinstance(position, str)
            return Subscribed(data["name"], position if is_position else None, data.get("recovered") is True)
        if kind == "authenticated" and self.is_v1:
            return Authenticated(_seconds_left(data))
        # What a new token does not allow is taken away from who was subscribed.
        at_any_time = (UPSTREAM_REFUSED, FORBIDDEN) if self.is_v1 else (UPSTREAM_REFUSED,)
        if kind == "error" and data.get("code") in (ERROR_CODES if self.awaited else at_any_time):
            if data["code"] != UPSTREAM_UNAVAILABLE:
                raise SubscriberError(f"{self.shown} refused: {data['code']}: {data.get('message')}")
            return Waiting(str(data.get("message")))
        if kind == "heartbeat" and isinstance(data.get("serverTime"), str):
            return None if data["serverTime"] == data.get("timestamp") else _NOT_OURS
        if kind == "disconnected" and data.get("message") == "Server shutting down":
            milliseconds = data.get("reconnectInMs", 0)
            if len(data) == 3 + ("reconnectInMs" in data) and isinstance(milliseconds, int) and milliseconds >= 0:
                return Farewell(min(milliseconds, _WAIT_MAX_MILLISECONDS) / 1000)
        return _NOT_OURS


def _seconds_left(data: Mapping[str, Any]) -> float | None:
    """Until the token is over, by the broker's own clock."""
    try:
        begin, end = (datetime.fromisoformat(data[key]) for key in ("timestamp", "expiresAt"))
        return (end - begin).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
