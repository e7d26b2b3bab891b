"""The WebSocket conversation: what a client may say and what it is answered.

    {"type": "subscribe", "channel": ...}    Subscribe, later Reply(subscribed)
    {"type": "unsubscribe", "channel": ...}  Unsubscribe, Reply(unsubscribed)
    {"type": "ping"}                         Reply(pong)
    anything else                            Reply(error) with a stable code; the connection stays

With the subprotocol `broker.v1`, `subscribe` takes `since`, a position, and `subscribed` tells `position`,
behind which everything follows, and `recovered`, whether nothing since `since` is missing.

Synchronous; no I/O, no clock. Bounds: `subscriptions_max` channels. Source: the wire contract,
"Base: WebSocket"; `docs/protocol.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import Factory, define, frozen

from broker.channel import Channel
from broker.errors import ChannelError
from broker.position import Position, Since, Start
from broker.timestamp import timestamp

BAD_JSON = "bad_json"
BAD_COMMAND = "bad_command"
UNKNOWN_COMMAND = "unknown_command"
BAD_CHANNEL = "bad_channel"
CHANNEL_TYPE_REFUSED = "channel_type_refused"
TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
BINARY_FRAME = "binary_frame"
UPSTREAM_REFUSED = "upstream_refused"
UPSTREAM_UNAVAILABLE = "upstream_unavailable"

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder().decode


@frozen
class Reply:
    """JSON to send, without a frame."""

    body: bytes


@frozen
class Subscribe:
    """Join a channel that the client is not on; answer when it is live. `since`: where the client was."""

    channel: Channel
    since: Since | None = None


@frozen
class Unsubscribe:
    """Leave these channels; the answer follows as a `Reply`."""

    channels: tuple[Channel, ...]


Step = Reply | Subscribe | Unsubscribe


@define(eq=False)
class Session:
    """One client's subscriptions and the rules of its commands.

    Args:
        served: tells whether a channel type is served at all.
        is_v1: the client asked for `broker.v1`.
    """

    subscriptions_max: int
    served: frozenset[str] | None
    is_v1: bool = False
    _channels: dict[str, Channel] = Factory(dict)
    _unanswered: dict[str, int] = Factory(dict)  # subscribes that wait for Redis

    def greeting(self, client_id: str, now: float) -> bytes:
        return _encode(
            {
                "type": "connected",
                "message": "Connected to real-time service",
                "clientId": client_id,
                "timestamp": timestamp(now),
            }
        )

    def heartbeat(self, now: float) -> bytes:
        text = timestamp(now)
        return _encode({"type": "heartbeat", "serverTime": text, "timestamp": text})

    def farewell(self, now: float) -> bytes:
        return _encode({"type": "disconnected", "message": "Server shutting down", "timestamp": timestamp(now)})

    def receive_text(self, text: str, now: float) -> list[Step]:
        """What to do about one text message, in order. Raises nothing."""
        try:
            command = _decode(text)
        except (msgspec.DecodeError, RecursionError):
            return [error(BAD_JSON, "the message is not JSON; send one JSON object for each message", now)]
        if not isinstance(command, dict):
            return [error(BAD_COMMAND, 'the message is not an object; send {"type": ...}', now)]
        kind = command.get("type")
        if kind == "ping":
            return [Reply(_encode({"type": "pong", "timestamp": timestamp(now)}))]
        if kind == "subscribe":
            return self._subscribe(command, now)
        if kind == "unsubscribe":
            return self._unsubscribe(command, now)
        if isinstance(kind, str):
            known = "use subscribe, unsubscribe or ping"
            return [error(UNKNOWN_COMMAND, f"unknown command {kind[:80]!r}; {known}", now)]
        return [error(BAD_COMMAND, 'the message has no "type"; use subscribe, unsubscribe or ping', now)]

    def receive_binary(self, now: float) -> list[Step]:
        return [error(BINARY_FRAME, "binary messages are not understood; send JSON as text", now)]

    def joined(self, name: str, start: Start | None, now: float) -> list[Step]:
        """The channel is live: the answers to every subscribe that waited for it."""
        channel = self._channels[name]
        return [self._subscribed(channel, start, now)] * self._unanswered.pop(name, 1)

    def refused(self, name: str, why: str, now: float) -> list[Step]:
        """Redis refused the channel: it is forgotten, and the client told."""
        self._channels.pop(name, None)
        self._unanswered.pop(name, None)
        return [error(UPSTREAM_REFUSED, f"Redis refused channel {name}: {why}", now)]

    def waiting(self, name: str, now: float) -> list[Step]:
        """Redis is away: the client is told why `subscribed` has to wait."""
        detail = f"Redis is not reachable; {name} is remembered, and `subscribed` follows when it is back"
        return [error(UPSTREAM_UNAVAILABLE, detail, now)]

    def every_channel(self) -> list[Channel]:
        """The channels that were answered `subscribed`, and those that wait for it."""
        return list(self._channels.values())

    @property
    def channel_names(self) -> list[str]:
        """The channels that were answered `subscribed`."""
        return [name for name in self._channels if name not in self._unanswered]

    def _subscribe(self, command: Mapping[str, Any], now: float) -> list[Step]:
        try:
            channel = Channel.from_wire(command.get("channel"))
        except ChannelError as bad:
            return [error(BAD_CHANNEL, str(bad), now)]
        if self.served is not None and channel.type not in self.served:
            return [error(CHANNEL_TYPE_REFUSED, f"channel type {channel.type} is not served here", now)]
        since = None
        if self.is_v1 and command.get("since") is not None:
            text = command["since"]
            if not isinstance(text, str):
                return [error(BAD_COMMAND, "since is not a text; send the position of the last event you had", now)]
            since = Since(Position.from_text(text))
        name = channel.name
        if name in self._unanswered:
            self._unanswered[name] += 1
            return []
        if name in self._channels:
            return [_subscription("subscribed", channel, True, now)]  # it knows where it is
        if len(self._channels) >= self.subscriptions_max:
            detail = f"at most {self.subscriptions_max} subscriptions for each client; unsubscribe from some first"
            return [error(TOO_MANY_SUBSCRIPTIONS, detail, now)]
        self._channels[name] = channel
        self._unanswered[name] = 1
        return [Subscribe(channel, since)]

    def _subscribed(self, channel: Channel, start: Start | None, now: float) -> Reply:
        if not self.is_v1:
            return _subscription("subscribed", channel, True, now)
        where = None if start is None or start.position is None else start.position.decode()
        recovered = start is not None and start.recovered
        return _subscription("subscribed", channel, True, now, position=where, recovered=recovered)

    def _unsubscribe(self, command: Mapping[str, Any], now: float) -> list[Step]:
        try:
            channel = Channel.from_wire(command.get("channel"))
        except ChannelError as bad:
            return [error(BAD_CHANNEL, str(bad), now)]
        if channel.id is None and channel.user_id is None:
            ended = tuple(other for other in self._channels.values() if other.type == channel.type)
        else:
            ended = tuple(other for other in (self._channels.get(channel.name),) if other is not None)
        for other in ended:
            del self._channels[other.name]
            self._unanswered.pop(other.name, None)
        answer = _subscription("unsubscribed", channel, bool(ended), now)
        return [Unsubscribe(ended), answer] if ended else [answer]


def error(code: str, message: str, now: float) -> Reply:
    """An `error` event with a stable code and what to do."""
    return Reply(_encode({"type": "error", "code": code, "message": message, "timestamp": timestamp(now)}))


def _subscription(kind: str, channel: Channel, success: bool, now: float, **more: object) -> Reply:
    return Reply(
        _encode(
            {
                "type": kind,
                "channel": channel.type,
                "id": channel.id,
                "userId": channel.user_id,
                "name": channel.name,
                "success": success,
                **more,
                "timestamp": timestamp(now),
            }
        )
    )
