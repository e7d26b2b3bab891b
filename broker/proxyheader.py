"""The PROXY protocol: what a proxy writes before everything else, so that the client's address is known behind it.

Versions 1 (a line of text) and 2 (binary), told apart by their first bytes. Law: a header is taken from the
connection byte by byte as it is known to belong to it, never more: TLS or a request follows at once.

Bounds: version 1, 107 bytes; version 2, 16 bytes and at most 4096 behind them, of which only the addresses are read.

Synchronous; no I/O. Source: HAProxy, doc/proxy-protocol.txt, 2.1 and 2.2.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from attrs import define, field

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_MAX_BYTES = 107
V2_MAX_BYTES = 4096
_V2_HEAD_BYTES = 16
_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
# Families and transports that there are; of these only TCP has an address of a client of ours.
_ADDRESS_BYTES = {0x00: 0, _TCP4: 12, 0x12: 12, _TCP6: 36, 0x22: 36, _UNIX: 216, 0x32: 216}
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|(?P<family>TCP4|TCP6) (?P<source>[0-9A-Fa-f:.]{2,39})"
    rb" (?P<target>[0-9A-Fa-f:.]{2,39}) (?P<ports>(?:0|[1-9][0-9]{0,4}) (?:0|[1-9][0-9]{0,4})))"
)


class ProxyHeaderError(ValueError):
    """What arrived is no PROXY header."""


@define(eq=False)
class ProxyHeaderReader:
    """Reads one header.

    Once `is_done`, `source` is the client's address, or None where the header names none: the proxy speaks for itself
    (LOCAL), does not know (UNKNOWN, UNSPEC), or was reached by other means than TCP.
    """

    is_done: bool = field(init=False, default=False)
    source: str | None = field(init=False, default=None)
    _header: bytes = field(init=False, default=b"")

    def feed(self, data: bytes) -> int:
        """Look at what arrived and is not taken yet. Returns how many of its bytes belong to the header: take those.

        Raises:
            ProxyHeaderError: this is no header.
        """
        seen = self._header + data
        if seen[: len(SIGNATURE)] == SIGNATURE[: len(seen)]:
            end = self._end_of_v2(seen)
        elif seen[:6] == b"PROXY "[: len(seen)]:
            end = self._end_of_v1(seen)
        else:
            raise ProxyHeaderError("it begins with neither PROXY nor the signature of version 2")
        size = min(end, len(seen)) - len(self._header)
        self._header = seen[:end]
        if len(seen) >= end:
            self.source = _v2(self._header) if self._header[:1] == b"\r" else _v1(self._header)
            self.is_done = True
        return size

    def _end_of_v1(self, seen: bytes) -> int:
        """Where the header ends; beyond what was seen while that is not known."""
        at = seen.find(b"\r\n")
        end = at + 2 if at >= 0 else len(seen) + 1
        if end > V1_MAX_BYTES:
            raise ProxyHeaderError(f"a line of more than {V1_MAX_BYTES} bytes")
        return end

    def _end_of_v2(self, seen: bytes) -> int:
        if len(seen) < _V2_HEAD_BYTES:
            return _V2_HEAD_BYTES
        size = int.from_bytes(seen[14:16], "big")
        if size > V2_MAX_BYTES:
            raise ProxyHeaderError(f"{size} bytes behind its head, of {V2_MAX_BYTES} that it may have")
        return _V2_HEAD_BYTES + size


def _v1(line: bytes) -> str | None:
    match = _V1.fullmatch(line.removesuffix(b"\r\n"))
    if match is None:
        raise ProxyHeaderError("a line that is not of version 1")
    if match["family"] is None:
        return None
    kind = IPv4Address if match["family"] == b"TCP4" else IPv6Address
    try:
        source, _ = (kind(match[name].decode()) for name in ("source", "target"))
    except ValueError:
        raise ProxyHeaderError("an address that is none of its family") from None
    if any(int(port) > 65535 for port in match["ports"].split()):
        raise ProxyHeaderError("a port over 65535")
    return _client(source)


def _v2(header: bytes) -> str | None:
    version, command, family = header[12] >> 4, header[12] & 0xF, header[13]
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"version {version} with command {command}")
    if command == _LOCAL:
        return None
    if family not in _ADDRESS_BYTES:
        raise ProxyHeaderError(f"address family and transport {family:#04x}")
    if len(header) - _V2_HEAD_BYTES < _ADDRESS_BYTES[family]:
        raise ProxyHeaderError("too short for its addresses")
    if family == _TCP4:
        return _client(IPv4Address(header[16:20]))
    if family == _TCP6:
        return _client(IPv6Address(header[16:32]))
    return None


def _client(address: IPv4Address | IPv6Address) -> str:
    """The address as text, as a socket would tell it."""
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified or address.is_multicast:
        raise ProxyHeaderError(f"{address} is nobody's own address")
    return str(address)
