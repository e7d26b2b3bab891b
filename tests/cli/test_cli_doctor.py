"""`broker doctor`: green where all is well, and where not it says what is wrong and what to do."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner

from broker import __version__
from broker.cli import doctor
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer, free_port
from tests.conftest import errors_of

CHECKS = [
    "connect",
    "tls",
    "health",
    "origin",
    "authentication",
    "stats",
    "websocket",
    "ws subscribe",
    "ws ping",
    "ws close",
    "sse stream",
    "sse render-progress",
    "sse campaign-metrics",
    "sse ab-test-results",
    "sse council-score",
    "sse evaluate-creative",
    "publish",
    "ws events",
    "sse events",
]
LONG_STREAMS = ["sse stream", "sse render-progress", "sse campaign-metrics", "sse ab-test-results"]
BUFFERED = (
    "switch buffering and compression of text/event-stream off in the proxy in between; nginx: proxy_buffering off"
)
REFUSED = "asked without parameters: refused as it should be (whether a worker runs is not tried)"
LATE = "see whether the daemon is stopped or stuck (its log); if it is only slow, raise --timeout-seconds"
Shared = tuple[RedisServer, DaemonProcess]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A Redis and a daemon for all tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("shared")
    redis_server = RedisServer(folder)
    redis_server.start()
    daemon = DaemonProcess(redis_server.url, folder / "daemon.log", ("--log-format", "json"))
    daemon.start()
    yield redis_server, daemon
    daemon.stop()
    redis_server.kill()
    assert errors_of(daemon) == []


class Report:
    """What `broker doctor --json` said."""

    def __init__(self, *arguments: str) -> None:
        done = CliRunner().invoke(doctor.command, [*arguments, "--json"], env={"BROKER_URL": None})
        assert not done.exception or isinstance(done.exception, SystemExit), done.exc_info
        body = json.loads(done.stdout)
        self.status = done.exit_code
        self.url = body["url"]
        self.checks: dict[str, Any] = {each["check"]: each for each in body["checks"]}
        assert body["healthy"] is (done.exit_code == 0)
        assert list(self.checks) == CHECKS

    def with_verdict(self, verdict: str) -> list[str]:
        return [name for name, each in self.checks.items() if each["verdict"] == verdict]

    def said(self, name: str) -> tuple[str, str, str]:
        each = self.checks[name]
        return each["verdict"], each["text"], each["advice"]


@contextmanager
def proxy(
    port: int,
    *,
    request: Callable[[bytes], bytes] = bytes,
    answer: Callable[[bytes], bytes] = bytes,
    hold_after: int | None = None,
    hold_head: bool = False,
) -> Iterator[str]:
    """A proxy in front of `port`; yields its URL.

    Args:
        request: changes a request's head. One request a connection.
        answer: changes the first piece of an answer.
        hold_after: events of a stream that go through, behind its head; the rest is held until the stream ends.
        hold_head: of such a stream nothing goes through.
    """
    sockets: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as upstream:
            sockets.append(upstream)
            head = client.recv(65536)
            if b"pgrade: websocket" not in head:
                head = re.sub(rb"(?i)connection: keep-alive", b"Connection: close", head)
            upstream.sendall(request(head))
            threading.Thread(target=copy, args=(client, upstream), daemon=True).start()
            most = hold_after if hold_after is not None and b"/api/stream" in head else sys.maxsize
            events, kept, change, is_begun = 0, b"", answer, hold_head
            while piece := change(upstream.recv(65536)):
                change = bytes
                if not is_begun:
                    # The daemon sends a head in one piece.
                    begin, end, piece = piece.partition(b"\r\n\r\n")
                    client.sendall(begin + end)
                    is_begun = True
                if events < most:
                    client.sendall(piece)
                    events += piece.count(b"\n\n")
                else:
                    kept += piece
            client.sendall(kept)

    def copy(client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                upstream.sendall(data)
            upstream.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for upstream in sockets:
                with suppress(OSError):
                    upstream.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_green_as_a_person_sees_it(shared: Shared) -> None:
    _, daemon = shared
    done = subprocess.run(
        [sys.executable, "-m", "broker", "doctor", daemon.url], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    number = r"\d+\.\d ms"
    patterns = [
        rf"connect               {daemon.url}, \d+ ms",
        r"tls                   none: the URL is http, \d+ ms",
        rf"health                healthy, version {re.escape(__version__)}, \d+ ms",
        r"origin                a page of another site is refused, \d+ ms",
        r"authentication        off: nobody needs a token, \d+ ms",
        r"stats                 healthy, \d+ clients?, \d+ ms",
        r"websocket             connected as ws_[0-9a-f]{16}, \d+ ms",
        r"ws subscribe          subscribed, \d+ ms",
        r"ws ping               pong, \d+ ms",
        r"ws close              closed with code 1000, \d+ ms",
        r"sse stream            connected, \d+ ms",
        r"sse render-progress   connected, \d+ ms",
        r"sse campaign-metrics  connected, \d+ ms",
        r"sse ab-test-results   connected, \d+ ms",
        rf"sse council-score     {re.escape(REFUSED)}, \d+ ms",
        rf"sse evaluate-creative {re.escape(REFUSED)}, \d+ ms",
        r"publish               5 events through POST /api/publish",
        rf"ws events             5 of 5 in order, latency min {number}, median {number}",
        rf"sse events            5 of 5 in order, latency min {number}, median {number}",
    ]
    *lines, last = done.stdout.splitlines()
    assert last == "19 checks, all ok"
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(f"ok   {pattern}", line), line


def test_green_through_redis_and_nothing_is_left_behind(shared: Shared) -> None:
    redis_server, daemon = shared
    before = daemon.stats()["redis"]["messages"]
    report = Report(daemon.url, "--redis", redis_server.url)
    assert (report.status, report.with_verdict("ok"), report.url) == (0, CHECKS, daemon.url)
    assert report.checks["publish"]["text"] == "5 events through Redis"
    assert 0 < report.checks["ws events"]["milliseconds"] < 1000
    wait_until(lambda: daemon.stats()["channels"]["totalSubscriptions"] == 0)
    stats = daemon.stats()
    # Each comes plainly, is recorded, and comes again with its stamp.
    assert stats["redis"]["messages"] == before + 2 * 5
    assert (stats["websocket"]["totalConnections"], stats["sse"]["totalConnections"]) == (0, 0)


def test_green_with_the_embedded_redis_and_a_prefix(start_daemon: Callable[..., DaemonProcess]) -> None:
    port = free_port()
    daemon = start_daemon(
        None, "--dev", "--embedded-port", str(port), "--redis-channel-prefix", "app:", "--channels-undeclared", "refuse"
    )
    url = f"redis://127.0.0.1:{port}/0"
    report = Report(f"ws://127.0.0.1:{daemon.port}/ws", "--redis", url, "--channel-prefix", "app:")
    assert (report.status, report.with_verdict("ok"), report.url) == (0, CHECKS, daemon.url)
    report = Report(daemon.url, "--redis", url, "--timeout-seconds", "0.3")
    assert (report.status, report.with_verdict("fail")) == (1, ["ws events", "sse events"])
    assert report.said("ws events") == (
        "fail",
        "0 of 1 came within 0.3 s each: nobody is subscribed to them in that Redis",
        "it is not the daemon's: correct --redis, or give its redis.channel_prefix as --channel-prefix",
    )


def test_nothing_listens() -> None:
    url = f"http://localhost:{free_port()}"
    report = Report(url)
    assert (report.status, report.with_verdict("fail"), report.with_verdict("skip")) == (1, CHECKS[:1], CHECKS[1:])
    assert report.said("connect") == (
        "fail",
        "connection refused: nothing listens there",
        "start the daemon with `broker serve`, or correct the URL",
    )
    done = CliRunner().invoke(doctor.command, env={"BROKER_URL": url})
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "FAIL connect               connection refused: nothing listens there",
        "                           start the daemon with `broker serve`, or correct the URL",
        "skip 18 other checks       the daemon cannot be reached",
        "1 of 19 failed",
    ]


def test_a_daemon_that_is_frozen(daemon: DaemonProcess) -> None:
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        report = Report(daemon.url, "--timeout-seconds", "0.3")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert report.with_verdict("ok") == ["connect", "tls"]
    assert report.said("origin") == report.said("authentication") == ("skip", "see what health says", "")
    for name in ("health", "stats", "websocket", *LONG_STREAMS, "sse council-score", "sse evaluate-creative"):
        assert report.said(name) == ("fail", "no answer within 0.3 s", LATE)
    assert report.said("publish") == ("skip", "nobody could be subscribed", "")


def test_no_such_host() -> None:
    assert Report("http://nothing.invalid:1").said("connect")[2] == "correct the host in the URL"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://u:p@a", "http://a?x=1", "http://a:99999", ""])
def test_what_is_no_url(url: str) -> None:
    done = CliRunner().invoke(doctor.command, [url])
    assert done.exit_code == 2
    assert "not the URL of a broker; write http://HOST:PORT" in done.stderr


def test_what_is_no_redis() -> None:
    done = CliRunner().invoke(doctor.command, ["http://127.0.0.1:1", "--redis", "http://:hunter2@a"])
    assert done.exit_code == 2
    assert "must start with redis://" in done.stderr
    assert "hunter2" not in done.stderr


class _Pages(BaseHTTPRequestHandler):
    """A web server that is no broker."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(404 if self.path != "/health" else 200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *_: object) -> None:
        pass


