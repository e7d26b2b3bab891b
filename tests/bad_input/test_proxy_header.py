"""PROXY headers: what is read of them, what is none, and a daemon that expects them."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.proxyheader import SIGNATURE, V1_MAX_BYTES, V2_MAX_BYTES, ProxyHeaderError, ProxyHeaderReader
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, head, text, upgrade, wait_until
from tests.actors.redis_server import RedisServer, free_port

StartDaemon = Callable[..., DaemonProcess]
HEALTH = head(b"GET /health HTTP/1.1")


def v2(
    family: int = 0x11, addresses: bytes | None = None, *, version: int = 2, command: int = 1, more: bytes = b""
) -> bytes:
    """A header of version 2. `more` are TLVs."""
    if addresses is None:
        addresses = socket.inet_aton("198.51.100.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 443)
    body = addresses + more
    return SIGNATURE + bytes((version << 4 | command, family)) + struct.pack("!H", len(body)) + body


SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "::1") + b"\x12\x67\x01\xbb"
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:198.51.100.7") * 2 + b"\0\1\0\2"
GOOD: dict[str, tuple[bytes, str | None]] = {
    "1, IPv4": (b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n", "198.51.100.7"),
    "1, IPv6": (b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n", "2001:db8::7"),
    "1, IPv4 in IPv6": (b"PROXY TCP6 ::ffff:198.51.100.7 ::1 1 2\r\n", "198.51.100.7"),
    "1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "1, unknown with the most behind it": (b"PROXY UNKNOWN " + b"f" * (V1_MAX_BYTES - 16) + b"\r\n", None),
    "2, IPv4": (v2(), "198.51.100.7"),
    "2, IPv6": (v2(0x21, SIX), "2001:db8::7"),
    "2, IPv4 in IPv6": (v2(0x21, MAPPED), "198.51.100.7"),
    "2, unix": (v2(0x31, b"/run/x.sock".ljust(216, b"\0")), None),
    "2, unspecified": (v2(0x00, b""), None),
    "2, UDP": (v2(0x12), None),
    "2, local": (v2(0x00, b"", command=0), None),
    "2, local with addresses": (v2(command=0), None),
    "2, local with what nobody knows": (v2(0x99, b"x", command=0), None),
    "2, TLVs": (v2(more=b"\x01\x00\x02h2\x04\x03\x00\x00" + b"\xff" * 900), "198.51.100.7"),
    "2, the most": (v2(more=b"\0" * (V2_MAX_BYTES - 12)), "198.51.100.7"),
}
BAD = {
    "a request": HEALTH,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    "zeros": bytes(100),
    "1, lower case": b"proxy TCP4 198.51.100.7 192.0.2.1 1 2\r\n",
    "1, another protocol": b"PROXY UDP4 198.51.100.7 192.0.2.1 1 2\r\n",
    "1, two spaces": b"PROXY TCP4  198.51.100.7 192.0.2.1 1 2\r\n",
    "1, no ports": b"PROXY TCP4 198.51.100.7 192.0.2.1\r\n",
    "1, a port too big": b"PROXY TCP4 198.51.100.7 192.0.2.1 65536 2\r\n",
    "1, a port with a zero before it": b"PROXY TCP4 198.51.100.7 192.0.2.1 01 2\r\n",
    "1, the wrong family": b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    "1, the other wrong family": b"PROXY TCP6 198.51.100.7 192.0.2.1 1 2\r\n",
    "1, an address of three numbers": b"PROXY TCP4 198.51.100 192.0.2.1 1 2\r\n",
    "1, nobody": b"PROXY TCP4 0.0.0.0 192.0.2.1 1 2\r\n",
    "1, everybody": b"PROXY TCP6 ff02::1 ::1 1 2\r\n",
    "1, a zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "1, a line feed alone": b"PROXY TCP4 198.51.100.7 192.0.2.1 1 2\n" + b"x" * V1_MAX_BYTES,
    "1, a line feed inside": b"PROXY UNKNOWN a\nb\r\n",
    "1, controls": b"PROXY UNKNOWN \x1b[2J\r\n",
    "1, unknown and more": b"PROXY UNKNOWNS\r\n",
    "1, too long": b"PROXY UNKNOWN " + b"f" * (V1_MAX_BYTES - 15) + b"\r\n",
    "1, endless": b"PROXY UNKNOWN " + b"f" * 10_000,
    "2, version 1": v2(version=1),
    "2, version 3": v2(version=3),
    "2, another command": v2(command=2),
    "2, another family": v2(0x41),
    "2, another transport": v2(0x13),
    "2, IPv4 too short": v2(0x11, b"\x01" * 11),
    "2, IPv6 too short": v2(0x21, b"\x01" * 35),
    "2, unix too short": v2(0x31, b"/" * 215),
    "2, nobody": v2(0x11, bytes(12)),
    "2, too long": v2(more=b"\0" * (V2_MAX_BYTES - 11)),
    "2, as long as can be": SIGNATURE + b"\x21\x11\xff\xff",
}


def fed(data: bytes, size: int) -> tuple[ProxyHeaderReader, bytes]:
    """Feed a stream of which `size` more bytes arrive each time. Returns the reader, and what it left."""
    reader = ProxyHeaderReader()
    taken = 0
    for end in range(size, len(data) + size, size):
        while taken < len(data[:end]) and not reader.is_done:
            step = reader.feed(data[taken:end])
            assert step > 0
            taken += step
    return reader, data[taken:]


@pytest.mark.parametrize("size", [1, 3, 100_000])
@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01", b"\r\n\r\nPROXY "])
@pytest.mark.parametrize(("header", "source"), GOOD.values(), ids=GOOD)
def test_a_header_and_nothing_behind_it_is_taken(header: bytes, source: str | None, behind: bytes, size: int) -> None:
    reader, rest = fed(header + behind, size)
    assert (reader.is_done, reader.source, rest) == (True, source, behind)


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_none(data: bytes, size: int) -> None:
    with pytest.raises(ProxyHeaderError):
        fed(data, size)


@pytest.mark.parametrize("header", [header for header, _ in GOOD.values()], ids=GOOD)
def test_half_a_header_is_waited_for(header: bytes) -> None:
    for end in range(1, len(header)):
        reader, rest = fed(header[:end], end)
        assert (reader.is_done, rest) == (False, b"")


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=300).map(lambda noise: SIGNATURE + noise),
        st.binary(max_size=150).map(lambda noise: b"PROXY " + noise),
        st.tuples(
            st.sampled_from([header for header, _ in GOOD.values()]), st.integers(0, 60), st.integers(1, 255)
        ).map(lambda it: it[0][: it[1]] + bytes([(it[0] + b"\0" * 60)[it[1]] ^ it[2]]) + it[0][it[1] + 1 :]),
    ),
    st.integers(1, 50),
)
def test_whatever_comes_is_a_header_or_none_and_the_same_in_pieces(data: bytes, size: int) -> None:
    outcomes = []
    for pieces in (size, 1000):
        try:
            reader, rest = fed(data, pieces)
        except ProxyHeaderError:
            outcomes.append("none")
        else:
            outcomes.append(f"{reader.is_done} {reader.source} {rest!r}")
    # In pieces it may be known earlier that there is none, never otherwise.
    assert outcomes[0] == outcomes[1]


def behind_proxy(port: int) -> tuple[str, str]:
    """Flags for one more address to listen on, where connections begin with a header."""
    return f"--listen=127.0.0.1:{port}", f"--listen-proxy-protocol=127.0.0.1:{port}"


def introduced(port: int, header: bytes) -> RawClient:
    client = RawClient.connect(port)
    client.send(header)
    return client


def test_a_daemon_behind_a_proxy(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    """Each client has the limit of its own address, whoever is next to the daemon."""
    port = free_port()
    daemon = start_daemon(
        redis_server.url,
        *behind_proxy(port),
        "--listen-trusted-proxies=127.0.0.1",
        "--limits-connections-per-ip=1",
        "--log-requests=on",
    )
    with introduced(port, GOOD["1, IPv4"][0] + upgrade()) as first:
        first.expect_upgrade()
        assert first.frame().json()["type"] == "connected"
        with introduced(port, GOOD["2, IPv4"][0]) as second:
            answer = second.ask(HEALTH)
            assert (answer.status, answer.headers["retry-after"]) == (429, "5")
            assert answer.json()["detail"] == "your address has reached limits.connections_per_ip"
        with introduced(port, b"PROXY TCP4 198.51.100.8 192.0.2.1 1 2\r\n") as third:
            assert third.ask(HEALTH).status == 200
            assert third.ask(HEALTH).status == 200
        first.send(text({"type": "ping"}))
        assert first.frame().json()["type"] == "pong"
    with introduced(port, GOOD["2, local"][0]) as check:
        assert check.ask(HEALTH).status == 200
    wait_until(lambda: daemon.stats()["connections"]["open"] == 1)
    with introduced(port, b"".join((GOOD["2, TLVs"][0], HEALTH))) as again:
        assert again.answer().status == 200
    for data in (HEALTH, b"\x16\x03\x01\x00\x05", BAD["1, nobody"], BAD["2, as long as can be"]):
        with introduced(port, data) as bad:
            assert bad.read_to_end() == b""
    counts = daemon.stats()["connections"]
    assert (counts["withoutProxyHeader"], counts["refusedByLimit"], counts["failed"]) == (
        4,
        {"connections_per_ip": 1},
        0,
    )
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    requests = [line for line in lines if line["event"] == "request" and line["target"] == "/health"]
    assert [line["client"] for line in requests] == ["198.51.100.8", "198.51.100.8", "127.0.0.1", "198.51.100.7"]
    complaints = [line["why"] for line in lines if line["event"] == "a connection without a PROXY header was closed"]
    assert complaints == ["it begins with neither PROXY nor the signature of version 2"]


def test_only_a_trusted_proxy_may_say_so(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    port = free_port()
    daemon = start_daemon(redis_server.url, *behind_proxy(port), "--listen-trusted-proxies=192.0.2.1")
    with introduced(port, GOOD["1, IPv4"][0] + HEALTH) as client:
        assert client.read_to_end() == b""
    with RawClient.connect(daemon.port) as client:
        assert client.ask(GOOD["1, IPv4"][0] + HEALTH).status == 400
    assert daemon.stats()["connections"]["withoutProxyHeader"] == 1


def test_a_header_has_the_time_of_a_head(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    port = free_port()
    daemon = start_daemon(
        redis_server.url,
        *behind_proxy(port),
        "--listen-trusted-proxies=127.0.0.1",
        "--listen-head-seconds=0.5",
    )
    with introduced(port, b"PROXY TCP4 198.51") as slow, RawClient.connect(port) as silent:
        assert (slow.read_to_end(), silent.read_to_end()) == (b"", b"")
    with introduced(port, GOOD["1, IPv4"][0] + b"GET / HT") as late:
        assert late.answer().status == 408
    assert daemon.stats()["connections"]["withoutProxyHeader"] == 0
