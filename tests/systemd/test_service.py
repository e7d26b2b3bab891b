"""The daemon under a service manager: what it tells it, and which sockets it serves."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.actors.peers import SsePeer, WebSocketPeer, pump, wait_until
from tests.actors.redis_server import RedisServer, free_port
from tests.conftest import errors_of
from tests.systemd.manager import SECONDS, NotifySocket, Service, listening

StartService = Callable[..., Service]
WATCHDOG_SECONDS = 0.4


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """The listening socket of a `.socket` unit: held by the manager all the time."""
    with listening() as opened:
        yield opened


@pytest.fixture
def start(tmp_path: Path, held: socket.socket) -> Iterator[StartService]:
    """Starts daemons on the held socket. A test whose daemon logs an error fails."""
    started: list[Service] = []
    notify = NotifySocket(str(tmp_path / "notify"))

    def start_service(
        *flags: str, sockets: tuple[socket.socket, ...] = (held,), is_forked: bool = True, **environ: str
    ) -> Service:
        service = Service(notify, tmp_path / f"{len(started)}.log", sockets, flags, environ, is_forked)
        service.start()
        started.append(service)
        return service

    yield start_service
    for service in started:
        service.stop()
    notify.close()
    for service in started:
        assert errors_of(service) == []  # type: ignore[arg-type]


def port_of(opened: socket.socket) -> int:
    return int(opened.getsockname()[1])


def first_line(service: Service) -> str:
    assert service.process.stdout is not None
    return service.process.stdout.readline().rstrip()


def asked(port: int) -> int:
    """The status that /health answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_life(redis: RedisServer, held: socket.socket, start: StartService) -> None:
    """From a client that comes before the daemon to the last datagram."""
    port = port_of(held)
    early = SsePeer(port, "feed:1")
    watchdog = str(round(WATCHDOG_SECONDS * 1e6))
    service = start("--redis", redis.url, is_forked=False, WATCHDOG_USEC=watchdog)  # as systemd does it
    pump([early], lambda: early.is_open)
    service.wait_ready()
    assert first_line(service).endswith(f" listens on 127.0.0.1:{port}")  # and nowhere else

    service.notify.take()
    service.notify.wait_for(lambda text: text == "WATCHDOG=1")
    service.process.send_signal(signal.SIGSTOP)
    service.notify.take()
    assert service.notify.take(2 * WATCHDOG_SECONDS) == []
    service.process.send_signal(signal.SIGCONT)
    service.notify.wait_for(lambda text: text == "WATCHDOG=1")

    deaf = WebSocketPeer(port)  # its drain takes as long as its farewell may
    pump([deaf], lambda: deaf.parse())
    service.process.send_signal(signal.SIGTERM)
    service.notify.wait_for(lambda text: text.startswith("STOPPING=1"))
    service.notify.wait_for(lambda text: text == "WATCHDOG=1")
    pump([early], lambda: early.ended)
    early.close()
    deaf.close()
    assert service.process.wait(SECONDS) == 0
    service.notify.take()
    assert [text for text in service.notify.taken if text != "WATCHDOG=1"] == [
        "STATUS=waiting for Redis; 0 clients, 0 channels",
        "READY=1\nSTATUS=0 clients, 0 channels, 0 messages a second",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\nSTATUS=stopping",
    ]


