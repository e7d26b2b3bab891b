"""A daemon that asks for tokens and logs every request, and clients and publishers who write what ends lines elsewhere.

A line of the log is one of the daemon's, an event of a stream is one that was published, a header one of ours. The
letters and the sinks one by one are in `tests/fuzz/test_injection.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote

import jwt

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, head, text, upgrade, wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.refusal import assert_refusal
from tests.fuzz.reading import as_lines, events_of, head_of, object_of
from tests.fuzz.test_injection import TEXTS

SECRET = "a secret of the tests that is longer than 32 bytes"
PARSED = [part for part in TEXTS if not set(part) & set("\r\n\0")]


def token(**claims: object) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + 300, "subscribe": ["*"], **claims}, SECRET, "HS256")


def ask(port: int, line: str, *headers: bytes, body: bytes = b"") -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer; a refusal is one as all are."""
    length = (b"Content-Length: %d" % len(body),) if body else ()
    with RawClient.connect(port) as client:
        client.send(head(line.encode(), b"Connection: close", *headers, *length) + body)
        whole = client.read_to_end()
    read, answered = head_of(whole)
    assert read["content-length"] == str(len(answered)) and object_of(answered)
    return int(whole.split(b" ", 2)[1]), read


def test_the_log_has_a_line_for_each_request(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, "--log-requests", "on", environ={"BROKER_AUTH_SECRET": SECRET})
    asked = 0
    good = b"Authorization: Bearer " + token().encode()
    for part in TEXTS:
        written, raw = quote(part), part.encode()
        for line in (
            f"GET /{written} HTTP/1.1",
            f"GET /api/stream?channel={written} HTTP/1.1",
            f"GET /api/stream?channel=a&userId={written} HTTP/1.1",
            f"GET /api/stream/render-progress/{written} HTTP/1.1",
            f"GET /api/realtime/explain?action=subscribe&channel={written} HTTP/1.1",
            f"GET /api/stream/council-score?lastEventId={written} HTTP/1.1",
        ):
            status, _ = ask(daemon.port, line, good)
            assert 400 <= status < 500, line
            asked += 1
        status, _ = ask(daemon.port, f"GET /health?token={written}&a={written} HTTP/1.1")
        assert status in (200, 400, 401)
        body = json.dumps({"channel": part, "event": {}, "user": None}, ensure_ascii=False).encode()
        assert ask(daemon.port, "POST /api/publish HTTP/1.1", good, body=body)[0] in (400, 403)
        asked += 2
        if part in PARSED:
            for name in (b"Origin", b"Idempotency-Key", b"Last-Event-ID", b"Cookie", b"X-Forwarded-For", b"User-Agent"):
                path = "/api/stream/council-score" if name == b"Last-Event-ID" else "/api/nothing"
                status, headers = ask(daemon.port, f"GET {path} HTTP/1.1", good, name + b": " + raw)
                assert 400 <= status < 500 and "set-cookie" not in headers
                asked += 1
        for name in ("sub", "jti"):
            bad = b"Authorization: Bearer " + token(**{name: part}).encode()
            assert ask(daemon.port, "GET /api/stream?channel=a HTTP/1.1", bad)[0] == 401
            asked += 1
    lines = wait_until(lambda: lines_of(daemon) if len(lines_of(daemon)) == asked else None)
    for line in lines:
        assert "hunter2" not in line and line.isprintable()
        entry = json.loads(line)
        assert entry["level"] == "info" and set(entry) <= {
            *("event", "level", "timestamp", "method", "target", "outcome", "client", "user", "seconds", "why")
        }


def lines_of(daemon: DaemonProcess) -> list[str]:
    """The lines of requests; a line ends wherever some reader may take it to end."""
    found = daemon.log().splitlines()
    assert all(line.startswith("{") and line.endswith("}") for line in found), found
    return [line for line in found if '"event": "request"' in line or '"event": "no request"' in line]


def test_what_is_published_is_one_event_for_each_client(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, "--type", "loose.validate=off", environ={"BROKER_AUTH_SECRET": SECRET})
    payloads = [part.encode() for part in TEXTS]
    payloads += [b'{\r\n"type":\r"a"\n,"b":%b}\r\n' % json.dumps(part, ensure_ascii=False).encode() for part in TEXTS]
    good = token().encode()
    with (
        RawClient.websocket(daemon.port, b"/ws?token=" + good) as socket,
        RawClient.connect(daemon.port) as stream,
        redis_server.client() as redis,
    ):
        socket.send(text({"type": "subscribe", "channel": "loose:1"}))
        assert socket.frame().json()["type"] == "subscribed"
        stream.send(head(b"GET /api/stream?channel=loose:1 HTTP/1.0", b"Authorization: Bearer " + good))
        head_of(stream.read_until(b"\r\n\r\n"))
        assert b'"connected"' in stream.read_until(b"\n\n")
        for payload in payloads:
            redis.publish("loose:1", payload)
        for payload in payloads:
            assert socket.frame().payload == payload
        read = b""
        while len(found := events_of(read)) < len(payloads):
            read += stream.read_until(b"\n\n")
        assert found == [{"data": as_lines(payload)} for payload in payloads]


def test_the_handshake_answers_with_headers_of_ours_alone(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, environ={"BROKER_AUTH_SECRET": SECRET})
    for part in PARSED:
        with RawClient.connect(daemon.port) as client:
            client.send(upgrade(b"/ws", b"Sec-WebSocket-Protocol: broker.v1, bearer." + part.encode()))
            answer = client.answer()
            assert_refusal(answer, answer.status)
            assert answer.status in (400, 401)
        with RawClient.connect(daemon.port) as client:
            client.send(upgrade(b"/ws", b"Origin: https://a" + part.encode()))
            answer = client.answer()
            assert_refusal(answer, answer.status)
            assert answer.status in (400, 403)
