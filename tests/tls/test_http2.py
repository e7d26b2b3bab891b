"""HTTP/2: every path answers as over HTTP/1.1, streams have their own fate, and the end is said."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import descriptors_of, wait_until
from tests.actors.redis_server import RedisServer
from tests.tls.certificates import Authority
from tests.tls.http2_client import Http2Client, StreamSeen


@pytest.fixture
def client(tls_daemon: DaemonProcess, tls_authority: Authority) -> Any:
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:
        yield client


def test_httpx(tls_daemon: DaemonProcess, tls_redis: RedisServer, tls_authority: Authority) -> None:
    base = f"https://localhost:{tls_daemon.port}"
    with httpx.Client(http2=True, verify=tls_authority.client_context(), base_url=base) as web:
        answer = web.get("/health")
        assert (answer.http_version, answer.status_code, answer.json()["status"]) == ("HTTP/2", 200, "healthy")
        assert web.get("/no/such/path").status_code == 404
        assert web.head("/health").content == b""
        published = web.post("/api/publish", json={"channel": "alerts:a", "event": {"type": "note"}})
        assert (published.http_version, published.status_code) == ("HTTP/2", 200)
        with web.stream("GET", "/api/stream?channel=alerts:a") as stream, tls_redis.client() as redis:
            assert stream.http_version == "HTTP/2"
            lines = stream.iter_lines()
            while '"connected"' not in next(lines):
                pass
            redis.publish("alerts:a", '{"type":"alert"}')
            assert next(line for line in lines if line.startswith("data: ")) == 'data: {"type":"alert"}'


def test_both_protocols_answer_the_same(
    tls_daemon: DaemonProcess, tls_authority: Authority, client: Http2Client
) -> None:
    requests: list[tuple[str, str, bytes | None]] = [
        ("GET", "/health", None),
        ("GET", "/nowhere", None),
        ("DELETE", "/api/stream?channel=a", None),
        ("GET", "/api/stream", None),
        ("GET", "/api/stream?channel=%ff", None),
        ("GET", "/ws", None),
        ("POST", "/api/publish", b"{"),
        ("POST", "/api/publish", b'{"channel": "a b", "event": {}}'),
        ("OPTIONS", "/api/stream", None),
        ("GET", "/api/stream/council-score", None),
    ]
    base = f"https://localhost:{tls_daemon.port}"
    ignored = {"date", "connection", "content-length", ":status", "keep-alive", "upgrade"}

    def body_of(data: bytes) -> Any:
        return re.sub(rb'"timestamp":"[^"]*"', b"", data)

    with httpx.Client(verify=tls_authority.client_context(), base_url=base) as web:
        for method, path, body in requests:
            more = [("content-type", "application/json")] if body else []
            old = web.request(method, path, content=body, headers={"Accept": "*/*", **dict(more)})
            new = client.answer(client.ask(path, ("accept", "*/*"), *more, method=method, body=body))
            assert (method, path, new.status) == (method, path, old.status_code)
            assert {name: value for name, value in new.headers.items() if name not in ignored} == {
                name: value for name, value in old.headers.items() if name not in ignored
            }
            assert body_of(bytes(new.data)) == body_of(old.content)


def test_a_hundred_streams_on_one_connection(
    client: Http2Client, tls_redis: RedisServer, tls_daemon: DaemonProcess
) -> None:
    assert client.get("/health").status == 200
    before = descriptors_of(tls_daemon.process.pid)
    names = [f"bench:{number}" for number in range(100)]
    ids = client.subscribe(*names)
    with tls_redis.client() as redis:
        for turn in range(10):
            for number, name in enumerate(names):
                redis.publish(name, json.dumps({"type": "alert", "n": number, "turn": turn}))
        expected = [[{"type": "alert", "n": number, "turn": turn} for turn in range(10)] for number in range(100)]
        client.pump(lambda: [client.streams[id].events() for id in ids] == expected)
        # Half of them leave; the others go on, and there is room again.
        for id in ids[:50]:
            client.h2.reset_stream(id, ErrorCodes.CANCEL)
        client.flush()
        wait_until(lambda: client.get("/health").status == 200)
        redis.publish(names[99], '{"type":"alert","n":99,"turn":10}')
        client.pump(lambda: len(client.streams[ids[99]].events()) == 11)
    for id in ids[50:]:
        client.h2.reset_stream(id, ErrorCodes.CANCEL)
    client.flush()
    wait_until(lambda: descriptors_of(tls_daemon.process.pid) <= before)


def test_what_is_announced(client: Http2Client) -> None:
    client.get("/health")
    assert client.settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 100
    # Else browsers would send WebSockets here instead of over a connection of HTTP/1.1.
    assert client.settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL, 0) == 0
    assert client.settings.get(SettingCodes.ENABLE_PUSH, 0) == 0


def test_a_websocket_is_sent_to_http_1(client: Http2Client) -> None:
    answer = client.answer(client.ask("/ws", (":protocol", "websocket"), method="CONNECT", ends=False))
    assert answer.reset == ErrorCodes.HTTP_1_1_REQUIRED
    assert client.get("/health").status == 200


def test_bodies_of_any_framing(client: Http2Client) -> None:
    event = json.dumps({"channel": "alerts:a", "event": {"type": "note", "fill": "x" * 30_000}}).encode()
    ids = []
    for with_length in (True, False):
        more = [("content-length", str(len(event)))] if with_length else []
        id = client.ask("/api/publish", ("content-type", "application/json"), *more, method="POST", ends=False)
        for at in range(0, len(event), 7000):
            client.h2.send_data(id, event[at : at + 7000], pad_length=at % 100)
            client.h2.send_data(id, b"")
            client.flush()
        client.h2.end_stream(id)
        client.flush()
        ids.append(id)
    assert [client.answer(id).status for id in ids] == [200, 200]
    assert client.answer(client.ask("/api/publish", method="POST", body=b"")).status == 400


def test_more_of_a_body_than_a_window_comes_through_and_more_than_the_bound_is_refused(client: Http2Client) -> None:
    def upload(size: int) -> StreamSeen:
        id = client.ask("/api/publish", ("content-type", "application/json"), method="POST", ends=False)
        left, seen = size, client.streams[id]
        while left and not seen.is_ended and seen.reset is None:
            room = min(left, client.h2.local_flow_control_window(id), 16_384)
            if room:
                client.h2.send_data(id, b" " * room)
                client.flush()
                left -= room
            else:
                client.read(0.05)
        if not left:
            client.h2.end_stream(id)
            client.flush()
        client.pump(lambda: seen.status and (seen.is_ended or seen.reset is not None))
        return seen

    assert upload(900_000).status == 400  # spaces are no JSON
    assert upload(3_000_000).status == 413
    # The window of the connection is whole again, whatever was thrown away.
    for _ in range(3):
        assert upload(900_000).status == 400


def test_fields_that_cannot_be_a_head_never_reach_it(tls_daemon: DaemonProcess, tls_authority: Authority) -> None:
    bad: list[tuple[str, list[tuple[str, str]]]] = [
        ("/health\r\nX-Evil: 1", []),
        ("/health HTTP/1.1", []),
        ("/he\0alth", []),
        ("health", []),
        ("", []),
        ("/health", [("x-a", "1\r\nx-evil: 1")]),
        ("/health", [("x-a", "1\nx-evil: 1")]),
        ("/health", [("x-a", "\0")]),
        ("/health", [("x-a\r\nx-evil", "1")]),
        ("/health", [("x a", "1")]),
        ("/health", [("x:a", "1")]),
        ("/health", [("transfer-encoding", "chunked")]),
        ("/health", [("connection", "upgrade")]),
        ("/health", [("upgrade", "websocket")]),
        ("/health", [("host", "another")]),
        ("/health", [(":path", "/twice")]),
    ]
    for path, more in bad:
        with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:
            id = client.ask(path, *more)
            seen = client.streams[id]
            client.pump(lambda client=client, seen=seen: seen.reset is not None or seen.status or client.is_closed)
            assert seen.status in (0, 400), (path, more)
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:
        # What is bytes and no more stays it: nothing is read as a second request.
        seen = client.get("/health", ("x-a", "GET / HTTP/1.1"), ("cookie", "a=1"), ("cookie", "b=2"))
        assert (seen.status, seen.is_ended) == (200, True)


def test_a_large_head_is_answered_and_a_huge_one_ends_the_connection(
    tls_daemon: DaemonProcess, tls_authority: Authority
) -> None:
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:
        assert client.get("/health", ("x-a", "a" * 12_000)).status == 200
        assert client.get("/health", *((f"x-{n}", "a" * 3_000) for n in range(6))).status == 431
        assert client.get("/health").status == 200
        client.ask("/health", *((f"x-{n}", "a" * 3_000) for n in range(30)))
        client.await_close()
        assert client.goaway is not None


def test_an_answer_that_is_cut_is_a_reset_and_a_stream_that_ends_is_an_end(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority, tls_redis: RedisServer
) -> None:
    daemon = start_tls_daemon({"DAEMON_DRAIN_SECONDS": "1"})
    context = authority.client_context("h2")
    with (
        Http2Client.connect(daemon.port, context) as client,
        Http2Client.connect(daemon.port, context, reads=False) as stuck,
        tls_redis.client() as redis,
    ):
        finite = client.ask("/api/stream/render-progress/1")
        endless = client.subscribe("bench:a")[0]
        client.pump(lambda: b'"connected"' in client.streams[finite].data)
        never_read = stuck.subscribe("bench:b")[0]
        redis.publish("video_render:1", '{"type":"video_render_progress","stage":"complete"}')
        seen = client.answer(finite)
        assert (seen.is_ended, seen.reset) == (True, None)
        assert b"event: complete" in seen.data

        # Its window is full, and more waits behind it.
        for number in range(8):
            redis.publish("bench:b", json.dumps({"type": "alert", "n": number, "fill": "x" * 60_000}))
        stuck.pump(lambda: len(stuck.streams[never_read].data) > 60_000)
        assert client.get("/health").status == 200
        begun = time.monotonic()
        daemon.process.terminate()
        seen = client.answer(endless)
        assert (seen.is_ended, seen.reset) == (True, None)
        assert b'"server_shutdown"' in seen.data
        client.await_close()
        assert (client.goaway, client.last_stream_id) == (ErrorCodes.NO_ERROR, max(client.streams))
        stuck.await_close()
        assert not stuck.streams[never_read].is_ended
        # Not `stop`: a second SIGTERM may come when no handler is left any more.
        assert daemon.process.wait(5) == 0
        assert time.monotonic() - begun < 5.0


def test_a_stream_that_is_not_read_is_ended_alone(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority, tls_redis: RedisServer
) -> None:
    daemon = start_tls_daemon({"CLIENTS_OUTBOX_MAX_AGE_SECONDS": "0.5", "CLIENTS_PATIENCE_SECONDS": "1"})
    with (
        Http2Client.connect(daemon.port, authority.client_context("h2"), reads=False) as client,
        tls_redis.client() as redis,
    ):
        slow, quick = client.subscribe("bench:slow", "bench:quick")
        for number in range(12):
            redis.publish("bench:slow", json.dumps({"type": "alert", "n": number, "fill": "x" * 60_000}))
        client.pump(lambda: len(client.streams[slow].data) >= 60_000)
        # The connection has room again, but this one stream has not.
        client.h2.increment_flow_control_window(10_000_000)
        client.flush()
        redis.publish("bench:quick", '{"type":"alert"}')
        client.pump(lambda: client.streams[quick].events() == [{"type": "alert"}])
        seen = client.answer(slow)
        assert (seen.is_ended, seen.reset) == (False, ErrorCodes.INTERNAL_ERROR)
        redis.publish("bench:quick", '{"type":"alert"}')
        client.pump(lambda: len(client.streams[quick].events()) == 2)

        def endings() -> Any:
            stats = client.get("/api/realtime/stats")
            return json.loads(bytes(stats.data))["sse"]["totalConnections"]

        wait_until(lambda: endings() == 1)


def test_an_idle_connection_is_closed_and_one_with_a_stream_is_not(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority
) -> None:
    daemon = start_tls_daemon({"LISTEN_IDLE_SECONDS": "0.5", "LISTEN_HEAD_SECONDS": "1"})
    context = authority.client_context("h2")
    with (
        Http2Client.connect(daemon.port, context) as idle,
        Http2Client.connect(daemon.port, context) as streaming,
        Http2Client.connect(daemon.port, context, greets=False) as silent,
    ):
        streaming.subscribe("bench:a")
        begun = time.monotonic()
        while idle.goaway is None:
            assert time.monotonic() - begun < 5.0
            idle.h2.ping(b"iamalive")  # a ping is no request
            idle.flush()
            for _ in range(2):  # its answer, and a moment of nothing
                idle.read(0.05)
        assert idle.goaway == ErrorCodes.NO_ERROR
        silent.await_close()
        assert streaming.get("/health").status == 200


def test_a_version_of_tls_and_a_protocol_that_both_speak(
    tls_daemon: DaemonProcess, tls_authority: Authority, tmp_path: Path
) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = tls_authority.client_context("h2", "http/1.1", version=version)
        with Http2Client.connect(tls_daemon.port, context) as client:
            assert client.get("/health").status == 200
            assert client.sock.version() == version.name.replace("_", ".")
