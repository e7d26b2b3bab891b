"""A publication: a channel and the bytes for it, checked before anything is sent.

Laws: what is refused here would be refused or dropped by the daemon. An event that is already JSON is
sent as it is; a mapping is encoded, and gets a `timestamp` if it has none; nothing else is added. What is for a
user, and not for a channel, goes to the daemons on a channel of their own, on which nobody else publishes.
Bounds: an event has at most `event_max_bytes`, a batch `_BATCH_MAX` events and `_BATCH_MAX_BYTES`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from attrs import frozen

from broker.channel import Channel
from broker.errors import ChannelError, EventError
from broker.timestamp import timestamp

# Events, and the rules of messages, take a while to load: not before one is published.
if TYPE_CHECKING:
    from broker.events import Event

Payload: TypeAlias = "Event | Mapping[str, Any] | str | bytes"
"""An event: typed, a mapping with at least a `type`, or JSON that is ready."""

Item: TypeAlias = "Event | tuple[str, Payload]"
"""One of a batch: an event that knows its channel, or a channel and an event."""

RESERVED_TYPE = "broker"  # as broker.auth.rules has it, which takes 20 ms to load
USERS_CHANNEL = f"{RESERVED_TYPE}:users"
"""Where the daemons hear what is for a user."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# Not: the C0 and C1 control characters, DEL, what ends a line, and halves of surrogate pairs.
_USER = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,256}")
_BATCH_MAX = 10_000
_BATCH_MAX_BYTES = 16 * 1024 * 1024


@frozen
class Publication:
    """One event on its way: the channel's name without the prefix, and the bytes that subscribers get.

    Args:
        user: whom it is for, where it is for a user: then it is alone in its batch, and goes by plain PUBLISH, as
            what is for whoever is connected now has no history.
    """

    channel: str
    payload: bytes
    idempotency_key: str | None = None
    user: str | None = None

    @property
    def message(self) -> bytes:
        """What a plain PUBLISH carries."""
        if self.user is None:
            return self.payload
        return b'{"user":%b,"event":%b}' % (msgspec.json.encode(self.user), self.payload)


def publication(
    target: Event | str, event: Payload | None, event_max_bytes: int, idempotency_key: str | None = None
) -> Publication:
    """Check one event and encode it.

    Raises:
        ChannelError: the grammar refuses the channel.
        EventError: there is no event, it cannot be encoded, or it is too large; or the key cannot be one.
    """
    from broker.events import Event

    if isinstance(target, Event):
        if event is not None:
            raise EventError("two events were given; publish(event) or publish(channel, event)")
        channel, event = target.channel, target
    elif isinstance(target, str):
        named = Channel.from_name(target)
        if named.type == RESERVED_TYPE:
            raise ChannelError(f"channels of type {RESERVED_TYPE} are the daemons' own; publish to another")
        channel = named.name
    else:
        raise ChannelError(f"a channel is a text, such as job_progress:42, not {type(target).__name__}")
    if event is None:
        raise EventError(f"there is no event for channel {channel}; write publish(channel, event)")
    if idempotency_key is not None and not (isinstance(idempotency_key, str) and _KEY.fullmatch(idempotency_key)):
        raise EventError("idempotency_key: 1 to 255 visible ASCII characters, such as a random UUID")
    return Publication(channel, _encoded(event, event_max_bytes), idempotency_key)


def user_publication(user: str, event: Payload, event_max_bytes: int) -> Publication:
    """Check one event for a user, and encode it.

    Raises:
        EventError: that can be no user, or the event is no JSON object, cannot be encoded, or is too large.
    """
    if not (isinstance(user, str) and _USER.fullmatch(user)):
        raise EventError("user: 1 to 256 characters, none of them a control character")
    payload = _encoded(event, event_max_bytes)
    if not payload.lstrip(b" \t\r\n").startswith(b"{"):
        raise EventError("the event is not a JSON object, which is all that a user can be sent")
    return Publication(USERS_CHANNEL, payload, user=user)


def publications(items: Iterable[Item], event_max_bytes: int) -> list[Publication]:
    """Check and encode a batch; one that is wrong refuses all.

    Raises:
        ChannelError, EventError: as for one; the place in the batch, counted from 0, is named.
    """
    from broker.events import Event

    batch: list[Publication] = []
    size = 0
    for place, item in enumerate(items):
        try:
            if isinstance(item, Event):
                batch.append(publication(item, None, event_max_bytes))
            elif isinstance(item, tuple) and len(item) == 2:
                batch.append(publication(item[0], item[1], event_max_bytes))
            else:
                raise EventError(f"expected an event or (channel, event), not {type(item).__name__}")
        except (ChannelError, EventError) as error:
            raise type(error)(f"item {place}: {error}") from error
        size += len(batch[-1].payload)
        if len(batch) > _BATCH_MAX or size > _BATCH_MAX_BYTES:
            raise EventError(
                f"a batch has at most {_BATCH_MAX} events and {_BATCH_MAX_BYTES} bytes; publish it in parts"
            )
    return batch


def listed(items: Any) -> tuple[Any, int]:
    """The items as a list, and how many. What cannot be listed stays as it is, to be refused when it is checked."""
    try:
        found = list(items)
    except Exception:
        return items, 1
    return found, len(found)


def made(step: Callable[[float], Sequence[Event]], event_max_bytes: int) -> list[Publication]:
    """What a step of a job makes now, encoded.

    Raises:
        ChannelError, EventError: the step refuses, or its event cannot be published.
    """
    return [publication(event, None, event_max_bytes) for event in step(time.monotonic())]


def _encoded(event: object, event_max_bytes: int) -> bytes:
    from broker import message
    from broker.events import Event

    if isinstance(event, Event):
        payload = event.encode()
    elif isinstance(event, Mapping):
        payload = _encoded_mapping(event)
    elif isinstance(event, str | bytes | bytearray):
        payload = _utf8(event) if isinstance(event, str) else bytes(event)
        reason = message.refusal(payload, event_max_bytes)
        if reason == message.NOT_UTF8:
            raise EventError("the event is not UTF-8")
        if reason == message.NOT_JSON:
            raise EventError("the event is not JSON; publish an event, a mapping, or one JSON value as text or bytes")
    else:
        raise EventError(f"{type(event).__name__} is no event; publish an event, a mapping, or JSON as text or bytes")
    if len(payload) > event_max_bytes:
        raise EventError(f"the event has {len(payload)} bytes; at most {event_max_bytes}, or the daemon drops it")
    return payload


def _encoded_mapping(event: Mapping[Any, Any]) -> bytes:
    kind = event.get("type")
    if not isinstance(kind, str) or not kind:
        raise EventError("type: an event needs a type, a text such as job_progress")
    whole = dict(event) if "timestamp" in event else {**event, "timestamp": _now()}
    try:
        return msgspec.json.encode(whole)
    except Exception as error:  # whatever a value of the caller's raises while it is looked at
        raise EventError(f"the event cannot be written as JSON: {type(error).__name__}: {error}") from error


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise EventError("the event has half of a surrogate pair, which UTF-8 cannot write") from None


def _now() -> str:
    return timestamp(time.time())
