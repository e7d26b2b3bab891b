"""A submission: what a service publishes over HTTP, and whether it may.

    {"channel": "job_progress:42", "event": {...}}        an event for a channel
    {"user": "user_7", "event": {...}}                    an event for every connection of a user
    or a list of these

Laws: a submission is refused whole, before anything of it is published. An event goes to Redis as the
bytes that were sent. Without authentication, who publishes must be on this machine: not behind a proxy
that says so, and not a web page that the browser sent here (whatever it calls its host).

Synchronous; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from attrs import frozen

from broker.auth.rules import USERS_TYPE
from broker.channel import Channel
from broker.config.types import TypeOptions
from broker.errors import ChannelError
from broker.message import REFUSALS, explained, refusal
from broker.origins import LOOPBACK_HOSTS, Origins, is_same_origin
from broker.request import RequestRefused

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# As in tokens: what can be somebody's id can be told, disconnected and revoked.
USER_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,256}")
USERS_CHANNEL = "broker:users"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_EXAMPLE = '{"channel": "job_progress:42", "event": {"type": "job_progress", ...}}'


@frozen
class Item:
    """One event and the name of its channel."""

    channel: str
    payload: bytes


class _Wire(msgspec.Struct):
    event: msgspec.Raw
    channel: object = None
    user: object = None


@frozen
class Origin:
    """Where a request comes from.

    Args:
        peer: the client's address, without a port; None for a unix socket.
        headers: by lower-case name.
    """

    peer: str | None
    headers: Mapping[str, str]

    def check(self, cors_origins: Collection[str]) -> None:
        """Raises RequestRefused where whoever sends it is not known to be on this machine."""
        if not _is_loopback(self.peer):
            raise _forbidden(f"this is for whoever is on the daemon's machine, and comes from {self.peer}")
        for name in _FORWARDED:
            if name in self.headers:
                raise _forbidden(f"this is for whoever is on the daemon's machine, and a proxy forwards it ({name})")
        host = self.headers.get("host", "")
        if self.peer is not None and not _is_loopback_host(host):
            raise _forbidden(f"the Host header {host[:80]!a} does not name this machine")
        origin = self.headers.get("origin")
        if origin is not None and not self._is_page_allowed(origin, host, cors_origins):
            raise _forbidden(f"pages of {origin[:80]!a} may not do this")

    def _is_page_allowed(self, origin: str, host: str, cors_origins: Collection[str]) -> bool:
        # Never `*`: any page on the web could then publish through the browser of whoever opens it.
        return is_same_origin(origin, host, "http") or Origins(tuple(cors_origins)).lists(origin)


def submission_of(
    body: bytes,
    *,
    types: Mapping[str, TypeOptions],
    serves_undeclared: bool,
    events_max: int,
    message_max_bytes: int,
    objection: Callable[[Channel], str | None],
) -> list[Item]:
    """The events of a request's body, at least one.

    Args:
        objection: why the sender may not publish on a channel; None where it may.

    Raises:
        RequestRefused: 400, 403 or 413; the first thing that is wrong, with its path.
    """
    found = _decoded(body)
    if len(found) > events_max:
        raise RequestRefused(413, f"{len(found)} events; at most {events_max}", "Send them in several requests.")
    if not found:
        raise RequestRefused(400, "the list is empty", f"Send {_EXAMPLE}, or a list of these.")
    items = []
    for at, wire in found:
        if (wire.user is None) == (wire.channel is None):
            raise _bad(at, "must name either a channel or a user")
        payload = bytes(wire.event)
        if wire.user is not None:
            user = _checked_user(wire.user, at)
            _check_right(user_channel(user), f"{at}.user", objection)
            item = user_item(user, payload)
            # What stands around it is part of what daemons take from Redis.
            _check_payload(payload, refusal, at, message_max_bytes - (len(item.payload) - len(payload)))
            items.append(item)
            continue
        try:
            channel = Channel.from_wire(wire.channel)
        except ChannelError as bad:
            raise _bad(f"{at}.channel", str(bad)) from None
        _check_right(channel, f"{at}.channel", objection)
        items.append(item_of(channel, payload, types, serves_undeclared, message_max_bytes, at))
    return items


def item_of(
    channel: Channel,
    payload: bytes,
    types: Mapping[str, TypeOptions],
    serves_undeclared: bool,
    message_max_bytes: int,
    at: str = "$",
) -> Item:
    """An event for a channel, checked as the channel's type asks for.

    Raises:
        RequestRefused: 400; what is wrong, with its path.
    """
    options = types.get(channel.type)
    if options is None and not serves_undeclared:
        raise _bad(f"{at}.channel", f"channel type {channel.type} is not served here")
    _check_payload(payload, REFUSALS[options.validate] if options else refusal, at, message_max_bytes)
    return Item(channel.name, payload)


def user_item(user: str, payload: bytes) -> Item:
    """An event for every connection of a user, as the daemons take it from Redis."""
    return Item(USERS_CHANNEL, b'{"user":%b,"event":%b}' % (msgspec.json.encode(user), payload))


def user_channel(user: str) -> Channel:
    """What rules for publishing call a user: `user:<id>` of two parts, whatever letters the id has; the user's own."""
    return Channel(USERS_TYPE, None, user)


def checked_key(text: str | None) -> str | None:
    """The Idempotency-Key of a request, or None for none.

    Raises:
        RequestRefused: it cannot be one.
    """
    if text is not None and not _KEY.fullmatch(text):
        raise RequestRefused(
            400, "Idempotency-Key must be 1 to 255 visible ASCII characters", "Send a random UUID, say."
        )
    return text


def _decoded(body: bytes) -> Sequence[tuple[str, _Wire]]:
    """Each item with its path."""
    try:
        if body.lstrip()[:1] == b"[":
            return [(f"$[{index}]", wire) for index, wire in enumerate(msgspec.json.decode(body, type=list[_Wire]))]
        return [("$", msgspec.json.decode(body, type=_Wire))]
    except msgspec.ValidationError as error:
        raise RequestRefused(400, str(error), f"Send {_EXAMPLE}, or a list of these.") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RequestRefused(400, f"the body is not JSON: {error}", f"Send {_EXAMPLE}, or a list of these.") from None


def _checked_user(value: object, at: str) -> str:
    if not isinstance(value, str) or not USER_ID.fullmatch(value):
        raise _bad(f"{at}.user", "must be a text of 1 to 256 characters without control characters")
    return value


def _check_right(channel: Channel, where: str, objection: Callable[[Channel], str | None]) -> None:
    why = objection(channel)
    if why is not None:
        raise RequestRefused(403, f"{where}: {why}", "Use a token or an API key that may publish there.")


def _check_payload(payload: bytes, check: Callable[[bytes, int], str | None], at: str, message_max_bytes: int) -> None:
    if payload[:1] != b"{":
        raise _bad(f"{at}.event", "not a JSON object")
    reason = check(payload, message_max_bytes)
    if reason is not None:
        raise _bad(f"{at}.event", f"{reason}: {explained(reason, payload) or f'at most {message_max_bytes} bytes'}")


def _bad(where: str, what: str) -> RequestRefused:
    return RequestRefused(400, f"{where}: {what}", "Nothing was published; mend it and send all again.")


def _forbidden(why: str) -> RequestRefused:
    return RequestRefused(
        403, why, "Do it on the daemon's own machine, to 127.0.0.1 or localhost, or turn authentication on ([auth])."
    )


def _is_loopback(address: str | None) -> bool:
    if address is None:
        return True
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def _is_loopback_host(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name in LOOPBACK_HOSTS or name.endswith(".localhost") or _is_loopback(name)
