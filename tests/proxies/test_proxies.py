"""conf/nginx.conf and conf/Caddyfile in front of a daemon: WebSocket, unbuffered SSE, HTTP/2, the client's address.

The programs are not the project's: where one is not installed, its tests are skipped and say so
(`apt-get install nginx-light caddy`).
"""

from __future__ import annotations

import json
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import frozen
from click.testing import CliRunner
from websockets.sync.client import connect

from broker.cli import doctor
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of
from tests.proxies.proxy import ProxyProcess, program
from tests.tls.certificates import Authority

AT_ONCE_SECONDS = 0.2
EVENTS = 5
CHANNEL = "job_progress:proxied"
ELSEWHERE = "127.0.0.9"
"""An address of this machine that is not the proxy's own."""


@frozen
class Place:
    redis: RedisServer
    daemon: DaemonProcess
    proxy: ProxyProcess
    authority: Authority

    @property
    def url(self) -> str:
        return f"https://localhost:{self.proxy.port}"

    def dial(self, *, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """A TLS connection that offers HTTP/1.1 alone, from an address of this machine."""
        plain = socket.create_connection(("127.0.0.1", self.proxy.port), 5, (source, 0))
        return self.authority.client_context("http/1.1").wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, DaemonProcess]]:
    folder = tmp_path_factory.mktemp("behind")
    redis_server = RedisServer(folder)
    redis_server.start()
    flags = ("--log-format", "json", "--log-requests", "on", "--listen-trusted-proxies", "127.0.0.1")
    daemon = DaemonProcess(redis_server.url, folder / "daemon.log", flags)
    daemon.start()
    yield redis_server, daemon
    assert daemon.stop() == 0
    redis_server.kill()
    assert errors_of(daemon) == []


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def place(
    request: pytest.FixtureRequest,
    shared: tuple[RedisServer, DaemonProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    if program(request.param) is None:
        pytest.skip(f"{request.param} is not installed; on Debian: apt-get install nginx-light caddy")
    folder = tmp_path_factory.mktemp(request.param)
    authority = Authority(folder)
    proxy = ProxyProcess(request.param, folder, shared[1].port, authority)
    proxy.start()
    yield Place(*shared, proxy, authority)
    proxy.stop()


def test_the_doctor_finds_nothing_wrong(place: Place) -> None:
    # Through Redis, for without a token POST /api/publish is for this machine, and a proxy's clients are elsewhere.
    arguments = [place.url, "--ca", str(place.authority.file), "--redis", place.redis.url, "--json"]
    done = CliRunner().invoke(doctor.command, arguments)
    report = json.loads(done.stdout)
    assert [check for check in report["checks"] if check["verdict"] != "ok"] == []
    assert (report["healthy"], done.exit_code) == (True, 0)


def test_a_websocket_has_its_events_at_once(place: Place) -> None:
    url = f"wss://localhost:{place.proxy.port}/ws"
    with connect(url, ssl=place.authority.client_context(), proxy=None) as client:
        assert json.loads(client.recv(5))["type"] == "connected"
        client.send(json.dumps({"type": "subscribe", "channel": "plain:ws"}))
        assert json.loads(client.recv(5))["success"] is True

        def next_event() -> bytes:
            text = client.recv(5)
            assert isinstance(text, str)
            return text.encode()

        assert_at_once(place, "plain:ws", next_event)


def test_a_stream_over_http_1_has_its_events_at_once(place: Place) -> None:
    with place.dial() as client:
        client.sendall(stream_request())
        reader = client.makefile("rb")
        assert reader.readline().startswith(b"HTTP/1.1 200")
        lines = (line.strip() for line in reader)
        assert_at_once(place, CHANNEL, lambda: next(datum(lines)), is_stream=True)


def test_a_stream_over_http_2_has_its_events_at_once(place: Place) -> None:
    context = place.authority.client_context("h2", "http/1.1")
    with httpx.Client(http2=True, verify=context, trust_env=False, timeout=5) as client:
        with client.stream("GET", f"{place.url}/api/stream", params={"channel": CHANNEL}) as answer:
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert "content-encoding" not in answer.headers
            assert answer.headers["cache-control"] == "no-cache, no-transform"
            lines = (line.encode() for line in answer.iter_lines())
            assert_at_once(place, CHANNEL, lambda: next(datum(lines)), is_stream=True)


def test_the_daemon_knows_where_its_clients_are_and_believes_the_proxy_alone(place: Place) -> None:
    path = f"/health?from={place.proxy.name}"
    with place.dial(source=ELSEWHERE) as client:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.7\r\n"
            "X-Forwarded-For: 203.0.113.8\r\n"
            "Forwarded: for=203.0.113.9\r\nX-Forwarded-Proto: gopher\r\nConnection: close\r\n\r\n".encode()
        )
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    found: list[dict[str, Any]] = []

    def is_logged() -> bool:
        lines = map(json.loads, place.daemon.log().splitlines())
        found[:] = [line for line in lines if line.get("target") == path]
        return bool(found)

    wait_until(is_logged)
    assert [line["client"] for line in found] == [ELSEWHERE]


def test_a_token_in_the_query_is_not_in_the_proxys_log(place: Place) -> None:
    with place.dial() as client:
        client.sendall(b"GET /health?token=thetoken HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        if place.proxy.name == "nginx":
            access = place.proxy.folder / "access.log"
            wait_until(lambda: "/health" in access.read_text())
    assert [path for path in written_by(place.proxy.folder) if b"thetoken" in path.read_bytes()] == []


def test_the_metrics_are_not_for_the_world(place: Place) -> None:
    with place.dial() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 404")


def stream_request() -> bytes:
    return f"GET /api/stream?channel={CHANNEL} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode()


def datum(lines: Iterator[bytes]) -> Iterator[bytes]:
    """What stands behind `data:`, line by line."""
    for line in lines:
        if line.startswith(b"data: "):
            yield line.removeprefix(b"data: ")


def assert_at_once(place: Place, channel: str, next_event: Any, *, is_stream: bool = False) -> None:
    """Publish, and see each event come while the connection goes on; half of them within `AT_ONCE_SECONDS`."""
    if is_stream:
        while json.loads(next_event())["type"] != "connected":
            pass
    waited = []
    for number in range(EVENTS):
        event = json.dumps({"type": "job_progress", "by": place.proxy.name, "n": number, "at": time.time()}).encode()
        begun = time.monotonic()
        place.redis.publish(channel, event)
        while next_event() != event:  # the newest event of the test before may be replayed
            pass
        waited.append(time.monotonic() - begun)
    assert statistics.median(waited) < AT_ONCE_SECONDS, waited


def written_by(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
