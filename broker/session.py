"""The WebSocket conversation: what a client may say and what it is answered.

    {"type": "subscribe", "channel": ...}    Subscribe, later Reply(subscribed)
    {"type": "unsubscribe", "channel": ...}  Unsubscribe, Reply(unsubscribed)
    {"type": "authenticate", "token": ...}   Authenticate, later Reply(authenticated)
    {"type": "publish", "channel", "event"}  Publish, later Reply(published)
    {"type": "ping"}                         Reply(pong)
    anything else                            Reply(error) with a stable code; the connection stays

With the subprotocol `broker.v1`, `subscribe` takes `since`, a position, and `subscribed` tells `position`,
behind which everything follows, `recovered`, whether nothing since `since` is missing, and `replay`; an error
about a channel names it.

Laws: what no rule allows is not done; a new token takes away the channels that it does not allow.

Synchronous; no I/O, no clock. Bounds: `subscriptions_max` channels, `PUBLISHES_MAX` events on their way to Redis.
Source: the wire contract, "Base: WebSocket"; `docs/protocol.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import Factory, define, field, frozen

from broker.auth.explanation import about
from broker.auth.identity import ANONYMOUS, NOBODY, OPEN, USER, Identity
from broker.auth.rules import PUBLISH, SUBSCRIBE, Decision, RuleBook
from broker.channel import Channel
from broker.config.access import Rules
from broker.errorcode import (
    BAD_CHANNEL,
    BAD_COMMAND,
    BAD_EVENT,
    BAD_JSON,
    BAD_TOKEN,
    BINARY_FRAME,
    CHANNEL_TYPE_REFUSED,
    FORBIDDEN,
    TOO_MANY_PENDING,
    TOO_MANY_SUBSCRIPTIONS,
    UNAUTHENTICATED,
    UNKNOWN_COMMAND,
    UPSTREAM_REFUSED,
    UPSTREAM_UNAVAILABLE,
)
from broker.errors import ChannelError
from broker.position import Position, Since, Start, start_facts
from broker.timestamp import timestamp

PUBLISHES_MAX = 100
_CHANNEL_SHOWN = 400

_COMMANDS = "use subscribe, unsubscribe, authenticate, publish or ping"
_AUTHENTICATE = 'send {"type":"authenticate","token":"..."}'
_OPEN_RULES = RuleBook(Rules(), {})

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder().decode


@frozen
class Reply:
    """JSON to send, without a frame. `code`: of an error."""

    body: bytes
    code: str = ""


@frozen
class Subscribe:
    """Join a channel that the client is not on; answer when it is live. `since`: where the client was."""

    channel: Channel
    since: Since | None = None


@frozen
class Unsubscribe:
    """Leave these channels; the answer follows as a `Reply`."""

    channels: tuple[Channel, ...]


@frozen
class Authenticate:
    """Look at a token; the answer follows from `authenticated` or `not_authenticated`."""

    token: str = field(repr=False)


@frozen
class Publish:
    """Publish an event, as the bytes that came; the answer follows from `published` or `not_published`."""

    channel: Channel
    payload: bytes


Step = Reply | Subscribe | Unsubscribe | Authenticate | Publish


class _PublishWire(msgspec.Struct):
    event: msgspec.Raw


_decode_publish = msgspec.json.Decoder(_PublishWire).decode


@define(eq=False)
class Session:
    """One client's subscriptions and the rules of its commands.

    Args:
        served: tells whether a channel type is served at all.
        is_v1: the client asked for `broker.v1`.
        identity: who the client is.
        claimed_user: who its query says that it is.
        needs_token: nothing is to be had without a token.
    """

    subscriptions_max: int
    served: frozenset[str] | None
    is_v1: bool = False
    identity: Identity = NOBODY
    rules: RuleBook = _OPEN_RULES
    claimed_user: str | None = None
    needs_token: bool = False
    _publishes: int = 0
    _channels: dict[str, Channel] = Factory(dict)
    _unanswered: dict[str, int] = Factory(dict)  # subscribes that wait for Redis

    def greeting(self, client_id: str, now: float) -> bytes:
        greeting = {"type": "connected", "message": "Connected to real-time service", "clientId": client_id}
        if self.identity.kind == USER:
            greeting |= about(self.identity)
        return _encode({**greeting, "timestamp": timestamp(now)})

    def heartbeat(self, now: float) -> bytes:
        text = timestamp(now)
        return _encode({"type": "heartbeat", "serverTime": text, "timestamp": text})

    def farewell(self, reconnect_milliseconds: int, now: float) -> bytes:
        return _encode(
            {
                "type": "disconnected",
                "message": "Server shutting down",
                "reconnectInMs": reconnect_milliseconds,
                "timestamp": timestamp(now),
            }
        )

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
        if kind == "authenticate":
            return self._authenticate(command, now)
        if self.needs_token and self.identity.kind == ANONYMOUS:
            return [error(UNAUTHENTICATED, f"a token comes first; {_AUTHENTICATE}", now)]
        if kind == "subscribe":
            return self._subscribe(command, now)
        if kind == "unsubscribe":
            return self._unsubscribe(command, now)
        if kind == "publish":
            return self._publish(command, text, now)
        if isinstance(kind, str):
            return [error(UNKNOWN_COMMAND, f"unknown command {kind[:80]!r}; {_COMMANDS}", now)]
        return [error(BAD_COMMAND, f'the message has no "type"; {_COMMANDS}', now)]

    def receive_binary(self, now: float) -> list[Step]:
        return [error(BINARY_FRAME, "binary messages are not understood; send JSON as text", now)]

    def joined(self, name: str, start: Start | None, now: float) -> list[Step]:
        """The channel is live: the answers to every subscribe that waited for it."""
        channel = self._channels[name]
        return [self._subscribed(channel, start, now)] * self._unanswered.pop(name, 1)

    def authenticated(self, identity: Identity, now: float) -> list[Step]:
        """The token is good: the client is who it says, and leaves the channels that it may not have."""
        self.identity = identity
        lost = [
            (channel, decision)
            for channel in self._channels.values()
            if not (decision := self.rules.decide(identity, SUBSCRIBE, channel)).allowed
        ]
        steps: list[Step] = [Reply(_encode({"type": "authenticated", **about(identity), "timestamp": timestamp(now)}))]
        if lost:
            steps.append(Unsubscribe(tuple(channel for channel, _ in lost)))
        for channel, decision in lost:
            del self._channels[channel.name]
            self._unanswered.pop(channel.name, None)
            steps += (self._forbidden(channel, decision, now), _subscription("unsubscribed", channel, True, now))
        return steps

    def objection(self, identity: Identity) -> str | None:
        """Why a token, good by itself, is not this client's; None where it is."""
        theirs = identity.user_id
        if self.claimed_user is not None and theirs is not None and theirs != self.claimed_user:
            return "userId in the query names another user than the token; leave userId out"
        if self.identity.kind == USER and theirs != self.identity.user_id:
            return "the token is of another user; open another connection for that user"
        return None

    def not_authenticated(self, why: str, now: float) -> list[Step]:
        """The token does not count; what the client was it is."""
        return [error(BAD_TOKEN, why, now)]

    def published(self, channel: Channel, now: float) -> list[Step]:
        """Redis took the event."""
        self._publishes -= 1
        return [_subscription("published", channel, True, now)]

    def not_published(self, code: str, why: str, now: float) -> list[Step]:
        self._publishes -= 1
        return [error(code, why, now)]

    def refused(self, name: str, why: str, now: float) -> list[Step]:
        """Redis refused the channel: it is forgotten, and the client told."""
        self._channels.pop(name, None)
        self._unanswered.pop(name, None)
        return [self._error(UPSTREAM_REFUSED, f"Redis refused channel {name}: {why}", now, name)]

    def waiting(self, name: str, now: float) -> list[Step]:
        """Redis is away: the client is told why `subscribed` has to wait."""
        detail = f"Redis is not reachable; {name} is remembered, and `subscribed` follows when it is back"
        return [self._error(UPSTREAM_UNAVAILABLE, detail, now, name)]

    def every_channel(self) -> list[Channel]:
        """The channels that were answered `subscribed`, and those that wait for it."""
        return list(self._channels.values())

    @property
    def channel_names(self) -> list[str]:
        """The channels that were answered `subscribed`."""
        return [name for name in self._channels if name not in self._unanswered]

    def _authenticate(self, command: Mapping[str, Any], now: float) -> list[Step]:
        token = command.get("token")
        if not isinstance(token, str) or not token:
            return [error(BAD_TOKEN, f"there is no token in it; {_AUTHENTICATE}", now)]
        if self.identity.kind == OPEN:
            return [error(BAD_COMMAND, "authentication is off here; no token is looked at", now)]
        return [Authenticate(token)]

    def _publish(self, command: Mapping[str, Any], text: str, now: float) -> list[Step]:
        try:
            channel = Channel.from_wire(command.get("channel"))
        except ChannelError as bad:
            return [error(BAD_CHANNEL, str(bad), now)]
        decision = self.rules.decide(self.identity, PUBLISH, channel)
        if not decision.allowed:
            return [self._forbidden(channel, decision, now)]
        if not isinstance(command.get("event"), dict):
            return [error(BAD_EVENT, "event is not a JSON object; nothing was published", now)]
        if self._publishes >= PUBLISHES_MAX:
            detail = f"{PUBLISHES_MAX} events are on their way already; wait for `published` before more"
            return [error(TOO_MANY_PENDING, detail, now)]
        self._publishes += 1
        return [Publish(channel, bytes(_decode_publish(text).event))]

    def _subscribe(self, command: Mapping[str, Any], now: float) -> list[Step]:
        wanted = command.get("channel")
        try:
            channel = Channel.from_wire(wanted)
        except ChannelError as bad:
            return [self._error(BAD_CHANNEL, str(bad), now, wanted[:_CHANNEL_SHOWN] if isinstance(wanted, str) else "")]
        name = channel.name
        if self.served is not None and channel.type not in self.served:
            return [self._error(CHANNEL_TYPE_REFUSED, f"channel type {channel.type} is not served here", now, name)]
        decision = self.rules.decide(self.identity, SUBSCRIBE, channel)
        if not decision.allowed:
            return [self._forbidden(channel, decision, now)]
        since = None
        if self.is_v1 and command.get("since") is not None:
            text = command["since"]
            if not isinstance(text, str):
                return [error(BAD_COMMAND, "since is not a text; send the position of the last event you had", now)]
            since = Since(Position.from_text(text))
        if name in self._unanswered:
            self._unanswered[name] += 1
            return []
        if name in self._channels:
            return [_subscription("subscribed", channel, True, now)]  # it knows where it is
        if len(self._channels) >= self.subscriptions_max:
            detail = f"at most {self.subscriptions_max} subscriptions for each client; unsubscribe from some first"
            return [self._error(TOO_MANY_SUBSCRIPTIONS, detail, now, name)]
        self._channels[name] = channel
        self._unanswered[name] = 1
        return [Subscribe(channel, since)]

    def _subscribed(self, channel: Channel, start: Start | None, now: float) -> Reply:
        if not self.is_v1:
            return _subscription("subscribed", channel, True, now)
        return _subscription("subscribed", channel, True, now, **start_facts(start))

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

    def _forbidden(self, channel: Channel, decision: Decision, now: float) -> Reply:
        return self._error(FORBIDDEN, f"{channel.name} is not for you: {decision.why}", now, channel.name)

    def _error(self, code: str, message: str, now: float, channel: str) -> Reply:
        """An error about a channel, which `broker.v1` names."""
        return error(code, message, now, channel=channel) if self.is_v1 and channel else error(code, message, now)


def error(code: str, message: str, now: float, **facts: str) -> Reply:
    """An `error` event with a stable code and what to do."""
    body = {"type": "error", "code": code, "message": message, **facts, "timestamp": timestamp(now)}
    return Reply(_encode(body), code)


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
