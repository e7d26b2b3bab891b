"""A signal ends the daemon: every client has its goodbye, whoever does not read it holds nobody up, nothing is left."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import httpx_sse
import pytest
import redis
import websockets.exceptions
import websockets.sync.client

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import Peer, SsePeer, open_streams, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer, free_port

StartDaemon = Callable[..., DaemonProcess]
CHANNEL = "feed:42"
DRAIN_SECONDS = 3.0


def is_running(pid: int) -> bool:
    """Whether there is such a process and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stall(redis_server: RedisServer, stalled: list[Peer], healthy: list[Peer]) -> None:
    """Publish what the stalled ones cannot take and the outbox can: they have something unsent."""
    batch = [b'{"pad":"%b"}' % (b"x" * 1000)] * 256
    redis_server.publish(CHANNEL, *batch)
    pump(healthy, lambda: all(len(peer.raw) > 256 * 1000 for peer in healthy))


def test_healthy_stalled_half_open_and_idle_clients(
    redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """By SIGINT; a crowd and SIGTERM are row 10 of the fault suite."""
    path = tmp_path / "broker.sock"
    daemon = start_daemon(
        redis_server.url, "--daemon-drain-seconds", str(DRAIN_SECONDS), "--listen", f"unix:{path}",
        "--clients-farewell-seconds", "1",
    )  # fmt: skip
    websockets_, streams = open_websockets(daemon.port, 10, CHANNEL), open_streams(daemon.port, 10, CHANNEL)
    stalled: list[Peer] = [
        *open_websockets(daemon.port, 2, CHANNEL, receive_buffer=4096),
        *open_streams(daemon.port, 2, CHANNEL, receive_buffer=4096),
    ]
    stall(redis_server, stalled, [*websockets_, *streams])
    half_open = open_websockets(daemon.port, 2)  # they never answer the close
    vanished = open_websockets(daemon.port, 1, CHANNEL)
    idle = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
    idle.request("GET", "/health")
    assert idle.getresponse().read()
    half_sent = socket.create_connection(("127.0.0.1", daemon.port), 10)
    half_sent.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
    silent = socket.create_connection(("127.0.0.1", daemon.port), 10)
    over_unix = socket.socket(socket.AF_UNIX)
    over_unix.connect(str(path))
    wait_until(lambda: daemon.stats()["websocket"]["totalConnections"] == 15)
    vanished[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    vanished[0].close()

    began = time.monotonic()
    daemon.process.send_signal(signal.SIGINT)
    pump(websockets_, lambda: all(peer.parse() and peer.close_code for peer in websockets_), DRAIN_SECONDS)
    for peer in websockets_:
        goodbye = json.loads(peer.texts[-1])
        assert (goodbye["type"], 0 <= goodbye["reconnectInMs"] <= 2000) == ("disconnected", True)
        assert (peer.close_code, peer.is_cut_off) == (1012, False)
        peer.send_close(1012)
    pump([*websockets_, *streams], lambda: all(peer.ended for peer in [*websockets_, *streams]), DRAIN_SECONDS)
    for peer in websockets_:
        assert not peer.was_reset
    for stream in streams:
        retry, data = stream.blocks[-1].split(b"\n")
        name, milliseconds = retry.split(b": ")
        assert (name, 0 <= int(milliseconds) <= 2000) == (b"retry", True)
        assert json.loads(data.removeprefix(b"data: "))["type"] == "server_shutdown"
        assert (stream.is_complete, stream.is_cut_off, stream.was_reset) == (True, False, False)
        stream.close()
    pump(half_open, lambda: all(peer.parse() and peer.close_code == 1012 for peer in half_open))
    assert daemon.process.wait(DRAIN_SECONDS + 2) == 0
    assert time.monotonic() - began < DRAIN_SECONDS + 2
    assert not path.exists()
    for sock in (half_sent, silent, over_unix):
        sock.settimeout(1)
        assert sock.recv(1000) in (b"",)
        sock.close()
    idle.close()
    stopped = [json.loads(line) for line in daemon.log().splitlines()][-1]
    assert stopped["event"] == "stopped"


def test_clients_nobody_here_wrote_see_a_clean_end(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    with websockets.sync.client.connect(daemon.ws_url) as ws, httpx.Client(trust_env=False) as client:
        ws.recv(5)
        with httpx_sse.connect_sse(client, "GET", f"{daemon.url}/api/stream?channel={CHANNEL}") as source:
            events = source.iter_sse()
            assert json.loads(next(events).data)["type"] == "connected"
            daemon.process.send_signal(signal.SIGTERM)
            last = next(events)
            assert json.loads(last.data)["type"] == "server_shutdown"
            assert last.retry is not None
            assert 0 <= last.retry <= 2000
            assert list(events) == []
        assert json.loads(ws.recv(5))["type"] == "disconnected"
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            ws.recv(5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert daemon.process.wait(3) == 0


def test_a_second_signal_ends_at_once(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--daemon-drain-seconds", "60", "--clients-farewell-seconds", "60")
    half_open = open_websockets(daemon.port, 2)
    daemon.process.send_signal(signal.SIGTERM)
    pump(half_open, lambda: all(peer.parse() and peer.close_code for peer in half_open))
    assert daemon.process.poll() is None
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(5) == 0
    assert time.monotonic() - began < 2


def test_who_does_not_leave_is_cut_off_after_the_drain_time(
    redis_server: RedisServer, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(redis_server.url, "--daemon-drain-seconds", "0.5", "--clients-farewell-seconds", "60")
    half_open = open_websockets(daemon.port, 2)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(2.5) == 0
    pump(half_open, lambda: all(peer.ended for peer in half_open))
    assert [peer.parse() and peer.close_code for peer in half_open] == [1012, 1012]


def test_clients_that_come_while_it_stops_hold_nobody_up(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    daemon.stats()
    daemon.process.send_signal(signal.SIGSTOP)
    late = [SsePeer(daemon.port, CHANNEL) for _ in range(50)]
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGCONT)
    pump(late, lambda: all(peer.ended for peer in late), 3)
    # Served and told, or not served at all; never left hanging.
    assert all(peer.is_complete or not peer.raw or peer.raw.startswith(b"HTTP/1.1 503 ") for peer in late)
    for peer in late:
        peer.close()
    assert daemon.process.wait(3) == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder whose path is short enough to hold a socket's, however the tests are run."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def embedded_daemon(start_daemon: StartDaemon, folder: Path) -> tuple[DaemonProcess, int]:
    """A daemon with its own Valkey, whose temporary files are in `folder`, and that server's process id."""
    port = free_port()
    # Its control socket would be there too, and stays when it is killed.
    flags = ("--embedded-port", str(port), "--daemon-control-socket", "off")
    daemon = start_daemon(None, *flags, environ={"TMPDIR": str(folder)})
    found = next(line for line in daemon.rest_of_banner().splitlines() if "embedded Valkey at redis://" in line)
    url = found.split("embedded Valkey at ")[1].split(";")[0]
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        pid = int(client.info("server")["process_id"])
    assert is_running(pid)
    assert list(folder.iterdir()) != []
    return daemon, pid


def test_the_embedded_server_leaves_with_the_daemon(start_daemon: StartDaemon, folder: Path) -> None:
    daemon, pid = embedded_daemon(start_daemon, folder)
    (peer,) = open_streams(daemon.port, 1, CHANNEL)
    daemon.process.send_signal(signal.SIGINT)
    pump([peer], lambda: peer.ended)
    assert peer.is_complete
    peer.close()
    assert daemon.process.wait(4) == 0
    assert not is_running(pid)
    assert list(folder.iterdir()) == []


def test_the_embedded_server_does_not_outlive_a_killed_daemon(start_daemon: StartDaemon, folder: Path) -> None:
    daemon, pid = embedded_daemon(start_daemon, folder)
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not is_running(pid), 4)
    wait_until(lambda: list(folder.iterdir()) == [], 2)


def test_a_signal_while_the_first_connection_to_redis_is_under_way(tmp_path: Path) -> None:
    """A Redis that accepts and never answers; the daemon is told to stop before it serves."""
    path = tmp_path / "broker.sock"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        deaf.settimeout(10)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "broker", "serve", "--listen", f"unix:{path}"),
                *("--redis", f"redis://127.0.0.1:{deaf.getsockname()[1]}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("BROKER_")},
        )
        connection, _ = deaf.accept()
        with connection:
            assert path.exists()
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=2)
    assert process.returncode == 0
    assert output == ""
    assert "Traceback" not in errors
    assert not path.exists()
