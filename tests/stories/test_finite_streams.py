"""A stream that has an end: its last event, `complete` once, nothing behind it, and 204 for who comes back."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable

import httpx
import httpx_sse
import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer

RENDERING = b'{"type":"video_render_progress","jobId":"7","stage":"rendering"}'
COMPLETE = b'{"type":"video_render_progress","jobId":"7","stage":"complete","note":"\\ud800"}'


def stream(port: int, *, version: str = "1.1") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.settimeout(10)
    sock.sendall(f"GET /api/stream/render-progress/7 HTTP/{version}\r\nHost: h\r\n\r\n".encode())
    return sock


def read_to_end(sock: socket.socket, *, seconds_between: float = 0.0, size: int = 1 << 16) -> bytes:
    parts = []
    while data := sock.recv(size):
        parts.append(data)
        time.sleep(seconds_between)
    return b"".join(parts)


def wait_for_stream(daemon: DaemonProcess, count: int = 1) -> None:
    wait_until(lambda: daemon.stats()["channels"]["totalSubscriptions"] == count)


NO_HISTORY = ["--type", "video_render.history_length=0"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_it_ends_after_its_last_event_and_answers_204_then(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], version: str
) -> None:
    daemon = start_daemon(redis_server.url, *NO_HISTORY)
    with stream(daemon.port, version=version) as sock:
        wait_for_stream(daemon)
        redis_server.publish("video_render:7", RENDERING, COMPLETE, RENDERING)
        raw = read_to_end(sock)
    assert raw.endswith(b"0\r\n\r\n") == (version == "1.1")
    assert (raw.count(RENDERING), raw.count(b"event: complete\n")) == (1, 1)
    assert raw.count(b"data: " + COMPLETE) == 1
    with httpx.Client(trust_env=False) as http:
        assert http.get(f"{daemon.url}/api/stream/render-progress/7").status_code == 204
        again = http.get(f"{daemon.url}/api/stream/render-progress/8", headers={"Last-Event-ID": "end"})
        assert again.status_code == 204
    assert daemon.stats()["delivery"]["endings"] == {"complete": 1}


def test_with_history_who_had_the_last_event_is_told_to_stop_and_a_late_page_sees_it(
    redis_server: RedisServer, daemon: DaemonProcess
) -> None:
    with stream(daemon.port) as sock:
        wait_for_stream(daemon)
        redis_server.publish("video_render:7", RENDERING, RENDERING, COMPLETE, RENDERING)
        raw = read_to_end(sock)
    assert (raw.count(RENDERING), raw.count(COMPLETE), raw.count(b"event: complete\n")) == (2, 2, 1)
    ids = re.findall(rb"^id: (\S+)$", raw, re.M)
    begin, first, _, last, end = (id.decode() for id in ids)
    assert end == "end"
    url = f"{daemon.url}/api/stream/render-progress/7"
    with httpx.Client(trust_env=False, timeout=10) as http:
        for id in (last, end):
            assert http.get(url, headers={"Last-Event-ID": id}).status_code == 204
            assert http.get(url, params={"lastEventId": id}).status_code == 204
    for id, seen in ((begin, 2), (first, 1)):
        # Each on a connection of its own: the daemon closes that of a stream that is over, sooner or later.
        rest = httpx.get(url, headers={"Last-Event-ID": id}, trust_env=False, timeout=10)
        assert (rest.content.count(RENDERING), rest.content.count(b"event: complete\n")) == (seen, 1)
    # Somebody opens the page when all is over.
    redis_server.publish("video_render:8", COMPLETE)
    wait_until(lambda: b"broker:history:{video_render:8}:top" in keys(redis_server))
    with httpx.Client(trust_env=False, timeout=10) as http:
        late = http.get(f"{daemon.url}/api/stream/render-progress/8")
        assert (late.content.count(COMPLETE), late.content.count(b"event: complete\n")) == (2, 1)


def keys(redis_server: RedisServer) -> list[bytes]:
    with redis_server.client() as client:
        found: list[bytes] = client.keys("*")
        return found


def test_a_client_reads_the_complete_event(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    with (
        httpx.Client(trust_env=False) as http,
        httpx_sse.connect_sse(http, "GET", f"{daemon.url}/api/stream/render-progress/7") as source,
    ):
        events = source.iter_sse()
        next(events)
        redis_server.publish("video_render:7", b'{"stage":"complete"}')
        assert next(events).json() == {"stage": "complete"}
        end = next(events)
        assert (end.event, end.json()["type"], end.json()["data"]) == ("complete", "complete", {"stage": "complete"})
        assert list(events) == []


def test_a_slow_reader_gets_the_end_too(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    """Slower than `farewell_seconds` for what is queued, and within every bound."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.connect(("127.0.0.1", daemon.port))
        sock.settimeout(10)
        sock.sendall(b"GET /api/stream/render-progress/7 HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_for_stream(daemon)
        filler = b'{"stage":"rendering","filler":"' + b"x" * 60_000 + b'"}'
        for _ in range(60):
            redis_server.publish("video_render:7", filler)
        redis_server.publish("video_render:7", b'{"stage":"complete"}')
        raw = read_to_end(sock, seconds_between=0.004, size=4096)
    assert raw.count(b"event: complete\n") == 1
    assert raw.endswith(b"0\r\n\r\n")
