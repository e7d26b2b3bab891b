"""A submission: what a service publishes over HTTP, and whether it may.

    {"channel": "job_progress:42", "event": {...}}        or a list of these

Laws: a submission is refused whole, before anything of it is published. An event goes to Redis as the
bytes that were sent. Until there are tokens, who publishes must be on this machine: not behind a proxy
that says so, and not a web page that the browser sent here (whatever it calls its host).

Synchronous; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from attrs import frozen

from broker.channel import Channel
from broker.config.types import TypeOptions
from broker.cors import LOOPBACK_HOSTS, cors_headers
from broker.errors import ChannelError
from broker.message import REFUSALS, explained, refusal
from broker.request import RequestRefused

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_EXAMPLE = '{"channel": "job_progress:42", "event": {"type": "job_progress", ...}}'


@frozen
class Item:
    """One event and the name of its channel."""

    channel: str
    payload: bytes


class _Wire(msgspec.Struct):
    channel: object
    event: msgspec.Raw


@frozen
class Origin:
    """Where a request comes from.

    Args:
        peer, local: the two addresses of its connection, without ports; None for a unix socket.
        headers: by lower-case name.
    """

    peer: str | None
    local: str | None
    headers: Mapping[str, str]

    def check(self, cors_origins: Collection[str]) -> None:
        """Raises RequestRefused where whoever sends it is not known to be on this machine."""
        if not (_is_loopback(self.peer) and _is_loopback(self.local)):
            raise _forbidden(
                f"publishing over HTTP is for loopback only, and this comes from {self.peer} to {self.local}"
            )
        for name in _FORWARDED:
            if name in self.headers:
                raise _forbidden(f"publishing over HTTP is for this machine only, and a proxy forwards this ({name})")
        host = self.headers.get("host", "")
        if self.local is not None and not _is_loopback_host(host):
            raise _forbidden(f"the Host header {host[:80]!a} does not name this machine")
        origin = self.headers.get("origin")
        if origin is not None and not self._is_page_allowed(origin, host, cors_origins):
            raise _forbidden(f"pages of {origin[:80]!a} may not publish")

    def _is_page_allowed(self, origin: str, host: str, cors_origins: Collection[str]) -> bool:
        # Never `*`: any page on the web could then publish through the browser of whoever opens it.
        exact = [allowed for allowed in cors_origins if allowed != "*"]
        return origin == f"http://{host}" or "Access-Control-Allow-Origin" in cors_headers(origin, exact)


def submission_of(
    body: bytes,
    *,
    types: Mapping[str, TypeOptions],
    serves_undeclared: bool,
    events_max: int,
    message_max_bytes: int,
) -> list[Item]:
    """The events of a request's body, at least one.

    Raises:
        RequestRefused: 400 or 413; the first thing that is wrong, with its path.
    """
    found = _decoded(body)
    if len(found) > events_max:
        raise RequestRefused(413, f"{len(found)} events; at most {events_max}", "Send them in several requests.")
    if not found:
        raise RequestRefused(400, "the list is empty", f"Send {_EXAMPLE}, or a list of these.")
    items = []
    for at, wire in found:
        try:
            channel = Channel.from_wire(wire.channel)
        except ChannelError as bad:
            raise _bad(f"{at}.channel", str(bad)) from None
        options = types.get(channel.type)
        if options is None and not serves_undeclared:
            raise _bad(f"{at}.channel", f"channel type {channel.type} is not served here")
        payload = bytes(wire.event)
        if payload[:1] != b"{":
            raise _bad(f"{at}.event", "not a JSON object")
        check = REFUSALS[options.validate] if options else refusal
        reason = check(payload, message_max_bytes)
        if reason is not None:
            raise _bad(f"{at}.event", f"{reason}: {explained(reason, payload) or f'at most {message_max_bytes} bytes'}")
        items.append(Item(channel.name, payload))
    return items


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


def _bad(where: str, what: str) -> RequestRefused:
    return RequestRefused(400, f"{where}: {what}", "Nothing was published; mend it and send all again.")


def _forbidden(why: str) -> RequestRefused:
    return RequestRefused(403, why, "Publish on the daemon's own machine, to 127.0.0.1 or localhost, or through Redis.")


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
