"""Pages of other sites, and names of other machines: refused wherever they knock, before anything happens."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import Answer, RawClient, head, upgrade
from tests.actors.redis_server import RedisServer
from tests.actors.refusal import assert_refusal
from tests.conftest import errors_of

StartDaemon = Callable[..., DaemonProcess]
APP = b"https://app.example.com"
EVENT = b'{"channel":"a:1","event":{"type":"x"}}'
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
PATHS = {
    "WebSocket": (b"GET", b"/ws"),
    "SSE": (b"GET", b"/api/stream?channel=a:1"),
    "evaluation": (b"GET", b"/api/stream/council-score?videoUrl=x&transcript=y"),
    "stats": (b"GET", b"/api/realtime/stats"),
    "publishing": (b"POST", b"/api/publish"),
    "health": (b"GET", b"/health"),
    "nothing": (b"GET", b"/nothing"),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One for every test that does it no harm, with an allowed origin and the host that it is served at."""
    folder = tmp_path_factory.mktemp("pages")
    server = RedisServer(folder)
    server.start()
    flags = ("--log-format", "json", "--listen-allowed-origins=https://*.example.com")
    daemon = DaemonProcess(server.url, folder / "daemon.log", flags)
    daemon.start()
    yield daemon
    daemon.stop()
    server.kill()
    assert errors_of(daemon) == []


def asked(daemon: DaemonProcess, method: bytes, path: bytes, *lines: bytes, host: bytes = b"localhost") -> Answer:
    if path == b"/ws" and method == b"GET":
        data = upgrade(path, *lines)
    elif method == b"POST":
        data = head(b"POST %b HTTP/1.1" % path, b"Content-Length: %d" % len(EVENT), *lines) + EVENT
    else:
        data = head(b"%b %b HTTP/1.1" % (method, path), *lines)
    with RawClient.connect(daemon.port) as client:
        return client.ask(data.replace(b"Host: localhost", b"Host: " + host))


@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"http://localhost:1", b"https://localhost:80"])
@pytest.mark.parametrize(("method", "path"), PATHS.values(), ids=PATHS)
def test_foreign_pages(daemon: DaemonProcess, method: bytes, path: bytes, origin: bytes) -> None:
    before = daemon.stats()
    answer = assert_refusal(asked(daemon, method, path, b"Origin: " + origin), 403)
    assert answer.json() == {
        "error": "Forbidden",
        "detail": f"pages of {origin.decode()!a} may not connect",
        "hint": "Serve the page from the daemon's own origin, or add its origin to listen.allowed_origins.",
    }
    assert not [name for name in answer.headers if name.startswith("access-control")]
    after = daemon.stats()
    assert after["connections"]["refusedPages"] == before["connections"]["refusedPages"] + 1
    assert "a page was refused" in daemon.log()
    assert (after["publishing"], after["evaluations"]) == (before["publishing"], before["evaluations"])


@pytest.mark.parametrize("origin", [APP, b"https://a.b.example.com", b"http://localhost"])
@pytest.mark.parametrize(("method", "path"), PATHS.values(), ids=PATHS)
def test_pages_that_may(daemon: DaemonProcess, method: bytes, path: bytes, origin: bytes) -> None:
    answer = asked(daemon, method, path, b"Origin: " + origin)
    assert answer.status == {b"/ws": 101, b"/nothing": 404}.get(path, 200)
    if answer.status != 101:
        assert answer.headers["vary"] == "Origin"
        expected = None if origin == b"http://localhost" else origin.decode()
        assert answer.headers.get("access-control-allow-origin") == expected


@pytest.mark.parametrize(("method", "path"), PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("origin", "is_allowed"), [(APP, True), (b"https://evil.example", False)])
def test_preflight(daemon: DaemonProcess, method: bytes, path: bytes, origin: bytes, is_allowed: bool) -> None:
    lines = (b"Origin: " + origin, b"Access-Control-Request-Method: " + method)
    answer = asked(daemon, b"OPTIONS", path, *lines)
    assert answer.headers.get("access-control-allow-origin") == (
        origin.decode() if is_allowed and path != b"/ws" else None
    )


