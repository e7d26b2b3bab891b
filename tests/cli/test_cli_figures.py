"""`broker stats`, `clients` and `channels`: what a daemon says as tables and as JSON, and each way that it does not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from attrs import frozen
from click.testing import CliRunner, Result

from broker import __version__
from broker.cli import group
from broker.cli.source import Address, Source
from broker.errors import DaemonNotAsked
from tests.actors import peers
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import open_streams, open_websockets, pump
from tests.actors.redis_server import RedisServer, free_port
from tests.conftest import errors_of

SECRET = "0123456789abcdef0123456789abcdef"
NEEDS = (
    "needs an admin token: give one with --token or BROKER_TOKEN; `broker token create --user ops --admin` makes one"
)


@frozen
class Place:
    redis: RedisServer
    daemon: DaemonProcess
    closed: DaemonProcess  # one with authentication


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Two clients on busy:1, of whom one is on quiet:2 too; 20 events on busy:1, and none on quiet:2."""
    folder = tmp_path_factory.mktemp("figures")
    redis_server = RedisServer(folder)
    redis_server.start()
    daemon = DaemonProcess(redis_server.url, folder / "open.log", ("--log-format", "json"))
    closed = DaemonProcess(
        redis_server.url,
        folder / "closed.log",
        ("--log-format", "json", "--redis-channel-prefix", "other:"),
        {"BROKER_AUTH_SECRET": SECRET},
    )
    daemon.start()
    closed.start()
    everyone = [*open_websockets(daemon.port, 1, "busy:1", "quiet:2"), *open_streams(daemon.port, 1, "busy:1")]
    redis_server.publish("busy:1", *[b'{"type":"n"}'] * 20)
    pump(everyone, lambda: all(bytes(peer.raw).count(b'"type":"n"') == 20 for peer in everyone))
    yield Place(redis_server, daemon, closed)
    peers.close_all()
    for each in (daemon, closed):
        assert each.stop() == 0
        assert errors_of(each) == []
    redis_server.kill()


def run(*arguments: str, **environ: str) -> Result:
    done = CliRunner().invoke(group, arguments, env={"BROKER_URL": None, "BROKER_TOKEN": None, **environ})
    if done.exception is not None and not isinstance(done.exception, SystemExit | DaemonNotAsked):
        raise done.exception
    return done


def refusal(*arguments: str, **environ: str) -> str:
    """What a command says that cannot do it."""
    done = run(*arguments, **environ)
    assert isinstance(done.exception, DaemonNotAsked), done.output
    return str(done.exception)


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_stats_as_a_table_and_as_json(place: Place) -> None:
    done = run("stats", "--url", place.daemon.url)
    rows = {row[0]: row[1:] for row in cells(done.stdout)}
    assert (rows["Figure"], rows["status"]) == (["Value"], ["healthy"])
    assert (rows["websocket.totalConnections"], rows["sse.totalConnections"]) == (["1"], ["1"])
    assert (rows["delivery.deliveries"], rows["channels.activeChannels"]) == (["40"], ["2"])
    assert (rows["redis.awaySince"], rows["channels.isConnected"]) == (["-"], ["yes"])
    assert "\x1b" not in done.stdout
    told = json.loads(run("stats", "--url", place.daemon.url, "--json").stdout)
    assert set(told) == set(place.daemon.stats())


def test_channels_in_each_order(place: Place) -> None:
    def listed(*options: str) -> list[list[str]]:
        return [row[:1] + row[2:] for row in cells(run("channels", "--url", place.daemon.url, *options).stdout)]

    busy, quiet = ["busy:1", "20", "2"], ["quiet:2", "0", "1"]
    assert listed() == [["Channel", "Messages", "Subscribers"], busy, quiet]
    assert listed("--sort", "subscribers")[1:] == [busy, quiet]
    assert listed("--sort", "name", "--limit", "1")[1:] == [busy]
    assert listed("--prefix", "qu")[1:] == [quiet]
    done = run("channels", "--url", place.daemon.url, "--limit", "1")
    assert done.stderr == "1 of 2; --limit shows more\n"
    told = json.loads(run("channels", "--url", place.daemon.url, "--json").stdout)
    assert [each["name"] for each in told["channels"]] == ["busy:1", "quiet:2"]


def test_clients_of_a_user_and_of_a_channel(place: Place) -> None:
    def listed(*options: str) -> list[tuple[str, str, str]]:
        done = run("clients", "--url", place.daemon.url, *options)
        return [(row[1], row[2], row[5]) for row in cells(done.stdout)[1:]]

    websocket, stream = ("u", "websocket", "20"), ("-", "sse", "20")
    assert sorted(listed()) == [stream, websocket]
    assert listed("--user", "u") == [websocket]
    assert listed("--channel", "quiet:2") == [websocket]
    assert listed("--user", "nobody") == []
    assert len(listed("--sort", "connected", "--limit", "1")) == 1
    told = json.loads(run("clients", "--url", place.daemon.url, "--user", "u", "--json").stdout)
    assert [(each["userId"], each["channelCount"]) for each in told["clients"]] == [("u", 2)]


