"""PROXY headers of both versions: taken exactly, however they come, or refused."""

from __future__ import annotations

from ipaddress import ip_address

from broker.proxyheader import SIGNATURE, V2_MAX_BYTES, ProxyHeaderError, ProxyHeaderReader
from tests.fuzz.reading import is_one_line
from tests.fuzz.target import Target

HEADER_MAX_BYTES = 16 + V2_MAX_BYTES


def check(data: bytes) -> str:
    whole = read(data, len(data) or 1)
    assert read(data, 1) == whole
    assert read(data, 7) == whole
    return whole[0]


def read(data: bytes, step: int) -> tuple[str, str | None, int]:
    """What it was, whom it names, and how many bytes belonged to it."""
    reader = ProxyHeaderReader()
    taken = 0
    for at in range(0, min(len(data), HEADER_MAX_BYTES + 1), step):
        piece = data[at : at + step]
        try:
            size = reader.feed(piece)
        except ProxyHeaderError as error:
            assert is_one_line(str(error)), error
            return "refused", None, 0
        assert 0 <= size <= len(piece)
        taken += size
        if reader.is_done:
            break
        assert size == len(piece), "bytes of the header were left"
    if not reader.is_done:
        assert taken <= HEADER_MAX_BYTES and reader.source is None
        return "unfinished", None, taken
    if reader.source is not None:
        address = ip_address(reader.source)
        assert not address.is_unspecified and not address.is_multicast and "%" not in reader.source
        assert str(address) == reader.source
        return f"version {address.version}", reader.source, taken
    return "nobody", None, taken


def v2(command: int, family: int, body: bytes, size: int | None = None) -> bytes:
    return SIGNATURE + bytes((command, family)) + (len(body) if size is None else size).to_bytes(2, "big") + body


TARGET = Target(
    "proxyheaders",
    check,
    (
        b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n\x16\x03\x01",
        b"PROXY TCP6 ::ffff:192.0.2.1 ::1 5000 80\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 whatever 1 2\r\nrest",
        v2(0x21, 0x11, bytes([192, 0, 2, 1, 10, 0, 0, 1, 19, 136, 0, 80])) + b"rest",
        v2(0x21, 0x21, bytes.fromhex("20010db8000000000000000000000001") + bytes(20)),
        v2(0x20, 0x00, b"") + b"GET",
        v2(0x21, 0x31, bytes(216)),
        v2(0x21, 0x11, bytes([192, 0, 2, 1, 10, 0, 0, 1, 19, 136, 0, 80]) + b"\x01\x00\x02h2" + b"\0" * 400),
        v2(0x21, 0x11, b"abc", 65535),
    ),
    (
        b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", SIGNATURE, b"\x21", b"\x20", b"\x11", b"\x21\x11\x00\x0c",
        b"\x00\x00", b"\xff\xff", b"0.0.0.0", b"::", b"127.0.0.1", b"224.0.0.1", b"65536", b"01", b" ", b"fe80::1%eth0",
    ),
    frozenset({"version 4", "version 6", "nobody", "refused", "unfinished"}),
)  # fmt: skip