def test_a_restart_refuses_nobody(redis: RedisServer, held: socket.socket, start: StartService) -> None:
    """One daemon stops, and then another starts; all the while clients come, and all are answered."""
    port, statuses, stop = port_of(held), [], threading.Event()

    def come() -> None:
        while not stop.is_set():
            statuses.append(asked(port))

    def come_at_any_time() -> None:
        while not stop.is_set():
            opened.append(SsePeer(port, "feed:1"))
            time.sleep(0.01)

    flags = ("--redis", redis.url, "--clients-farewell-seconds", "0.2", "--daemon-drain-seconds", "1")
    first = start(*flags)
    first.wait_ready()
    opened: list[SsePeer] = []
    comers = [threading.Thread(target=come), threading.Thread(target=come_at_any_time)]
    for comer in comers:
        comer.start()
    wait_until(lambda: len(statuses) > 20 and len(opened) > 5)
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(SECONDS) == 0
    gone, before = len(opened), len(statuses)
    wait_until(lambda: len(opened) > gone + 5)  # they wait in the kernel
    second = start(*flags)
    second.wait_ready()
    wait_until(lambda: len(statuses) > before + 20)
    stop.set()
    for comer in comers:
        comer.join()
    pump(opened, lambda: all(peer.is_open or peer.ended for peer in opened))
    assert set(statuses) == {200}
    # Served, or told to come again; nobody was reset, and nobody hung up on without an answer.
    assert [peer.was_reset for peer in opened] == [False] * len(opened)
    assert all(peer.is_open for peer in opened[gone:])
    assert {bytes(peer.raw[:12]) for peer in opened} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
    for peer in opened:
        peer.close()


def test_addresses_that_were_asked_for_are_served_besides(held: socket.socket, start: StartService) -> None:
    """One of them is inherited. Another that is inherited is open to the world, which somebody allows. No Redis is
    there yet: the daemon is ready, and says what it waits for."""
    port, own = port_of(held), free_port()
    with listening("0.0.0.0") as wide:
        service = start(
            *("--redis", f"redis://127.0.0.1:{free_port()}", "--auth-mode", "off"),
            *("--listen", f"127.0.0.1:{own}", "--listen", f"127.0.0.1:{port}"),
            sockets=(wide, held),
        )
        service.wait_ready()
        addresses = f"127.0.0.1:{own}, 127.0.0.1:{port}, 0.0.0.0:{port_of(wide)}"
        assert first_line(service).endswith(f" listens on {addresses}")
        assert [asked(number) for number in (own, port, port_of(wide))] == [200, 200, 200]
    assert service.notify.taken == [
        "STATUS=waiting for Redis; 0 clients, 0 channels",
        "READY=1\nSTATUS=waiting for Redis; 0 clients, 0 channels",
    ]


def test_what_was_for_the_daemon_is_not_for_its_children(held: socket.socket, start: StartService) -> None:
    """The embedded Valkey is one."""
    service = start("--embedded-port", str(free_port()), WATCHDOG_USEC="10000000", LISTEN_PIDFDID="1")
    service.wait_ready()
    seen = children_of(service.process.pid)
    assert len(seen) >= 2  # a shell, and the server
    socket_file = f"socket:[{os.fstat(held.fileno()).st_ino}]"
    for pid in seen:
        names = {line.partition(b"=")[0] for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
        assert not names & {b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES", b"NOTIFY_SOCKET", b"WATCHDOG_USEC"}
        assert socket_file not in {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


def children_of(pid: int) -> list[int]:
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    found = [int(text) for text in " ".join(listed).split()]
    return [*found, *(one for child in found for one in children_of(child))]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--redis", "redis://127.0.0.1:1"), ["add one of these to the settings", "[auth]", 'mode = "off"']),
        (("--auth-mode", "off"), ["no Redis is configured, and the embedded one is for loopback addresses only"]),
    ],
)
def test_a_socket_that_the_world_can_reach(flags: tuple[str, ...], told: list[str], start: StartService) -> None:
    with listening("0.0.0.0") as wide:
        service = start(*flags, sockets=(wide,))
        assert service.process.wait(SECONDS) == 1
    lines = service.log()
    service.log_path.write_text("")  # no log lines, but for people
    assert all(words in lines for words in told)
    if "--auth-mode" not in flags:
        assert lines.startswith(
            f"broker: 0.0.0.0:{port_of_text(lines)}, which is a socket that systemd gave, is open to"
        )
    status = service.notify.wait_for(lambda text: text.startswith("STATUS="))
    assert status == f"STATUS={lines.splitlines()[0].removeprefix('broker: ')}"


def port_of_text(lines: str) -> str:
    return lines.partition("0.0.0.0:")[2].partition(",")[0]
