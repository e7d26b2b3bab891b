"""Where a request comes from, as the proxies on its way tell: `Forwarded` (RFC 7239) and `X-Forwarded-For`.

Both are lists to which each proxy adds, on the right, whom it heard from. They are read from the right, as far as
those who wrote them are trusted: the first address that is no trusted proxy's is the client's, whatever the client
itself wrote left of it.

Laws: who is not trusted is not heard. Where the lists are there and tell no address, or both are there and differ
(a proxy writes one and passes on what a client wrote into the other), the client is `unknown`, RFC 7239's own word:
all such clients are one to the limits by address. Where there is no list, the proxy itself asks.

Bounds: 32 entries are read, from the right. Synchronous; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import define, field, frozen

UNKNOWN = "unknown"
UNIX = "unix"
HOPS_MAX = 32
_SCHEMES = ("http", "https")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(
    rf'[ \t]*(?P<name>{_TOKEN})=(?:(?P<token>{_TOKEN})|"(?P<quoted>(?:[^"\\]|\\.)*)")[ \t]*(?P<end>[;,]|$)'
)
_GAP = re.compile(r"[ \t]*(?:,|$)")
_ESCAPED = re.compile(r"\\(.)")
# An IPv6 address in brackets or an IPv4 address, and a port, which may be a made-up name.
_WITH_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")


@frozen
class Whence:
    """Where a request comes from.

    Args:
        address: the client's IP address, `unknown`, or None where the peer came by a unix socket and tells nothing.
        scheme: http or https, as the client asked for it; None where the proxy does not say.
    """

    address: str | None
    scheme: str | None


@frozen
class _Hop:
    node: str
    scheme: str | None = None


@define(eq=False)
class Proxies:
    """The proxies whose word is taken.

    Args:
        trusted: IP addresses and networks, and `unix` for whoever comes by a unix socket.
    """

    trusted: tuple[str, ...] = ()
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.adapt(self.trusted)

    def adapt(self, trusted: tuple[str, ...]) -> None:
        """Trust others from here on."""
        self.trusted = trusted
        self._networks = tuple(ip_network(text, strict=False) for text in trusted if text != UNIX)

    def trusts(self, address: str | None) -> bool:
        """Whether a peer with that address (None: on a unix socket) is a trusted proxy."""
        if not self.trusted:
            return False
        if address is None:
            return UNIX in self.trusted
        plain = plain_address(address)
        if plain is None:
            return False
        ip = ip_address(plain)
        return any(ip in network for network in self._networks)

    def whence(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> Whence:
        """Where a request comes from that a trusted peer sent.

        Args:
            headers: with lower-case names.
        """
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name in (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"):
                found.setdefault(name, []).append(value)
        lists = {name: b",".join(values).decode("latin-1") for name, values in found.items()}
        told = []
        if b"forwarded" in lists:
            told.append(self._walk(peer, _forwarded_hops(lists[b"forwarded"])))
        if b"x-forwarded-for" in lists:
            told.append(self._walk(peer, [_Hop(text) for text in lists[b"x-forwarded-for"].split(",")]))
        schemes = {whence.scheme for whence in told if whence.scheme is not None}
        if b"x-forwarded-proto" in lists:
            schemes |= {text.strip(" \t").lower() for text in lists[b"x-forwarded-proto"].split(",")}
        scheme = schemes.pop() if len(schemes) == 1 else None
        addresses = {whence.address for whence in told}
        address = peer if not told else addresses.pop() if len(addresses) == 1 else UNKNOWN
        return Whence(address, scheme if scheme in _SCHEMES else None)

    def _walk(self, peer: str | None, hops: Sequence[_Hop] | None) -> Whence:
        """The nearest who is no trusted proxy; where all are, the farthest."""
        whence = Whence(UNKNOWN, None)
        for hop in (hops or [])[: -HOPS_MAX - 1 : -1]:
            address = plain_address(_without_port(hop.node.strip(" \t")))
            if address is None:
                return Whence(UNKNOWN, hop.scheme)
            whence = Whence(address, hop.scheme)
            if not self.trusts(address):
                break
        return whence


def plain_address(text: str) -> str | None:
    """An IP address without its zone, and as IPv4 where IPv6 only carries it; None for what is none."""
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip)


def _without_port(node: str) -> str:
    match = _WITH_PORT.fullmatch(node)
    return node if match is None else match["six"] or match["four"]


def _forwarded_hops(text: str) -> list[_Hop] | None:
    """The entries of a `Forwarded` header; None where it is malformed, which says nothing of any of them."""
    hops: list[_Hop] = []
    at = 0
    while at < len(text):
        gap = _GAP.match(text, at)
        if gap is not None:
            at = gap.end() or at + 1
            continue
        pairs: dict[str, str] = {}
        while True:
            match = _PAIR.match(text, at)
            if match is None or match["name"].lower() in pairs:
                return None
            value = match["token"] or _ESCAPED.sub(r"\1", match["quoted"] or "")
            pairs[match["name"].lower()] = value
            at = match.end()
            if match["end"] != ";":
                break
        hops.append(_Hop(pairs.get("for", ""), pairs.get("proto", "").lower() or None))
    return hops
