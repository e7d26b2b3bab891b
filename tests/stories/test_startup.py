"""What keeps the daemon from starting: one clear line, what was tried, from which setting, what to do. No traceback."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.actors.daemon_process import DaemonProcess, clean_environ
from tests.actors.forks import run_fork
from tests.actors.peers import WebSocketPeer, open_websockets, pump
from tests.actors.redis_server import RedisServer, free_port

StartDaemon = Callable[..., DaemonProcess]
CHANNEL = "job_progress:42"


def serve(*flags: str, environ: dict[str, str] | None = None, is_forked: bool = True) -> tuple[int, str]:
    """Run `broker serve` that must end by itself. Returns its status and what it said on standard error."""
    clean = {**clean_environ(), **(environ or {})}
    if is_forked:
        done = run_fork("broker", ["serve", *flags], environ=clean, timeout=15)
    else:
        command = [sys.executable, "-m", "broker", "serve", *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, env=clean, check=False)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


NOWHERE = ("--redis", "redis://127.0.0.1:1", "--auth-mode", "off")


@pytest.mark.parametrize("is_forked", [False, True])
def test_a_port_that_is_taken(is_forked: bool, taken: str) -> None:
    assert serve("--listen", taken, *NOWHERE, is_forked=is_forked) == (
        1,
        f"broker: cannot listen on {taken} (set by flag --listen): "
        "another program listens there; stop it, or choose another address with --listen\n",
    )


def test_the_setting_that_was_wrong_is_named(taken: str) -> None:
    status, said = serve(*NOWHERE, environ={"BROKER_LISTEN_ADDRESSES": f"127.0.0.1:0,{taken}"})
    assert status == 1
    assert f"cannot listen on {taken} (set by environment BROKER_LISTEN_ADDRESSES)" in said


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("no-such-host.invalid:8000", "no address of that name"),
        ("a..b:8000", "no address of that name"),
        ("192.0.2.1:8000", "this machine has no such address"),
        ("unix:/no/such/folder/broker.sock", "No such file or directory; choose another address"),
        ("unix:/dev/null", "there is a file of that name that is no socket"),
    ],
)
def test_an_address_that_cannot_be_listened_on(address: str, told: str) -> None:
    status, said = serve("--listen", address, *NOWHERE)
    assert status == 1
    assert said.startswith(f"broker: cannot listen on {address} (set by flag --listen): ")
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("what", ["port", "folder"])
def test_what_is_not_allowed(what: str, tmp_path: Path) -> None:
    nobody = 65534
    if os.getuid() != 0:
        address = "127.0.0.1:1" if what == "port" else "unix:/proc/1/broker.sock"
        as_nobody = ""
    else:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o700)
        address = "127.0.0.1:80" if what == "port" else f"unix:{folder}/broker.sock"
        as_nobody = f"os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})\n"
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if what == "port" and first <= 80:
        pytest.skip("this machine lets everybody listen on every port")
    # Python as another user may not be able to read this folder, so the rights go away after the imports.
    code = (
        f"import os, encodings.idna, broker.cli, broker.cli.serve, trio, broker.daemon\n{as_nobody}broker.cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--listen", address, *NOWHERE],
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        f"broker: cannot listen on {address} (set by flag --listen): "
        "not allowed; choose a port above 1023 or a folder that this user may write to, with --listen\n",
    )


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(
    redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "broker.sock"
    first = start_daemon(redis_server.url, "--listen", f"unix:{path}")
    first.stop(signal.SIGKILL)
    assert path.is_socket()
    second = start_daemon(redis_server.url, "--listen", f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    status, said = serve("--listen", f"unix:{path}", *NOWHERE)
    assert status == 1
    assert said.startswith(f"broker: cannot listen on unix:{path} (set by flag --listen): another program listens")
    assert path.is_socket()
    assert second.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://localhost:6379", "must start with redis://, rediss:// or unix://"),
        ("redis://:hunter2@localhost:6379/?nonsense=1", "nonsense"),
        ("redis://:hunter2@localhost:6379/?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_a_redis_url_that_cannot_be_used(url: str, told: str) -> None:
    status, said = serve("--listen", "127.0.0.1:0", environ={"BROKER_REDIS_URL": url})
    assert status == 1
    assert told in said
    assert "environment BROKER_REDIS_URL" in said
    assert "hunter2" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("origin", ["flag --redis", "environment REDIS_URL"])
def test_a_wrong_password(origin: str, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("requirepass", "correct-horse")
    url = redis_server.url.replace("redis://", "redis://:hunter2@")
    if origin.startswith("flag"):
        status, said = serve("--listen", "127.0.0.1:0", "--redis", url)
    else:
        status, said = serve("--listen", "127.0.0.1:0", environ={"REDIS_URL": url})
    assert status == 1
    assert said.startswith(f"broker: Redis at redis://:***@127.0.0.1:{redis_server.port}/0 refused the connection: ")
    assert "check the user, password and database" in said
    assert origin in said
    assert "hunter2" not in said
    assert said.count("\n") == 1


def test_a_password_that_is_right(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    with redis_server.client() as client:
        client.config_set("requirepass", "correct-horse")
    daemon = start_daemon(redis_server.url.replace("redis://", "redis://:correct-horse@"))
    open_websockets(daemon.port, 1, CHANNEL)
    assert daemon.stats()["status"] == "healthy"
    assert "correct-horse" not in daemon.rest_of_banner() + daemon.log()


def test_a_database_that_is_not_there(redis_server: RedisServer) -> None:
    status, said = serve("--listen", "127.0.0.1:0", "--redis", redis_server.url.replace("/0", "/4711"))
    assert status == 1
    assert "refused the connection: " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[listen]\naddresses = 8000\n", "listen.addresses: must be a list"),
        ("[clients]\noutbox_max_bites = 5\n", "did you mean clients.outbox_max_bytes?"),
    ],
)
def test_a_bad_settings_file(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(text)
    status, said = serve("--config", str(file))
    assert status == 1
    assert said.startswith(f"broker: {file}: ")
    assert told in said
    assert said.count("\n") == 1


def test_a_flag_that_does_not_exist() -> None:
    status, said = serve("--lisen", "127.0.0.1:0")
    assert status == 2
    assert "--lisen" in said


def test_no_redis_is_no_plan_for_the_world() -> None:
    status, said = serve("--listen", f"0.0.0.0:{free_port()}", "--auth-mode", "off")
    assert status == 1
    assert said.startswith("broker: redis.url: no Redis is configured, and the embedded one is for loopback")
    assert said.count("\n") == 1


def test_an_embedded_port_that_is_taken_is_stepped_over(start_daemon: StartDaemon, taken: str) -> None:
    port = int(taken.rpartition(":")[2])
    daemon = start_daemon(None, "--embedded-port", str(port))
    assert f"embedded Valkey at redis://127.0.0.1:{port}/0" not in daemon.rest_of_banner()
    open_websockets(daemon.port, 1, CHANNEL)


@pytest.fixture
def few_open_files() -> Iterator[None]:
    """The soft limit that a login shell gives, for the daemon to raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_thousand_connections_under_a_soft_limit_of_256(
    redis_server: RedisServer, few_open_files: None, start_daemon: StartDaemon
) -> None:
    count = 2000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip(f"the hard limit is {hard} files")
    daemon = start_daemon(redis_server.url)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 500, hard))
    peers: list[WebSocketPeer] = []
    for _ in range(4):
        peers += open_websockets(daemon.port, count // 4, CHANNEL)
    assert daemon.stats()["websocket"]["totalConnections"] == count
    redis_server.publish(CHANNEL, b'{"n":1}')
    pump(peers, lambda: all(peer.raw.endswith(b'{"n":1}') for peer in peers))
