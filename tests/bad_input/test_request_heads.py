"""Request heads that are malformed, too large, too slow, or of another protocol altogether."""

from __future__ import annotations

import time

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, head, wait_until
from tests.actors.refusal import assert_refused
from tests.bad_input.conftest import TRICKLE_SECONDS

HELLO = bytes.fromhex("160301020001000001fc0303") + bytes(range(256)) * 2
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

REFUSED = {
    "not-http": (b"hello\r\n\r\n", 400),
    "only-crlf-then-garbage": (b"\r\n\r\n\0\0", 400),
    "tls-client-hello": (HELLO, 400),
    "http2-preface": (PREFACE, 505),
    "http2-in-the-line": (head(b"GET /health HTTP/2.0"), 505),
    "http12": (head(b"GET /health HTTP/1.2"), 505),
    "http09": (b"GET /health\r\n\r\n", 505),
    "http-of-a-word": (head(b"GET /health HTTP/one"), 400),
    "unknown-method": (head(b"FROBNICATE /health HTTP/1.1"), 400),
    "lower-case-method": (head(b"get /health HTTP/1.1"), 400),
    "connect": (head(b"CONNECT example.com:443 HTTP/1.1"), 405),
    "bare-lf": (b"GET /health HTTP/1.1\nHost: a\n\n", 400),
    "bare-cr": (b"GET /health HTTP/1.1\rHost: a\r\r", 400),
    "no-target": (head(b"GET HTTP/1.1"), 400),
    "space-in-target": (head(b"GET /a b HTTP/1.1"), 400),
    "raw-byte-in-target": (head(b"GET /h\xc3\xa9 HTTP/1.1"), 400),
    "nul-in-target": (head(b"GET /a\0b HTTP/1.1"), 400),
    "folded-header": (head(b"GET /health HTTP/1.1", b"A: b", b" c"), 400),
    "space-before-colon": (head(b"GET /health HTTP/1.1", b"A : b"), 400),
    "header-without-colon": (head(b"GET /health HTTP/1.1", b"nothing"), 400),
    "header-without-name": (head(b"GET /health HTTP/1.1", b": b"), 400),
    "header-name-not-ascii": (head(b"GET /health HTTP/1.1", b"\xc3\xa9: b"), 400),
    "nul-in-header": (head(b"GET /health HTTP/1.1", b"A: \0"), 400),
    "cr-in-header": (head(b"GET /health HTTP/1.1", b"A: b\rX-Injected: c"), 400),
    "control-in-header": (head(b"GET /health HTTP/1.1", b"A: \x01"), 400),
    "no-host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (head(b"GET /health HTTP/1.1", b"Host: localhost"), 400),
    "host-not-ascii": (b"GET /health HTTP/1.1\r\nHost: h\xc3\xa9\r\n\r\n", 400),
    "host-with-space": (b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "host-with-path": (b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host-with-user": (b"GET /health HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "host-with-long-port": (b"GET /health HTTP/1.1\r\nHost: a:808080\r\n\r\n", 400),
    "host-with-empty-label": (b"GET /health HTTP/1.1\r\nHost: a..b\r\n\r\n", 400),
    "host-with-long-label": (b"GET /health HTTP/1.1\r\nHost: " + b"a" * 64 + b".b\r\n\r\n", 400),
    "host-http10-not-a-name": (b"GET /health HTTP/1.0\r\nHost: <b>\r\n\r\n", 400),
    "long-target": (head(b"GET /" + b"a" * 17000 + b" HTTP/1.1"), 431),
    "long-header": (head(b"GET /health HTTP/1.1", b"A: " + b"a" * 17000), 431),
    "many-headers": (head(b"GET /health HTTP/1.1", *[b"A%d: b" % number for number in range(2000)]), 431),
    "64KiB-head": (head(b"GET /health HTTP/1.1", b"A: " + b"a" * 65536), 431),
    "16KiB-without-an-end": (b"GET /health HTTP/1.1\r\nA: " + b"a" * 17000, 431),
    "1MiB-header-name": (b"GET /health HTTP/1.1\r\n" + b"a" * (1 << 20), 431),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_refused(port: int, sent: bytes, status: int) -> None:
    assert_refused(port, sent, status)


@pytest.mark.parametrize(
    "sent",
    [
        head(b"GET /health HTTP/1.1", b"A: \xc3\xa9\xff"),
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: \r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: " + b"a" * 63 + b".localhost.:65535\r\n\r\n",
        head(b"GET http://elsewhere.example:1/health HTTP/1.1"),
        head(b"GET  /health  HTTP/1.1"),
        b"\r\n" + head(b"GET /health HTTP/1.1"),
        head(b"GET /health HTTP/1.1", *[b"A%d: b" % number for number in range(1000)]),
    ],
    ids=[
        "value-not-ascii",
        "http10",
        "host-empty",
        "host-ipv6",
        "host-long",
        "absolute-form",
        "two-spaces",
        "crlf-first",
        "a-thousand-headers",
    ],
)
def test_odd_and_served(port: int, sent: bytes) -> None:
    with RawClient.connect(port) as client:
        assert client.ask(sent).json()["status"] == "healthy"


def test_a_head_a_byte_at_a_time_is_served_within_its_time(port: int) -> None:
    with RawClient.connect(port) as client:
        for byte in head(b"GET /health HTTP/1.1"):
            client.send(bytes((byte,)))
        assert client.answer().status == 200


def test_500_that_say_nothing_are_let_go(port: int, served: DaemonProcess) -> None:
    quiet = [RawClient.connect(port) for _ in range(500)]
    began = time.monotonic()
    for client in quiet:
        assert client.read_to_end() == b""
        client.sock.close()
    assert time.monotonic() - began < TRICKLE_SECONDS + 2
    with RawClient.connect(port) as client:
        assert client.ask(head(b"GET /health HTTP/1.1")).status == 200


def test_leaving_in_the_middle_of_a_head(port: int, served: DaemonProcess) -> None:
    for _ in range(50):
        client = RawClient.connect(port)
        client.send(b"GET /health HTTP/1.1\r\nHo")
        client.sock.close()
        client = RawClient.connect(port)
        client.send(b"GET /health HT")
        client.reset()
    wait_until(lambda: served.stats()["status"] == "healthy")