@pytest.mark.parametrize(("method", "path"), PATHS.values(), ids=PATHS)
def test_a_name_that_was_bound_to_this_machine(daemon: DaemonProcess, method: bytes, path: bytes) -> None:
    """While everybody on this machine is let in, a page must not come under a name of its own."""
    for lines in ((), (b"Origin: http://evil.example",)):
        answer = assert_refusal(asked(daemon, method, path, *lines, host=b"evil.example"), 403)
        assert answer.json()["detail"] == "the Host header 'evil.example' does not name this machine"
    for host in (b"localhost:1", b"127.0.0.1", b"[::1]:8000", b"app.localhost"):
        assert asked(daemon, method, path, host=host).status in (101, 200, 404)


def test_the_name_of_a_listed_page_is_no_name_of_this_machine_by_its_wildcard_alone(daemon: DaemonProcess) -> None:
    assert asked(daemon, b"GET", b"/health", host=b"broker.example.com").status == 200
    assert asked(daemon, b"GET", b"/health", host=b"example.com").status == 403


@pytest.mark.parametrize(
    "flags", [("--auth-secret=" + "s" * 32,), ("--listen-trusted-proxies=127.0.0.1",), ("--listen-allowed-origins=*",)]
)
def test_where_any_name_will_do(redis_server: RedisServer, start_daemon: StartDaemon, flags: tuple[str, ...]) -> None:
    """With authentication a name alone opens nothing; a trusted proxy answers for it; and * lets all pages in."""
    daemon = start_daemon(redis_server.url, *flags)
    assert asked(daemon, b"GET", b"/health", host=b"broker.example.net").status == 200


def test_a_proxy_that_took_the_tls_away(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--listen-trusted-proxies=127.0.0.1")
    told = (b"X-Forwarded-For: 198.51.100.7", b"X-Forwarded-Proto: https")
    host = b"broker.example.net"
    for lines, origin, status in (
        (told, b"https://broker.example.net", 200),
        (told, b"http://broker.example.net", 403),
        ((), b"https://broker.example.net", 200),
        ((), b"http://broker.example.net", 200),
        ((), b"https://broker.example.net:444", 403),
    ):
        assert asked(daemon, b"GET", b"/health", b"Origin: " + origin, *lines, host=host).status == status


def test_every_answer_says_that_it_is_no_page(daemon: DaemonProcess) -> None:
    for method, path, lines, status in (
        (b"GET", b"/health", (), 200),
        (b"GET", b"/api/realtime/stats", (), 200),
        (b"GET", b"/nothing", (), 404),
        (b"DELETE", b"/health", (), 405),
        (b"POST", b"/api/publish", (), 200),
        (b"GET", b"/ws", (b"Sec-WebSocket-Version: 1",), 426),
        (b"GET", b"/api/stream", (), 400),
        (b"OPTIONS", b"/api/stream", (), 204),
        (b"GET", b"/health", (b"Origin: null",), 403),
        (b"GET", b"/ h", (), 400),
    ):
        if status == 426:
            with RawClient.connect(daemon.port) as client:
                answer = client.ask(head(b"GET /ws HTTP/1.1"))
        else:
            answer = asked(daemon, method, path, *lines)
        assert answer.status == status, (method, path)
        assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY, (method, path)
    stream = asked(daemon, b"GET", b"/api/stream?channel=a:1")
    assert stream.headers["x-content-type-options"] == "nosniff"
    assert stream.headers["cache-control"] == "no-cache, no-transform"


def test_unix_sockets_have_no_browsers(redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    start_daemon(redis_server.url, f"--listen=unix:{path}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        assert RawClient(sock).ask(head(b"GET /health HTTP/1.1").replace(b"localhost", b"broker.example")).status == 200
