"""Which web pages may connect, read answers, and have their cookies count. Source: WHATWG Fetch, 3.2; RFC 6454.

A browser says in `Origin` which page a request comes from; nobody else has to. So an origin that is not allowed is
refused, and none at all is no page of a foreign site that could read the answer.

Allowed are the daemon's own origin and those of the list:

    https://app.example.com     that scheme, host and port
    https://*.example.com       every host below it, not itself; that scheme and port
    *                           any, also `null`; but then no cookie counts
    loopback                    pages of this machine at any port (`--dev`)

Laws: what is no origin is not allowed; `null` is allowed by `*` alone. Credentials are never offered together with
`*`. The daemon's own origin is the request's `Host` with the scheme it came by; where nobody knows the scheme (a
proxy that is not trusted may have taken the TLS away) both http and https are.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from attrs import define, field, frozen

from broker.request import Request, RequestRefused

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LOOPBACK = "loopback"
ANY = "*"
# A page of this machine, of the daemon itself, or an address that somebody typed (Fetch Metadata, 2.4).
_OWN_SITES = ("same-origin", "none")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REQUEST_HEADERS = "Content-Type, Last-Event-ID, Cache-Control, Authorization, Idempotency-Key"
_HOST = r"(?P<host>\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?"
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://" + _HOST)
_HOST_HEADER = re.compile(_HOST)


@frozen
class _Place:
    """An origin in its parts. The host is in lower case, of IPv6 without brackets."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of_origin(cls, text: str) -> _Place | None:
        match = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
        if match is None:
            return None
        scheme, port = match["scheme"], match["port"]
        return cls(scheme, match["host"].strip("[]"), int(port) if port else _DEFAULT_PORTS.get(scheme))

    @classmethod
    def of_host(cls, text: str, scheme: str) -> _Place | None:
        """Where a request of that scheme with that `Host` went."""
        match = _HOST_HEADER.fullmatch(text.lower()) if text.isascii() else None
        if match is None:
            return None
        port = match["port"]
        return cls(scheme, match["host"].strip("[]"), int(port) if port else _DEFAULT_PORTS.get(scheme))

    def is_below(self, above: _Place) -> bool:
        """Whether its host has more labels than that of `above`, and ends with those."""
        labels = self.host.removesuffix(f".{above.host}")
        return (
            (self.scheme, self.port) == (above.scheme, above.port)
            and labels != self.host
            and all(labels.split("."))
            and "*" not in labels
        )


