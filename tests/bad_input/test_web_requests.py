"""Requests to the web app: bodies, keep-alive, pipelining, other protocols asked for, unknown paths."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import PING, PONG, Frame, RawClient, frame, head, upgrade
from tests.actors.refusal import assert_refusal, assert_refused
from tests.bad_input.conftest import TRICKLE_SECONDS

HEALTH = head(b"GET /health HTTP/1.1")
STATS = head(b"GET /api/realtime/stats HTTP/1.1")
POST = b"POST /health HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")

BAD_BODIES = {
    "chunk-size-not-hex": (head(POST, CHUNKED) + b"xyz\r\n", 400),
    "chunk-size-negative": (head(POST, CHUNKED) + b"-1\r\n", 400),
    "chunk-size-huge": (head(POST, CHUNKED) + b"f" * 20 + b"\r\n", 400),
    "chunk-longer-than-said": (head(POST, CHUNKED) + b"2\r\nabc\r\n0\r\n\r\n", 400),
    "chunk-with-bare-lf": (head(POST, CHUNKED) + b"2\nab\n0\n\n", 400),
    "te-and-cl": (head(POST, CHUNKED, b"Content-Length: 3") + b"0\r\n\r\n", 400),
    "cl-and-te": (head(POST, b"Content-Length: 3", CHUNKED) + b"0\r\n\r\n", 400),
    "te-gzip": (head(POST, b"Transfer-Encoding: gzip") + b"abc", 400),
    "te-chunked-twice": (head(POST, CHUNKED, CHUNKED) + b"0\r\n\r\n", 400),
    "te-chunked-then-gzip": (head(POST, b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", 400),
    "two-lengths": (head(POST, b"Content-Length: 3", b"Content-Length: 4") + b"abc", 400),
    "length-list": (head(POST, b"Content-Length: 3, 3") + b"abc", 400),
    "length-signed": (head(POST, b"Content-Length: +3") + b"abc", 400),
    "length-negative": (head(POST, b"Content-Length: -3") + b"abc", 400),
    "length-word": (head(POST, b"Content-Length: three") + b"abc", 400),
    "length-over-64-bits": (head(POST, b"Content-Length: " + b"9" * 30), 400),
    "length-huge": (head(POST, b"Content-Length: %d" % 10**15), 413),
    "length-just-over": (head(POST, b"Content-Length: %d" % (1024 * 1024 + 1)), 413),
    "chunks-over": (head(POST, CHUNKED) + b"100000\r\n" + b"a" * (1 << 20) + b"\r\n1\r\na\r\n0\r\n\r\n", 413),
    "endless-chunk-extension": (head(POST, CHUNKED) + b"1;" + b"a" * (9 << 20), 413),
}


@pytest.mark.parametrize(("sent", "status"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_body(port: int, sent: bytes, status: int) -> None:
    assert_refused(port, sent, status)


def test_an_endless_trailer_is_refused(port: int) -> None:
    """By its size or by its time, whichever is over first."""
    with RawClient.connect(port) as client:
        client.try_send(head(POST, CHUNKED) + b"0\r\nX: " + b"a" * (9 << 20))
        answer = client.answer()
        assert_refusal(answer, answer.status)
        assert answer.status in (408, 413)


UNKNOWN = {
    "path": (b"GET /nothing HTTP/1.1", 404),
    "root-with-star": (b"GET /* HTTP/1.1", 404),
    "below-client": (b"GET /client/../health HTTP/1.1", 404),
    "below-console": (b"GET /console/index.html/x HTTP/1.1", 404),
    "below-health": (b"GET /health/x HTTP/1.1", 404),
    "below-ws": (b"GET /ws/x HTTP/1.1", 404),
    "percent-crlf": (b"GET /a%0d%0aX-Injected:%20b HTTP/1.1", 404),
    "percent-nul": (b"GET /%00 HTTP/1.1", 404),
    "percent-not-utf8": (b"GET /%ff%fe HTTP/1.1", 404),
    "percent-cut": (b"GET /%f HTTP/1.1", 404),
    "dots": (b"GET /../../etc/passwd HTTP/1.1", 404),
    "two-slashes-before": (b"GET //health HTTP/1.1", 404),
    "slash-as-percent-before": (b"GET /%2fhealth HTTP/1.1", 404),
    "two-slashes-inside": (b"GET /api//realtime/stats HTTP/1.1", 404),
    "long-path": (b"GET /" + b"a" * 10000 + b" HTTP/1.1", 404),
    "stats-clients-word": (b"GET /api/realtime/stats?clients=x HTTP/1.1", 400),
    "stats-clients-many": (b"GET /api/realtime/stats?clients=99999999999999 HTTP/1.1", 400),
    "post-health": (b"POST /health HTTP/1.1", 405),
    "delete-stats": (b"DELETE /api/realtime/stats HTTP/1.1", 405),
    "propfind": (b"PROPFIND /health HTTP/1.1", 405),
    "trace": (b"TRACE /health HTTP/1.1", 405),
    "stream-unknown": (b"GET /api/stream/nothing/x HTTP/1.1", 404),
    "stream-endpoint-lookalike": (b"GET /api/streamrender-progress/x HTTP/1.1", 404),
    "stream-lookalike": (b"GET /api/streams HTTP/1.1", 404),
    "stream-without-id": (b"GET /api/stream/render-progress/ HTTP/1.1", 404),
}


@pytest.mark.parametrize(("line", "status"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown(port: int, line: bytes, status: int) -> None:
    with RawClient.connect(port) as client:
        answer = assert_refusal(client.ask(head(line)), status)
        assert "x-injected" not in answer.headers
        assert status != 405 or "GET" in answer.headers["allow"]


def test_head_has_no_body(port: int) -> None:
    with RawClient.connect(port) as client:
        client.send(head(b"HEAD /health HTTP/1.1"))
        assert client.answer(to_head=True).status == 200
        client.send(head(b"HEAD /nothing HTTP/1.1"))
        assert client.answer(to_head=True).status == 404
        client.send(head(b"HEAD /api/stream?channel=a HTTP/1.1"))
        answer = client.answer(to_head=True)
        assert (answer.status, answer.headers["allow"]) == (405, "GET")
        assert int(answer.headers["content-length"]) > 0
        assert client.read_to_end() == b""


def test_one_connection_carries_requests_and_then_a_stream(port: int) -> None:
    with RawClient.connect(port) as client:
        assert client.ask(HEALTH).json()["status"] == "healthy"
        assert "websocket" in client.ask(STATS).json()
        assert client.ask(HEALTH).json()["status"] == "healthy"
        assert_refusal(client.ask(head(b"GET /nothing HTTP/1.1")), 404)
        answer = client.ask(head(b"GET /api/stream?channel=a HTTP/1.1"))
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert b'"connected"' in client.read_until(b"\n\n")


def test_one_connection_carries_requests_and_then_a_websocket(port: int) -> None:
    with RawClient.connect(port) as client:
        assert client.ask(HEALTH).json()["status"] == "healthy"
        client.send(upgrade() + frame(PING, b"early"))
        client.expect_upgrade()
        assert client.frame().json()["type"] == "connected"
        assert client.frame() == Frame(PONG, b"early")


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    with RawClient.connect(port) as client:
        client.send(HEALTH + STATS + head(b"GET /nothing HTTP/1.1") + HEALTH + upgrade() + frame(PING, b"early"))
        assert client.answer().json()["status"] == "healthy"
        assert "channels" in client.answer().json()
        assert_refusal(client.answer(), 404)
        assert client.answer().json()["status"] == "healthy"
        client.expect_upgrade()
        assert client.frame().json()["type"] == "connected"
        assert client.frame() == Frame(PONG, b"early")


def test_more_pipelined_requests_than_a_head_may_have_bytes(port: int) -> None:
    """The last one comes in two pieces: what was read with it is none of its head."""
    with RawClient.connect(port) as client:
        sent = HEALTH * 600
        client.send(sent[:-10])
        for _ in range(599):
            assert client.answer().status == 200
        client.send(sent[-10:])
        assert client.answer().status == 200
        assert client.ask(HEALTH).status == 200


def test_a_refused_request_ends_what_was_pipelined(port: int) -> None:
    with RawClient.connect(port) as client:
        client.send(HEALTH + b"nonsense\r\n\r\n" + HEALTH)
        assert client.answer().status == 200
        assert_refusal(client.answer(), 400)
        assert client.read_to_end() == b""


def test_a_body_larger_than_a_head_may_be_leaves_the_connection_as_it_was(port: int) -> None:
    with RawClient.connect(port) as client:
        assert_refusal(client.ask(head(POST, b"Content-Length: 60000") + b"a" * 60000), 405)
        assert client.ask(HEALTH).status == 200
        assert_refusal(client.ask(head(POST, CHUNKED) + b"ea60\r\n" + b"a" * 60000 + b"\r\n0\r\n\r\n"), 405)
        assert client.ask(HEALTH).status == 200
        assert_refusal(client.ask(head(POST, b"Content-Length: 1048576") + b"a" * 1048576), 405)
        assert client.ask(HEALTH).status == 200


def test_a_kept_connection_may_rest_longer_than_a_head_may_take(port: int) -> None:
    """And is not answered 408 for it."""
    with RawClient.connect(port) as client:
        assert client.ask(HEALTH).status == 200
        client.sock.settimeout(TRICKLE_SECONDS * 2)
        with pytest.raises(TimeoutError):
            client.read(1)
        assert client.ask(HEALTH).status == 200


@pytest.mark.parametrize("sent", [head(b"GET /health HTTP/1.1", b"Connection: close"), b"GET /health HTTP/1.0\r\n\r\n"])
def test_a_connection_that_is_to_close_is_closed(port: int, sent: bytes) -> None:
    """Also where more is sent behind the request: a reset must not take the answer away."""
    with RawClient.connect(port) as client:
        client.send(sent + b"behind" * 1000)
        assert client.answer().json()["status"] == "healthy"
        client.try_send(b"more" * 1000)
        assert client.read_to_end() == b""


def test_another_protocol_is_offered_and_not_taken(port: int) -> None:
    with RawClient.connect(port) as client:
        assert client.ask(head(b"GET /health HTTP/1.1", *H2C)).json()["status"] == "healthy"
        assert_refusal(client.ask(head(POST, *H2C, b"Content-Length: 5") + b"hello"), 405)
        assert_refusal(client.ask(head(POST, *H2C, CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"), 405)
        client.send(head(POST, *H2C, b"Content-Length: 5"))
        time.sleep(0.02)
        client.send(b"hel")
        time.sleep(0.02)
        client.send(b"lo" + HEALTH)
        assert_refusal(client.answer(), 405)
        assert client.answer().status == 200
        other = head(b"GET /health HTTP/1.1", b"Connection: Upgrade", b"Upgrade: TLS/1.0, foo")
        assert client.ask(other).status == 200


def test_many_requests_that_offer_another_protocol(port: int) -> None:
    with RawClient.connect(port) as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" * 600)
        for _ in range(600):
            assert client.answer().status == 200


def test_a_websocket_offered_to_the_web_app_closes_the_connection_and_says_so(port: int) -> None:
    with RawClient.connect(port) as client:
        answer = client.ask(upgrade(b"/health"))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.read_to_end() == b""


def test_expect_100_continue(port: int) -> None:
    with RawClient.connect(port) as client:
        client.send(head(POST, b"Expect: 100-continue", b"Content-Length: 3"))
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert_refusal(client.ask(b"abc"), 405)
        assert client.ask(HEALTH).status == 200


def test_leaving_in_the_middle_of_a_body(port: int, served: DaemonProcess) -> None:
    for _ in range(30):
        client = RawClient.connect(port)
        client.send(head(POST, b"Content-Length: 100") + b"abc")
        client.reset()
        client = RawClient.connect(port)
        client.send(STATS * 20)
        client.reset()
    assert served.stats()["status"] == "healthy"


@pytest.mark.parametrize("count", ["", "-1", "x", "1e3", "10001", "0" * 9 + "9" * 30, "0" * 5000, "\u0663"])
def test_a_bad_number_of_clients_is_refused(served: DaemonProcess, count: str) -> None:
    answer = httpx.get(f"{served.url}/api/realtime/stats", params={"clients": count}, trust_env=False)
    assert (answer.status_code, set(answer.json())) == (400, {"error", "detail", "hint"})
