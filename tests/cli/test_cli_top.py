"""`broker top`: on a real terminal with keys, in a pipe, for machines, and when the daemon goes away and comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from broker import __version__
from tests.actors import peers
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import SsePeer, WebSocketPeer, open_streams, open_websockets
from tests.actors.redis_server import RedisServer
from tests.actors.terminal import Terminal
from tests.conftest import errors_of

INTERVAL = ("--interval", "0.3")
BROKER = (sys.executable, "-m", "broker")


@frozen
class Place:
    redis: RedisServer
    daemon: DaemonProcess
    websocket: WebSocketPeer
    stream: SsePeer

    @property
    def command(self) -> tuple[str, ...]:
        return (*BROKER, "top", "--url", self.daemon.url, *INTERVAL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("top")
    redis_server = RedisServer(folder)
    redis_server.start()
    daemon = DaemonProcess(redis_server.url, folder / "daemon.log", ("--log-format", "json"))
    daemon.start()
    (websocket,) = open_websockets(daemon.port, 1, "alpha:1", "beta:2")
    (stream,) = open_streams(daemon.port, 1, "beta:2")
    yield Place(redis_server, daemon, websocket, stream)
    peers.close_all()
    assert daemon.stop() == 0
    redis_server.kill()
    assert errors_of(daemon) == []


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_one(*arguments: object, **options: object) -> Terminal:
        opened.append(Terminal(*arguments, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def has(*texts: str) -> Callable[[list[str]], bool]:
    """Whether all of `texts` stand on the screen."""
    return lambda lines: all(any(text in line for line in lines) for text in texts)


def lacks(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: not any(text in line for line in lines) and any(lines)


def column(lines: list[str], title: str) -> list[str]:
    """The first cells below a title that begins a line."""
    (at,) = (index for index, line in enumerate(lines) if line.startswith(title))
    return [line.split()[0] for line in lines[at + 1 :] if line.strip()]


def test_keys_on_a_terminal(place: Place, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal(place.command)
    terminal.wait(has(f"broker top  {place.daemon.url}  {__version__}  healthy", "1 WebSocket  1 SSE", "Rate/s*"))
    assert terminal.is_alternate
    assert not terminal.echoes
    terminal.wait(has("connected  2 channels  3 subscriptions", "[channels, by rate]", "Nodes     1"))
    terminal.press("s")
    terminal.wait(has("[channels, by subscribers]", "Subscribers*"))
    terminal.wait(lambda lines: column(lines, "Channel") == ["beta:2", "alpha:1"])
    terminal.press("s")
    terminal.wait(lambda lines: has("[channels, by name]")(lines) and column(lines, "Channel") == ["alpha:1", "beta:2"])
    terminal.press("/bex")
    terminal.wait(has("Filter, the beginning of channels' names: bex"))
    terminal.press("\x7f\r")
    terminal.wait(lambda lines: has("only be]")(lines) and column(lines, "Channel") == ["beta:2"])
    terminal.press("\x1b")
    terminal.wait(lambda lines: lacks("only be]")(lines) and column(lines, "Channel") == ["alpha:1", "beta:2"])
    terminal.press("c")
    terminal.wait(lambda lines: has("[clients, by queued]")(lines) and len(column(lines, "Client ")) == 2)
    terminal.press("/u\r")
    terminal.wait(lambda lines: has("only u]")(lines) and column(lines, "Client ")[0].startswith("ws_"))
    terminal.press("\x1b[A\x1bOPn")  # an arrow and F1 are nothing
    terminal.wait(has("[nodes, by id]", "serving", "here"))
    terminal.press("pc")
    terminal.wait(has("PAUSED", "[clients, by queued, only u]"))
    terminal.press("q")
    assert terminal.wait_end() == 0
    assert not terminal.is_alternate
    assert terminal.echoes


def test_a_narrow_terminal_and_one_that_changes(place: Place, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal(place.command, columns=40, lines=14)
    terminal.wait(has("Channel", "Rate/s*", "Subscribers", "beta:2"))
    assert not has("Messages")(terminal.screen)
    assert terminal.screen[0].startswith("broker top  http://127.0.0.1")
    terminal.resize(120, 30)
    terminal.wait(has("Messages", "q quit", "alpha:1"))
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.wait_end() == 0
    assert terminal.echoes


def test_what_happens_is_seen(place: Place, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal(place.command, columns=120)
    terminal.wait(has(" 0 B of 256 MB queued"))
    # One that reads nothing, and whose kernel takes no more: what waits for it shows by itself below the channels.
    stalled = SsePeer(place.daemon.port, "alpha:1", receive_buffer=4096)
    peers.pump([stalled], lambda: stalled.is_open)

    def is_queued() -> bool:
        place.redis.publish("alpha:1", b'{"type":"x","pad":"%b"}' % (b"x" * 60_000))
        return bool(place.daemon.stats()["outboxes"]["queuedBytes"])

    peers.wait_until(is_queued)
    terminal.wait(has("Queued*", " KB of 256 MB queued", "sse_"))
    stalled.close()
    terminal.wait(lambda lines: has(" 0 B of 256 MB queued")(lines) and lacks("Queued*")(lines))
    terminal.press("q")
    assert terminal.wait_end() == 0


def test_a_daemon_that_goes_and_comes_back(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], open_terminal: Callable[..., Terminal]
) -> None:
    daemon = start_daemon(redis_server.url)
    terminal = open_terminal((*BROKER, "top", "--url", daemon.url, *INTERVAL), columns=160)
    terminal.wait(has("healthy"))
    redis_server.kill()
    terminal.wait(has("degraded", "AWAY for", "new events do not come"))
    redis_server.start()
    terminal.wait(has("healthy", "1 outages"))
    daemon.stop()
    # What was last known stays, and no rate.
    terminal.wait(has(f"cannot reach {daemon.url}: ", "1 outages", "-/s messages"))
    daemon.listen = f"127.0.0.1:{daemon.port}"
    daemon.start()
    terminal.wait(lambda lines: has("healthy", "0 outages")(lines) and lacks("cannot reach")(lines))
    terminal.press("q")
    assert terminal.wait_end() == 0


def test_once_for_machines_and_for_people(place: Place) -> None:
    once = (*place.command, "--once")
    done = subprocess.run((*once, "--json"), capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert set(told) == {"url", "version", "problem", "rates", "channels", "clients", "stats"}
    assert (told["url"], told["version"], told["problem"]) == (place.daemon.url, __version__, None)
    assert {each["name"] for each in told["channels"]} == {"alpha:1", "beta:2"}
    assert told["rates"]["deliveries"] == 0.0
    done = subprocess.run(once, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith(f"broker top  {place.daemon.url}  {__version__}  healthy")


def test_in_a_pipe_sample_follows_sample_until_nobody_reads(place: Place) -> None:
    with subprocess.Popen((*place.command, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert (first["rates"]["messages"], second["rates"]["messages"]) == (None, 0.0)
        process.stdout.close()
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


def test_the_module_is_not_loaded_for_nothing() -> None:
    code = "import sys, broker.cli.top; print([name for name in ('rich', 'httpx', 'trio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout == "[]\n"