def test_another_web_server() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            report = Report(f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
    advice = "correct the URL, or let the proxy in front of the daemon pass this path on"
    nobody = "HTTP 404 with text/html: no broker answers there"
    assert report.status == 1
    assert report.said("connect")[0] == "ok"
    assert report.said("health") == ("fail", "what answers /health is no broker", advice)
    assert report.said("stats") == report.said("sse stream") == ("fail", nobody, advice)
    assert report.said("sse council-score") == ("fail", nobody, advice)
    assert report.said("websocket")[1] == "HTTP 404 to the WebSocket handshake: no broker is at that path"
    assert report.with_verdict("skip") == [
        "origin",
        "authentication",
        "ws subscribe",
        "ws ping",
        "ws close",
        "publish",
        "ws events",
        "sse events",
    ]


def test_what_is_no_web_server_at_all(redis_server: RedisServer) -> None:
    report = Report(f"http://127.0.0.1:{redis_server.port}", "--timeout-seconds", "1")
    verdict, text, advice = report.said("health")
    assert (verdict, text.partition(":")[0]) == ("fail", "what answers there does not speak HTTP")
    assert advice == "correct the port in the URL; write https:// if that port speaks TLS"
    assert report.with_verdict("ok") == ["connect", "tls"]


def test_a_port_without_tls(shared: Shared) -> None:
    _, daemon = shared
    report = Report(daemon.url.replace("http", "https"))
    verdict, text, advice = report.said("connect")
    assert (verdict, advice) == ("fail", "write http:// if that port speaks no TLS")
    assert text.startswith("TLS fails: ")


@pytest.fixture
def tls_port(shared: Shared) -> Iterator[tuple[int, trustme.CA]]:
    """A proxy that speaks TLS, with a certificate for localhost."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    stopping = threading.Event()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def serve(raw: socket.socket) -> None:
        with suppress(OSError), raw, socket.create_connection(("127.0.0.1", shared[1].port)) as upstream:
            with context.wrap_socket(raw, server_side=True) as client:
                other = threading.Thread(target=pump, args=(upstream, client), daemon=True)
                other.start()
                pump(client, upstream)
                other.join(5)

    def accept() -> None:
        with suppress(OSError):
            while not stopping.is_set():
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], authority
        stopping.set()
        listener.shutdown(socket.SHUT_RDWR)


def test_over_tls(
    tls_port: tuple[int, trustme.CA], tmp_path: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, authority = tls_port
    report = Report(f"https://localhost:{port}")
    verdict, text, advice = report.said("connect")
    assert (verdict, text.partition(":")[0]) == ("fail", "its certificate is refused")
    assert advice == "use the host name that the certificate has, renew it, or name its authority with SSL_CERT_FILE"
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    report = Report(f"wss://localhost:{port}", "--redis", shared[0].url)
    assert (report.status, report.with_verdict("ok")) == (0, CHECKS)


def test_redis_away(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    redis_server.kill()
    wait_until(lambda: daemon.stats()["status"] == "degraded")
    report = Report(daemon.url)
    verdict, text, advice = report.said("stats")
    assert verdict == "fail"
    assert re.fullmatch(r"degraded: heard nothing from Redis since \d\d:\d\d:\d\d \(\d+ s\)", text), text
    assert advice == (
        "start Redis, or correct redis.url (`broker config show` says it): the daemon reconnects by itself; "
        "but a daemon whose embedded Valkey has ended must be restarted (its log says so)"
    )
    assert report.said("ws subscribe")[1].startswith("upstream_unavailable: ")
    assert report.said("ws ping")[0] == report.said("ws close")[0] == "ok"
    for name in LONG_STREAMS:
        assert report.said(name) == ("fail", "the daemon waits for Redis", "see what stats says")
    for name in ("sse council-score", "sse evaluate-creative"):
        assert report.said(name) == ("skip", "evaluations need Redis; see what stats says", "")
    assert report.said("publish") == ("skip", "nobody could be subscribed", "")
    assert report.status == 1


def test_redis_frozen(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    redis_server.freeze()
    try:
        report = Report(daemon.url, "--timeout-seconds", "0.5")
    finally:
        redis_server.thaw()
    # The daemon has not noticed yet.
    assert report.said("stats")[0] == "ok"
    assert report.said("ws subscribe") == (
        "fail",
        "Redis does not confirm the subscription",
        "see whether Redis answers: redis-cli PING; stats says it soon",
    )
    for name in LONG_STREAMS:
        assert report.said(name) == (
            "fail",
            "no first event within 0.5 s: Redis does not confirm the subscription",
            "see whether Redis answers",
        )
    assert report.said("ws ping")[0] == report.said("sse council-score")[0] == "ok"


def test_a_proxy_that_takes_upgrade_away(shared: Shared) -> None:
    redis_server, daemon = shared

    def strip(head: bytes) -> bytes:
        return re.sub(rb"(?im)^(upgrade|connection): .*\r\n", b"", head)

    with proxy(daemon.port, request=strip) as url:
        report = Report(url, "--redis", redis_server.url)
    verdict, text, advice = report.said("websocket")
    assert (verdict, text) == ("fail", "a proxy in between takes the Upgrade header away (HTTP 426)")
    assert "proxy_set_header Upgrade $http_upgrade" in advice
    assert report.said("ws subscribe") == ("skip", "there is no WebSocket", "")
    assert report.said("ws events") == ("skip", "it could not be subscribed", "")
    assert report.said("sse events")[0] == "ok"
    assert report.with_verdict("fail") == ["websocket"]


def test_a_proxy_that_holds_streams_back(shared: Shared) -> None:
    redis_server, daemon = shared
    with proxy(daemon.port, hold_after=0) as url:
        report = Report(url, "--redis", redis_server.url, "--timeout-seconds", "0.5")
    for name in LONG_STREAMS:
        assert report.said(name) == (
            "fail",
            "no first event within 0.5 s, though a WebSocket is subscribed: something in between buffers the stream",
            BUFFERED,
        )
    assert report.with_verdict("fail") == LONG_STREAMS
    # These end, so nothing of them is held back.
    assert report.said("sse council-score")[0] == "ok"
    assert (report.said("ws events")[0], report.said("sse events")[0]) == ("ok", "skip")


def test_a_proxy_that_holds_streams_back_and_takes_upgrade_away(shared: Shared) -> None:
    with proxy(shared[1].port, request=lambda head: head.replace(b"pgrade: websocket", b""), hold_after=0) as url:
        report = Report(url, "--timeout-seconds", "0.5")
    assert report.said("sse stream")[:2] == (
        "fail",
        "no first event within 0.5 s: something in between buffers the stream, or Redis does not answer",
    )
    assert report.said("publish") == ("skip", "nobody could be subscribed", "")


def test_a_proxy_that_holds_back_heads(shared: Shared) -> None:
    redis_server, daemon = shared
    with proxy(daemon.port, hold_after=0, hold_head=True) as url:
        report = Report(url, "--redis", redis_server.url, "--timeout-seconds", "0.5")
    for name in LONG_STREAMS:
        assert report.said(name) == (
            "fail",
            "no answer within 0.5 s, not even its head, though /health is answered",
            f"look into the daemon's log; a proxy may hold back heads too: {BUFFERED}",
        )
    assert report.with_verdict("fail") == LONG_STREAMS


def test_a_proxy_that_holds_back_what_follows_the_first_event(shared: Shared) -> None:
    redis_server, daemon = shared
    with proxy(daemon.port, hold_after=1) as url:
        report = Report(url, "--redis", redis_server.url, "--timeout-seconds", "0.5")
    assert report.with_verdict("fail") == ["sse events"]
    assert report.said("sse events") == (
        "fail",
        "0 of 5 came within 0.5 s each, while others had all: something in between buffers the stream",
        BUFFERED,
    )


def test_a_proxy_that_changes_headers(shared: Shared) -> None:
    redis_server, daemon = shared

    def compress(piece: bytes) -> bytes:
        return piece.replace(b"X-Accel-Buffering: no", b"Content-Encoding: br")

    with proxy(daemon.port, answer=lambda piece: piece.replace(b", no-transform", b"")) as url:
        report = Report(url, "--redis", redis_server.url)
    assert report.said("sse stream")[1] == "a proxy in between takes no-transform out of Cache-Control"
    with proxy(daemon.port, answer=lambda piece: re.sub(rb"X-Accel-Buffering: no\r\n", b"", piece)) as url:
        report = Report(url, "--redis", redis_server.url)
    assert report.said("sse stream")[1].startswith("connected through a proxy, ")
    assert report.status == 0
    with proxy(
        daemon.port, answer=lambda piece: piece.replace(b"X-Accel-Buffering: no", b"Content-Encoding: br")
    ) as url:
        report = Report(url, "--redis", redis_server.url)
    assert report.said("sse stream") == ("fail", "a proxy in between compresses the stream (br)", BUFFERED)


def test_publishing_refused(shared: Shared, start_daemon: Callable[..., DaemonProcess]) -> None:
    _, daemon = shared
    advice = (
        "give --redis URL: then the event goes through Redis, as services publish; or a token that may publish "
        "job_progress:*, with --token"
    )
    with proxy(daemon.port, request=lambda head: head.replace(b"\r\n", b"\r\nVia: 1.1 proxy\r\n", 1)) as url:
        report = Report(url)
    verdict, text, said = report.said("publish")
    assert (verdict, said) == ("fail", advice)
    assert text.startswith("HTTP 403: this is for whoever is on the daemon's machine")
    assert report.said("ws events") == report.said("sse events") == ("skip", "nothing was published", "")
    assert report.with_verdict("fail") == ["publish"]


def test_publishing_through_a_redis_that_is_not_there(shared: Shared) -> None:
    port = free_port()
    report = Report(shared[1].url, "--redis", f"redis://:hunter2@127.0.0.1:{port}/0")
    verdict, text, advice = report.said("publish")
    assert (verdict, advice) == ("fail", "start it, or correct --redis")
    assert text.startswith(f"Redis at redis://:***@127.0.0.1:{port}/0 did not take it: ")
    assert "hunter2" not in text
