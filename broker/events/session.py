"""What the daemon says to one client about its connection. These events have no channel.

Source: the wire contract, "Base: WebSocket" and "Base: SSE".
"""

from __future__ import annotations

from typing import ClassVar

from attrs import field

from broker.events.event import Event
from broker.events.rules import Name, Timestamp
from broker.events.value import value_class


@value_class
class Connected(Event):
    """The first event of every connection.

    Args:
        user_id: the user, where a token says who.
        expires_at: when that token is over.
    """

    type: ClassVar[str] = "connected"

    message: str
    client_id: str | None = None
    user_id: str | None = None
    expires_at: Timestamp | None = None


@value_class
class Authenticated(Event):
    """The answer to `authenticate`: from now on the connection is that user's.

    Args:
        user_id: None where the token names no user.
        expires_at: when the token is over; None for never.
    """

    type: ClassVar[str] = "authenticated"

    user_id: str | None = None
    expires_at: Timestamp | None = None


@value_class
class TokenExpired(Event):
    """The last event of a stream whose token is over."""

    type: ClassVar[str] = "token_expired"

    message: str


@value_class
class Disconnected(Event):
    """The last event of a WebSocket connection that the daemon ends.

    Args:
        reconnect_in_ms: how long to wait before coming back, in milliseconds; each client's own.
    """

    type: ClassVar[str] = "disconnected"

    message: str
    client_id: str | None = None
    reconnect_in_ms: int | None = None


@value_class
class Error(Event):
    """What went wrong, and what to do.

    Args:
        message: on a stream of Server-Sent Events `error` has the text, and `message` is read from it.
        code: stable; WebSocket only. `docs/endings.md` has all of them.
    """

    type: ClassVar[str] = "error"

    message: str = field(metadata={"instead": "error"})
    error: str | None = None
    code: str | None = None
    client_id: str | None = None


@value_class
class Heartbeat(Event):
    """Said at an interval, so that a client can tell a quiet connection from a dead one."""

    type: ClassVar[str] = "heartbeat"

    server_time: Timestamp


@value_class
class Subscribed(Event):
    """The answer to `subscribe`. `id` and `user_id` are the channel's.

    Args:
        channel: the channel's type. The attribute is `subscribed_type`, as `channel` is where an event is published.
        name: the channel's whole name.
    """

    type: ClassVar[str] = "subscribed"

    subscribed_type: Name = field(alias="channel")
    user_id: str | None = None
    name: str | None = None
    success: bool


@value_class
class Unsubscribed(Event):
    """The answer to `unsubscribe`. `id` and `user_id` are the channel's.

    Args:
        channel: the channel's type. The attribute is `unsubscribed_type`.
        success: false where there was no such subscription.
    """

    type: ClassVar[str] = "unsubscribed"

    unsubscribed_type: Name = field(alias="channel")
    user_id: str | None = None
    name: str | None = None
    success: bool


@value_class
class Published(Event):
    """The answer to `publish`. `id` and `user_id` are the channel's.

    Args:
        channel: the channel's type. The attribute is `published_type`.
        name: the channel's whole name.
    """

    type: ClassVar[str] = "published"

    published_type: Name = field(alias="channel")
    user_id: str | None = None
    name: str | None = None
    success: bool
