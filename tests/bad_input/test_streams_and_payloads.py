"""Stream requests that cannot be served, and what comes from Redis that is not fit, or only odd."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import httpx_sse
import pytest

from broker.headers import SECURITY_HEADERS
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, head, text, wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.refusal import assert_refusal

REFUSED = {
    "no-channel": (b"/api/stream", 400),
    "empty-channel": (b"/api/stream?channel=", 400),
    "space": (b"/api/stream?channel=a%20b", 400),
    "crlf": (b"/api/stream?channel=a%0d%0adata:%20evil", 400),
    "nul": (b"/api/stream?channel=%00", 400),
    "not-utf8": (b"/api/stream?channel=%ff", 400),
    "four-parts": (b"/api/stream?channel=a:b:c:d", 400),
    "one-of-two": (b"/api/stream?channel=a&channel=", 400),
    "33": (b"/api/stream?" + b"&".join(b"channel=a:%d" % number for number in range(33)), 400),
    "101-fields": (b"/api/stream?" + b"a=b&" * 101, 400),
    "id-crlf": (b"/api/stream/render-progress/a%0d%0aX-Injected:%20b", 400),
    "id-slash": (b"/api/stream/render-progress/a/b", 400),
    "id-percent-slash": (b"/api/stream/render-progress/a%2fb", 400),
    "id-not-ascii": (b"/api/stream/ab-test-results/%c3%a9", 400),
    "id-129": (b"/api/stream/campaign-metrics/" + b"a" * 129, 400),
    "endpoint-crlf": (b"/api/stream/a%0d%0ab/c", 404),
}


@pytest.mark.parametrize(("target", "status"), REFUSED.values(), ids=REFUSED)
def test_refused_stream(port: int, target: bytes, status: int) -> None:
    with RawClient.connect(port) as client:
        answer = assert_refusal(client.ask(head(b"GET %b HTTP/1.1" % target)), status)
        assert set(answer.headers) == {
            "connection",
            "content-type",
            "content-length",
            *map(str.lower, SECURITY_HEADERS),
        }
        assert "\r" not in answer.json()["detail"]


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE"])
def test_streams_are_read_with_get(port: int, method: bytes) -> None:
    with RawClient.connect(port) as client:
        answer = assert_refusal(client.ask(head(method + b" /api/stream?channel=a HTTP/1.1")), 405)
        assert answer.headers["allow"] == "GET"


def test_32_channels_and_twice_the_same_are_one_stream(port: int) -> None:
    names = b"&".join(b"channel=a:%d" % number for number in [*range(32), 0, 1])
    with RawClient.connect(port) as client:
        assert client.ask(head(b"GET /api/stream?%b HTTP/1.1" % names)).status == 200
        assert b'"connected"' in client.read_until(b"\n\n")


def test_http10_gets_a_bare_stream_that_ends_with_the_connection(port: int, redis: RedisServer) -> None:
    with RawClient.connect(port) as client:
        answer = client.ask(b"GET /api/stream?channel=old:1 HTTP/1.0\r\n\r\n")
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        assert client.read_until(b"\n\n").startswith(b'id: 0:0:0\ndata: {"type":"connected"')
        redis.publish("old:1", b"[1]")
        assert client.read_until(b"\n\n") == b"data: [1]\n\n"
        client.send(head(b"GET /health HTTP/1.1"))
        redis.publish("old:1", b"[2]")
        assert client.read_until(b"\n\n") == b"data: [2]\n\n"


def test_bytes_behind_a_stream_request_are_ignored_up_to_a_bound(
    port: int, redis: RedisServer, served: DaemonProcess
) -> None:
    with RawClient.connect(port) as client:
        client.send(head(b"GET /api/stream?channel=old:2 HTTP/1.1") + head(b"GET /health HTTP/1.1") + b"\0" * 60000)
        client.answer()
        client.read_until(b"\n\n\r\n")
        redis.publish("old:2", b"[1]")
        assert client.read_until(b"\n\n\r\n") == b"b\r\ndata: [1]\n\n\r\n"
        client.try_send(b"\0" * 70000)
        assert client.read_to_end() == b""
    assert wait_until(lambda: served.stats()["delivery"]["endings"].get("request_too_big"))


def test_a_user_id_cannot_inject_anything(port: int, served: DaemonProcess) -> None:
    evil = "a\r\ndata: x\r\n\r\n\0\u2028"
    with RawClient.connect(port) as client:
        client.send(head(b"GET /api/stream?channel=a&userId=a%0d%0adata:%20x%0d%0a%0d%0a%00%e2%80%a8 HTTP/1.1"))
        answer = client.answer()
        assert set(answer.headers) == {
            "content-type", "cache-control", "x-accel-buffering", "connection", "transfer-encoding",
            "x-content-type-options",
        }  # fmt: skip
        assert client.read_until(b"\n\n\r\n").count(b"data:") == 1
        assert evil in [listed["userId"] for listed in served.stats()["sse"]["clients"]]


ODD = [
    '{"a":1}\n', '{\n"a":1}', '{\r"a":1}', '{\r\n"a":1\r\n}', '\n\r\n\r{"a":\n\n\n1}\r\r', ' {"a":1} ', "\t1",
    '"\u2028\u2029\u0085\x0b\x0c"'.replace("\x0b", "\\u000b").replace("\x0c", "\\f"), '"\\u0000"', '"\u007f"',
    '{"a":"\\ud800"}', '"\\udfff\\ud800"', '"\U0001f600\u00e9"', '"\ufeff"', '{"data":"data: x\\n\\nid: 1"}', "null",
    "0", '"%s"' % ("a" * 70000), "[" * 900 + "]" * 900, '{"a":1,"a":2}', "1e999", "9" * 5000, '""', "{}", '"\ufffe"',
]  # fmt: skip


def test_odd_payloads_arrive_as_they_are(port: int, redis: RedisServer, served: DaemonProcess) -> None:
    """On WebSocket byte for byte; on SSE as the standard makes it: CR, LF and CRLF are one line end each."""
    with (
        RawClient.websocket(port) as socket,
        httpx.Client(trust_env=False) as http,
        httpx_sse.connect_sse(http, "GET", f"{served.url}/api/stream?channel=odd:1") as source,
    ):
        socket.send(text({"type": "subscribe", "channel": "odd:1"}))
        assert socket.frame().json()["success"] is True
        events: Iterator[httpx_sse.ServerSentEvent] = source.iter_sse()
        assert json.loads(next(events).data)["type"] == "connected"
        for together in (False, True):
            if together:
                redis.publish("odd:1", *(payload.encode() for payload in ODD))
            for payload in ODD:
                if not together:
                    redis.publish("odd:1", payload.encode())
                assert socket.frame().payload == payload.encode()
                event = next(events)
                assert event.data == payload.replace("\r\n", "\n").replace("\r", "\n")
                assert (event.event, event.id, event.retry) == ("message", "0:0:0", None)


UNFIT = {
    "not_utf8": [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b"\x80"],
    "not_json": [
        b"", b" ", b"{", b"hello", b"{'a':1}", b"NaN", b"[1,]", b'"a\nb"', b'"\x00"', b'"\\x"', b"1 2", b"+1", b"01",
        b"\xef\xbb\xbf{}", b'\xef\xbb\xbf"\\ud800"', '"\u755c"'.encode("utf-16-le"), b'[NaN,"\\ud800"]',
        b"[" * 100_000, b'{"a":' * 100_000 + b'"\\ud800"',
    ],
    "too_big": [b'"%b"' % (b"a" * (1 << 20)), b"[" * (1 << 21)],
}  # fmt: skip


def test_unfit_payloads_are_dropped_counted_and_logged_once(
    port: int, redis: RedisServer, served: DaemonProcess
) -> None:
    before = served.stats()["redis"]["refusedMessages"]
    with RawClient.websocket(port) as client:
        client.send(text({"type": "subscribe", "channel": "unfit:1"}))
        assert client.frame().json()["success"] is True
        for payloads in UNFIT.values():
            redis.publish("unfit:1", *payloads)
        redis.publish("unfit:1", b'"%b"' % (b"a" * ((1 << 20) - 2)))
        assert len(client.frame().payload) == 1 << 20
        after = served.stats()["redis"]["refusedMessages"]
    assert {reason: after[reason] - before.get(reason, 0) for reason in UNFIT} == {
        reason: len(payloads) for reason, payloads in UNFIT.items()
    }
    lines = [json.loads(line) for line in served.log().splitlines()]
    told = [line for line in lines if line["event"] == "message from Redis dropped"]
    assert [line["reason"] for line in told] == list(UNFIT)  # one line a burst of each reason
    assert (told[0]["channel"], told[0]["begins"], told[0]["reason"]) == ("unfit:1", "\\xff", "not_utf8")


def test_a_stream_whose_client_vanishes_leaves_its_channel(port: int, served: DaemonProcess) -> None:
    for number in range(20):
        client = RawClient.connect(port)
        client.send(head(b"GET /api/stream?channel=gone:%d HTTP/1.1" % number))
        if number % 2:
            client.answer()
        client.reset()
    time.sleep(0.02)
    wait_until(lambda: not [name for name in served.stats()["channels"]["channels"] if name.startswith("gone")])