@define(eq=False)
class Origins:
    """The list of allowed origins, and what follows from it.

    Args:
        allowed: as the settings have them; what is no origin allows nothing.
        with_credentials: whether pages may send cookies along (`auth.cookie` is set).
    """

    allowed: tuple[str, ...] = ()
    with_credentials: bool = False
    _exact: frozenset[_Place] = field(init=False)
    _above: tuple[_Place, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.adapt(self.allowed, self.with_credentials)

    def adapt(self, allowed: tuple[str, ...], with_credentials: bool) -> None:
        """Go by another list from here on."""
        self.allowed, self.with_credentials = allowed, with_credentials
        places = [place for text in self.allowed if (place := _Place.of_origin(text)) is not None]
        self._exact = frozenset(place for place in places if not place.host.startswith("*."))
        self._above = tuple(
            _Place(place.scheme, place.host[2:], place.port) for place in places if place.host.startswith("*.")
        )

    def check(self, request: Request) -> None:
        """Raises RequestRefused, 403, where the request comes from a page that may not connect."""
        found = [value for name, value in request.headers if name == b"origin"]
        if not found:
            return
        origin = found[0].decode("latin-1")
        if len(found) > 1 or not self.permits(origin, request.host, request.scheme):
            raise RequestRefused(
                403,
                f"pages of {origin[:80]!a} may not connect" if len(found) == 1 else f"{len(found)} Origin headers",
                "Serve the page from the daemon's own origin, or add its origin to listen.allowed_origins.",
            )

    def check_host(self, request: Request) -> None:
        """Raises RequestRefused, 403, where the request's `Host` may be anybody's name for this machine.

        For daemons that let everybody on this machine in: a page of evil.example, whose name was made to lead to
        127.0.0.1, is then of one origin with the daemon (DNS rebinding). An IP address leads where it says, and a name
        without a dot is of this machine or its network: nobody elsewhere can have a page under it.
        """
        place = _Place.of_host(request.host, "")
        if not request.host or self._is_known(place) or ANY in self.allowed:
            return
        raise RequestRefused(
            403,
            f"the Host header {request.host[:80]!a} does not name this machine",
            "Without authentication a daemon on loopback answers to localhost and to IP addresses, because any name of "
            "the web may be made to lead here; add the origin with that name to listen.allowed_origins, name the proxy "
            "in listen.trusted_proxies, or turn authentication on.",
        )

    def permits(self, origin: str, host: str, scheme: str | None) -> bool:
        """Whether a page of `origin` may connect, and read the answer.

        Args:
            host: the request's Host header.
            scheme: http or https, as the request came by; None where that is not known.
        """
        return ANY in self.allowed or self.allows_credentials(origin, host, scheme)

    def allows_credentials(self, origin: str, host: str, scheme: str | None) -> bool:
        """Whether the cookies of a request from a page of `origin` count: they never do by `*`."""
        return self.lists(origin) or is_same_origin(origin, host, scheme)

    def lists(self, origin: str) -> bool:
        """Whether the list names that origin, otherwise than by `*`."""
        place = _Place.of_origin(origin)
        if place is None:
            return False
        return (
            place in self._exact
            or (LOOPBACK in self.allowed and place.host in LOOPBACK_HOSTS)
            or any(place.is_below(above) for above in self._above)
        )

    def cookie_may_count(self, request: Request) -> bool:
        """Whether a cookie of this request was sent by a page that may send it.

        A foreign page cannot hide that it is foreign: browsers send `Origin` with every WebSocket and with whatever
        is not GET, else say in `Sec-Fetch-Site` how page and daemon relate; older ones have `Referer`. Where none of
        them is there, the cookie does not count.
        """
        origin = request.text(b"origin")
        if origin is not None:
            return self.allows_credentials(origin, request.host, request.scheme)
        site = request.text(b"sec-fetch-site")
        if site is not None:
            return site in _OWN_SITES
        referer = request.text(b"referer") or ""
        return self.allows_credentials("/".join(referer.split("/")[:3]), request.host, request.scheme)

    def cors_headers(self, origin: str | None) -> dict[str, str]:
        """The headers for an answer to a page of `origin`; none that lets it read where it is not on the list.

        The daemon's own pages need none.
        """
        if origin is None or not self.allowed:
            return {}
        if self.lists(origin):
            headers = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
            return headers | ({"Access-Control-Allow-Credentials": "true"} if self.with_credentials else {})
        if ANY in self.allowed:
            # Where all get the same answer, it does not vary.
            vary = {} if self.allowed == (ANY,) else {"Vary": "Origin"}
            return {"Access-Control-Allow-Origin": ANY} | vary
        return {"Vary": "Origin"}

    def preflight_headers(self, origin: str | None, methods: str) -> dict[str, str]:
        """The headers that answer a preflight request."""
        headers = self.cors_headers(origin)
        if "Access-Control-Allow-Origin" in headers:
            headers |= {
                "Access-Control-Allow-Methods": methods,
                "Access-Control-Allow-Headers": _REQUEST_HEADERS,
                "Access-Control-Max-Age": "600",
            }
        return headers

    def _is_known(self, place: _Place | None) -> bool:
        if place is None:
            return False
        name = place.host.removesuffix(".")
        if "." not in name or name.endswith(".localhost") or _is_ip(name):
            return bool(name)
        listed = {each.host for each in self._exact}
        schemes = {above.scheme for above in self._above}
        return place.host in listed or any(
            _Place(scheme, place.host, above.port).is_below(above) for above in self._above for scheme in schemes
        )


def is_same_origin(origin: str, host: str, scheme: str | None) -> bool:
    """Whether a page of `origin` is of the daemon's own origin, as the request's Host and scheme tell it."""
    place = _Place.of_origin(origin)
    if place is None or place.scheme not in _DEFAULT_PORTS or scheme not in (None, place.scheme):
        return False
    return _Place.of_host(host, place.scheme) == place


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