def test_one_node_and_no_such_node(place: Place) -> None:
    (node,) = json.loads(run("stats", "--url", place.daemon.url, "--json").stdout)["nodes"]
    assert run("stats", "--url", place.daemon.url, "--node", node["id"]).exit_code == 0
    said = refusal("channels", "--url", place.daemon.url, "--node", "elsewhere")
    assert said.startswith(f"{place.daemon.url}: ")
    assert "elsewhere" in said
    assert node["id"] in said


@pytest.mark.parametrize("command", ["stats", "clients", "channels", "top"])
def test_nobody_answers_there(command: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    said = refusal(command, BROKER_URL=url)
    assert said == (
        f"cannot reach {url}: [Errno 111] Connection refused;"
        " start the daemon, or name another with --url or BROKER_URL"
    )


@pytest.mark.parametrize("command", ["stats", "clients", "channels", "top"])
def test_a_daemon_that_wants_a_token(place: Place, command: str) -> None:
    assert refusal(command, "--url", place.closed.url) == f"{place.closed.url} {NEEDS}"


def test_tokens_that_do_not_do_and_one_that_does(place: Place) -> None:
    def token(*options: str) -> str:
        return run("token", "create", "--user", "ann", *options, BROKER_AUTH_SECRET=SECRET).stdout.strip()

    url = place.closed.url
    said = refusal("stats", "--url", url, "--token", "nonsense")
    assert said.startswith(f"{url} refuses the token: ")
    said = refusal("stats", "--url", url, BROKER_TOKEN=token())
    assert said.startswith(f"{url}: the token is no admin's (")
    admin = token("--admin")
    done = run("stats", "--url", url, BROKER_TOKEN=admin)
    assert ["status", "healthy"] in cells(done.stdout)
    assert admin not in done.output
    done = run("stats", "--url", url, "--token", "with space")
    assert (done.exit_code, "not a token" in done.stderr) == (2, True)


@contextmanager
def answering(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Something that answers HTTP, and is no broker or another one; `answers` by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], (404, "<html>not here</html>"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


OLD = (200, '{"status":"healthy","version":"0.0.9"}')
UNKNOWN = (404, '{"error":"Not Found","detail":"nothing is served at there","hint":"Served here: /ws."}')


def test_a_daemon_of_another_version() -> None:
    answers = {"/health": OLD, "/api/realtime/clients": UNKNOWN, "/api/realtime/stats": (200, '{"status":"healthy"}')}
    with answering(answers) as url:
        assert refusal("clients", "--url", url) == (
            f"{url} does not know /api/realtime/clients: the daemon's version is 0.0.9, this program's {__version__};"
            " use the program that belongs to the daemon"
        )
        done = run("stats", "--url", url)
        assert cells(done.stdout)[1:] == [["status", "healthy"]]
        assert done.stderr == (
            f"broker: the daemon's version is 0.0.9, this program's {__version__}: figures may be missing\n"
        )
        # Nothing that is not there is made up.
        done = run("top", "--url", url, "--once", "--interval", "0.2")
        assert "Rates     -/s messages  -/s deliveries  -/s  -/s connects  -/s refused" in done.stdout
        assert "Clients   - WebSocket  - SSE  - of - connections" in done.stdout


def test_something_else_answers_there() -> None:
    with answering({}) as url:
        assert refusal("channels", "--url", url) == (
            f"{url}: HTTP 404 at /api/realtime/channels: no broker answers there; correct --url"
        )
    with answering({"/api/realtime/channels": (200, "<html>hello</html>")}) as url:
        assert refusal("channels", "--url", url) == (
            f"{url}: what answers /api/realtime/channels is no broker; correct --url"
        )


def test_a_daemon_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Source(Address(url), seconds=0.2) as source, pytest.raises(DaemonNotAsked) as caught:
            source.version()
    assert str(caught.value) == f"{url} does not answer within 0.2 s; see whether the daemon is stuck (its log)"


def test_a_certificate_that_nobody_trusts(place: Place, tmp_path: Path) -> None:
    authority = trustme.CA()
    pem, trusted = tmp_path / "server.pem", tmp_path / "authority.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(trusted)
    flags = ("--log-format", "json", "--redis-channel-prefix", "tls:", f"--listen-tls-certificate={pem}")
    daemon = DaemonProcess(place.redis.url, tmp_path / "tls.log", flags)
    daemon.start()
    try:
        url = f"https://localhost:{daemon.port}"
        said = refusal("stats", "--url", url)
        assert said.startswith(f"{url}: its certificate is not trusted: ")
        assert said.endswith("; --ca names one to trust")
        assert run("stats", "--url", url, "--ca", str(trusted)).exit_code == 0
        done = run("stats", "--url", url, "--ca", str(tmp_path / "none.pem"))
        assert (done.exit_code, "cannot read" in done.stderr) == (2, True)
    finally:
        assert daemon.stop() == 0


def test_the_command_itself_prints_one_line_and_status_1() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    command = [sys.executable, "-m", "broker", "channels", "--url", f"http://127.0.0.1:{free_port()}"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("broker: cannot reach http://127.0.0.1:")
