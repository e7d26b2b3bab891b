"""WebSocket, SSE and HTTP/1.1 over TLS: what holds without TLS holds with it."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
import trio_websocket
from websockets.sync.client import connect

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, frame, resident_bytes, text, upgrade, wait_until
from tests.actors.redis_server import RedisServer
from tests.tls.certificates import Authority

BOTH_VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
SUBSCRIBE = {"type": "subscribe", "channel": "alerts:a"}


def over_tls(port: int, authority: Authority, *, receive_buffer: int = 0, **options: Any) -> RawClient:
    client = RawClient.connect(port, receive_buffer=receive_buffer)
    client.sock = authority.client_context(**options).wrap_socket(client.sock, server_hostname="localhost")
    return client


def shown(port: int, authority: Authority) -> Any:
    with over_tls(port, authority) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        certificate = client.sock.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]


@BOTH_VERSIONS
def test_a_websocket(
    version: ssl.TLSVersion, tls_daemon: DaemonProcess, tls_redis: RedisServer, tls_authority: Authority
) -> None:
    context = tls_authority.client_context(version=version)
    with connect(f"wss://localhost:{tls_daemon.port}/ws", ssl=context) as client:
        assert json.loads(client.recv(5))["type"] == "connected"
        client.send(json.dumps(SUBSCRIBE))
        assert json.loads(client.recv(5))["success"] is True
        sent = [json.dumps({"type": "alert", "n": n, "fill": "x" * (n * 700)}) for n in range(100)]
        with tls_redis.client() as redis:
            for payload in sent:
                redis.publish("alerts:a", payload)
        assert [client.recv(5) for _ in sent] == sent
        client.send("x" * 50_000)  # several records, one message
        assert json.loads(client.recv(5))["type"] == "error"


async def test_a_websocket_of_another_library(tls_daemon: DaemonProcess, tls_authority: Authority) -> None:
    url = f"wss://localhost:{tls_daemon.port}/ws"
    with trio.fail_after(10):
        async with trio_websocket.open_websocket_url(url, ssl_context=tls_authority.client_context()) as client:
            assert json.loads(await client.get_message())["type"] == "connected"
            await client.send_message(json.dumps({"type": "ping"}))
            assert json.loads(await client.get_message())["type"] == "pong"
            await client.ping(b"here")


@BOTH_VERSIONS
def test_an_event_stream(
    version: ssl.TLSVersion, tls_daemon: DaemonProcess, tls_redis: RedisServer, tls_authority: Authority
) -> None:
    url = f"https://localhost:{tls_daemon.port}/api/stream?channel=alerts:a"
    with (
        httpx.Client(verify=tls_authority.client_context(version=version)) as web,
        web.stream("GET", url, timeout=5) as answer,
        tls_redis.client() as redis,
    ):
        assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
        lines = answer.iter_lines()
        while '"connected"' not in next(lines):
            pass
        redis.publish("alerts:a", '{"type":"alert"}')
        assert next(line for line in lines if line.startswith("data: ")) == 'data: {"type":"alert"}'


def test_a_connection_carries_several_requests_and_then_a_stream(
    tls_daemon: DaemonProcess, tls_authority: Authority
) -> None:
    with over_tls(tls_daemon.port, tls_authority) as client:
        for _ in range(3):
            assert client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").json()["status"] == "healthy"
        client.send(b"GET /api/stream?channel=alerts:a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.read_until(b'"connected"')


def test_a_request_in_one_record_with_the_handshake_and_the_next_behind_it(
    tls_daemon: DaemonProcess, tls_authority: Authority
) -> None:
    with over_tls(tls_daemon.port, tls_authority) as client:
        one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.send(upgrade() + text(SUBSCRIBE) + frame(9, b"ping"))
        client.expect_upgrade()
        kinds = [client.frame() for _ in range(3)]
        assert sorted(each.opcode for each in kinds) == [1, 1, 10]
    with over_tls(tls_daemon.port, tls_authority) as client:
        client.send(one * 3)
        assert [client.answer().status for _ in range(3)] == [200, 200, 200]


def test_plain_http_is_told_that_this_is_tls(tls_daemon: DaemonProcess) -> None:
    with RawClient.connect(tls_daemon.port) as client:
        answer = client.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (answer.status, answer.json()) == (
            400,
            {"error": "Bad Request", "detail": "this port speaks TLS", "hint": "Use https:// or wss://."},
        )
        assert client.read_to_end() == b""


def test_who_fails_or_gives_up_the_handshake_leaves_nothing_behind(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority
) -> None:
    daemon = start_tls_daemon({"LISTEN_HEAD_SECONDS": "0.5"})
    for first in (b"\x16\x03\x01\x02\0" + bytes(700), bytes(3), b"\0" * 5000, b"\x16", b""):
        with RawClient.connect(daemon.port) as client:
            client.send(first)
            begun = time.monotonic()
            client.read_to_end()  # an alert, or nothing
            assert time.monotonic() - begun < 3.0
    with RawClient.connect(daemon.port) as client:
        client.send(b"\x16\x03\x01\x02\0")
        client.reset()
    # A client that offers nothing that is spoken here.
    context = authority.client_context()
    context.set_ciphers("AES128-SHA")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with RawClient.connect(daemon.port) as client, pytest.raises(ssl.SSLError):
        context.wrap_socket(client.sock, server_hostname="localhost")
    assert shown(daemon.port, authority)
    assert "Traceback" not in daemon.log()
    assert '"level": "error"' not in daemon.log()


def test_a_new_certificate_while_clients_stay(
    start_tls_daemon: Callable[..., DaemonProcess], tls_redis: RedisServer, authority: Authority
) -> None:
    daemon = start_tls_daemon()
    context = authority.client_context()
    with (
        connect(f"wss://localhost:{daemon.port}/ws", ssl=context) as client,
        httpx.Client(verify=context) as kept,
    ):
        client.recv(5)
        client.send(json.dumps(SUBSCRIBE))
        client.recv(5)
        url = f"https://localhost:{daemon.port}/health"
        assert kept.get(url).status_code == 200
        before = shown(daemon.port, authority)
        authority.issue()
        wait_until(lambda: shown(daemon.port, authority) != before)
        with tls_redis.client() as redis:
            redis.publish("alerts:a", '{"type":"alert"}')
        assert client.recv(5) == '{"type":"alert"}'
        assert kept.get(url).status_code == 200
        stats = kept.get(f"https://localhost:{daemon.port}/api/realtime/stats").json()
        assert (stats["tls"]["reloads"], stats["tls"]["failedReloads"]) == (1, 0)


@pytest.mark.parametrize(
    ("outbox_bytes", "total_bytes", "codes"), [(1 << 20, 64 << 20, [4001, 4001]), (2 << 20, 2 << 20, [4001, 4003])]
)
def test_clients_that_do_not_read_are_ended_by_name(
    outbox_bytes: int,
    total_bytes: int,
    codes: list[int],
    start_tls_daemon: Callable[..., DaemonProcess],
    tls_redis: RedisServer,
    authority: Authority,
) -> None:
    """Each for itself; or one of two, as soon as both have what all may have."""
    daemon = start_tls_daemon(
        {
            "CLIENTS_OUTBOX_MAX_BYTES": str(outbox_bytes),
            "LIMITS_OUTBOX_TOTAL_BYTES": str(total_bytes),
            "CLIENTS_FAREWELL_SECONDS": "8",
        }
    )
    payload = json.dumps({"type": "alert", "fill": "x" * 50_000})
    with (
        over_tls(daemon.port, authority, receive_buffer=8192) as one,
        over_tls(daemon.port, authority, receive_buffer=8192) as other,
        tls_redis.client() as redis,
        httpx.Client(verify=authority.client_context()) as web,
    ):
        for client in (one, other):
            client.send(upgrade() + text({"type": "subscribe", "channel": "bench:both"}))
            client.expect_upgrade()
            assert [client.frame().json()["type"] for _ in range(2)] == ["connected", "subscribed"]
        before = resident_bytes(daemon.process.pid)

        def flooded() -> bool:
            for _ in range(10):
                redis.publish("bench:both", payload)
            stats = web.get(f"https://localhost:{daemon.port}/api/realtime/stats").json()
            return not any(each["isAlive"] for each in stats["websocket"]["clients"])

        wait_until(flooded)
        found = []
        for client in (one, other):
            frames = client.frames()
            assert {each.payload for each in frames[:-1]} == {payload.encode()}
            found.append(frames[-1].code)
        assert sorted(each or 0 for each in found) == codes
        assert resident_bytes(daemon.process.pid) - before < 20 << 20


def test_an_end_that_is_cut_is_told_from_one_that_is_said(tls_daemon: DaemonProcess, tls_authority: Authority) -> None:
    """A client sees close_notify where the daemon ended the connection, so that nobody else can fake that."""
    with over_tls(tls_daemon.port, tls_authority) as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.answer().status == 200
        assert isinstance(client.sock, ssl.SSLSocket)
        client.sock.suppress_ragged_eofs = False
        assert client.sock.recv(1) == b""


def test_shutdown_says_goodbye(start_tls_daemon: Callable[..., DaemonProcess], authority: Authority) -> None:
    daemon = start_tls_daemon()
    with over_tls(daemon.port, authority) as client:
        client.send(upgrade())
        client.expect_upgrade()
        client.frame()
        daemon.process.terminate()
        last, close = client.frame(), client.frame()
        assert last.json()["type"] == "disconnected"
        assert close.code == 1012
        client.send(frame(8, struct.pack("!H", 1012)))
        assert client.read_to_end() == b""
    # A second signal could come when nobody handles it any more.
    assert daemon.process.wait(15) == 0


def test_silent_connections_cost_little_and_end(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority
) -> None:
    daemon = start_tls_daemon({"LISTEN_HEAD_SECONDS": "1"})
    shown(daemon.port, authority)
    before = resident_bytes(daemon.process.pid)
    socks = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(200)]
    wait_until(lambda: shown(daemon.port, authority))
    # No TLS state is made for who says nothing.
    assert resident_bytes(daemon.process.pid) - before < 200 * 25_000
    for sock in socks:
        sock.settimeout(5)
        assert sock.recv(1) == b""
        sock.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here; httpx asks the same")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(version: str, tls_daemon: DaemonProcess, tls_authority: Authority) -> None:
    def ask(*options: str, path: str) -> str:
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--no-buffer",
            version,
            "--cacert",
            str(tls_authority.file),
            *options,
        ]
        url = f"https://localhost:{tls_daemon.port}{path}"
        return subprocess.run([*command, url], capture_output=True, text=True, timeout=10).stdout

    with_version = ("--write-out", " %{http_version}")
    expected = {"--http1.1": "1.1", "--http2": "2"}[version]
    body, _, seen = ask(*with_version, path="/health").rpartition(" ")
    assert (json.loads(body)["status"], seen) == ("healthy", expected)
    body, _, seen = ask(*with_version, "--json", '{"channel": "a:b"}', path="/api/publish").rpartition(" ")
    assert (json.loads(body)["error"], seen) == ("Bad Request", expected)
    assert '"connected"' in ask("--max-time", "0.5", path="/api/stream?channel=alerts:a")
