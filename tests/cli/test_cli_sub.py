"""`broker sub`, run as a person runs it: in a process of its own, in pipes and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from broker.cli.sub import escaped
from tests.actors.daemon_process import DaemonProcess
from tests.actors.piped import PipedFork
from tests.actors.redis_server import RedisServer, free_port
from tests.actors.stamping import Stamping
from tests.conftest import errors_of

BOUND_SECONDS = 10.0
Shared = tuple[RedisServer, DaemonProcess]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A Redis and a daemon for all tests that leave them as they are, each with channels of its own."""
    folder = tmp_path_factory.mktemp("shared")
    redis_server = RedisServer(folder)
    redis_server.start()
    daemon = DaemonProcess(redis_server.url, folder / "daemon.log", ("--log-format", "json"))
    daemon.start()
    yield redis_server, daemon
    daemon.stop()
    redis_server.kill()
    assert errors_of(daemon) == []


def _sub(*arguments: str, stdout: int | None = None, url: str | None = None) -> PipedFork:
    environ = {key: os.environ[key] for key in os.environ if not key.startswith(("BROKER_", "PYTHONUNBUFFERED"))}
    if url is not None:
        environ["BROKER_URL"] = url
    return PipedFork.start("broker", ["sub", *arguments], environ=environ, stdout=stdout)


def _read_line(process: PipedFork, file: str = "stdout") -> str:
    stream = getattr(process, file)
    ready, _, _ = select.select([stream], [], [], BOUND_SECONDS)
    assert ready, f"nothing on {file}"
    return str(stream.readline().decode())


def _until_subscribed(daemon: DaemonProcess, channel: str) -> None:
    _until(lambda: any([channel] == each["subscribedChannels"] for each in daemon.stats()["websocket"]["clients"]))


def _until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_are_printed_as_they_come_with_time_and_type(shared: Shared) -> None:
    redis_server, daemon = shared
    with _sub("a:1", "b", "--url", daemon.url) as process:
        assert _read_line(process, "stderr") == f"broker: subscribed to a:1, b at {daemon.url}\n"
        redis_server.publish("a:1", b'{"type": "job_progress",\r\n "note": "\xc3\xa9"}')
        line = _read_line(process)
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} ", line[:13])
        assert line[13:] == 'job_progress {"type": "job_progress",  "note": "é"}\n'
        redis_server.publish("b", rb'{"type": "\u001b[31m"}')
        assert _read_line(process)[13:] == '\\u001b[31m {"type": "\\u001b[31m"}\n'
        redis_server.publish("b", b"[]")
        assert _read_line(process)[13:] == "- []\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_SECONDS) == 0
        assert process.communicate() == (b"", b"")


def test_json_is_the_event_alone(shared: Shared) -> None:
    redis_server, daemon = shared
    with _sub("--json", "a:3", url=daemon.url) as process:
        _until_subscribed(daemon, "a:3")
        redis_server.publish("a:3", b'{"a":\n1}', '"\u202e\u0085"'.encode())
        assert [_read_line(process), _read_line(process)] == ['{"a": 1}\n', '"\u202e\u0085"\n']
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=BOUND_SECONDS) == (b"", b"")
        assert process.returncode == 0


def test_a_pipe_that_closes_ends_it_quietly(shared: Shared) -> None:
    redis_server, daemon = shared
    with _sub("--json", "a:4", url=daemon.url) as process:
        with subprocess.Popen(["head", "-1"], stdin=process.stdout, stdout=subprocess.PIPE) as head:
            assert process.stdout is not None
            process.stdout.close()
            process.stdout = None
            _until_subscribed(daemon, "a:4")
            redis_server.publish("a:4", *(b'{"n":%d}' % n for n in range(1000)))
            assert head.communicate(timeout=BOUND_SECONDS)[0] == b'{"n":0}\n'
        assert process.wait(BOUND_SECONDS) == 0
        assert process.communicate()[1] == b""


def test_a_pipe_that_closes_ends_it_while_no_event_comes(shared: Shared) -> None:
    _, daemon = shared
    with _sub("--json", "a:5", url=daemon.url) as process:
        _until_subscribed(daemon, "a:5")
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert process.wait(BOUND_SECONDS) == 0
        assert process.communicate()[1] == b""


def test_a_socket_that_closes_ends_it_quietly_at_the_next_event(shared: Shared) -> None:
    redis_server, daemon = shared
    ours, theirs = socket.socketpair()
    with theirs, _sub("--json", "a:closed", url=daemon.url, stdout=theirs.fileno()) as process:
        _until_subscribed(daemon, "a:closed")
        theirs.close()
        ours.close()
        redis_server.publish("a:closed", b"{}")
        assert process.wait(BOUND_SECONDS) == 0
        assert process.communicate()[1] == b""


def test_a_terminal_is_not_commanded(shared: Shared) -> None:
    redis_server, daemon = shared
    ours, theirs = pty.openpty()
    try:
        with _sub("--json", "a:6", url=daemon.url, stdout=theirs):
            _until_subscribed(daemon, "a:6")
            redis_server.publish("a:6", '{"note":"é\u009b31m\u202e\x7f"}'.encode())
            seen = b""
            while not seen.endswith(b"\n"):
                assert select.select([ours], [], [], BOUND_SECONDS)[0]
                seen += os.read(ours, 1000)
            assert seen.decode() == '{"note":"é\\u009b31m\\u202e\\u007f"}\r\n'
    finally:
        os.close(ours)
        os.close(theirs)


def test_escapes_mean_the_same_in_json() -> None:
    assert escaped("a\x1b\n\x9f\u2028\u2066é\U0001f680") == "a\\u001b\\u000a\\u009f\\u2028\\u2066é\U0001f680"


def test_a_loss_is_told_on_standard_error(daemon: DaemonProcess) -> None:
    with _sub("--json", "a:8", url=daemon.url) as process:
        _until_subscribed(daemon, "a:8")
        daemon.stop(signal.SIGKILL)
        assert _read_line(process, "stderr") == "broker: disconnected: the connection broke\n"
        assert re.match(
            r"broker: waiting: .* Connection refused \(away for \d\.\d s\)\n", _read_line(process, "stderr")
        )
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=BOUND_SECONDS)[0] == b""
        assert process.returncode == 0


def test_positions_are_printed_and_gone_on_from(shared: Shared) -> None:
    redis_server, daemon = shared
    service = Stamping(redis_server, "ai_stream:a=b")
    with _sub("--positions", service.channel, "a:9", "--url", daemon.url) as process:
        assert _read_line(process, "stderr") == f"broker: subscribed to ai_stream:a=b, a:9 at {daemon.url}\n"
        service.publish(b'{"type": "x"}')
        first = _read_line(process)[13:]
        redis_server.publish("a:9", b"[]")
        assert _read_line(process)[13:] == "a:9 - - []\n"
    service.publish(b'{"n": 2}', b'{"n":\n3}')
    positions = service.positions()
    assert first == f'ai_stream:a=b {positions[0]} x {{"type": "x"}}\n'
    since = f"{service.channel}={positions[0]}"
    with _sub("--json", "--positions", service.channel, "a:9", "--since", since, url=daemon.url) as process:
        lines = [_read_line(process), _read_line(process)]
        redis_server.publish("a:9", b"null")
        lines.append(_read_line(process))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=BOUND_SECONDS) == (b"", b"")
        assert process.returncode == 0
    assert lines == [
        f'{{"channel":"ai_stream:a=b","position":"{positions[1]}","event":{{"n": 2}}}}\n',
        f'{{"channel":"ai_stream:a=b","position":"{positions[2]}","event":{{"n": 3}}}}\n',
        '{"channel":"a:9","position":null,"event":null}\n',
    ]


def test_a_gap_is_a_line_on_standard_error(shared: Shared) -> None:
    _, daemon = shared
    told = "broker: gap: events may be missing on a:10: no_history: the client came back to a channel that has no "
    told += "history, or whose history cannot be read"
    for more, line in (([], told), (["--positions"], f"{told} (from - to -)")):
        with _sub("--json", "a:10", "--since", "a:10=1:2:3", *more, url=daemon.url) as process:
            assert _read_line(process, "stderr") == f"{line}\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(BOUND_SECONDS) == 0
            assert process.communicate() == (b"", b"")


@pytest.mark.parametrize(
    ("since", "status", "line"),
    [
        ("a", 2, "Error: Invalid value for --since: 'a' is not CHANNEL=POSITION"),
        ("a=", 2, "Error: Invalid value for --since: 'a=' is not CHANNEL=POSITION"),
        ("b=1:2:3", 1, "broker: a position for b, which is not subscribed to; name it among the channels"),
    ],
)
def test_a_since_that_cannot_be_used_is_said(since: str, status: int, line: str) -> None:
    with _sub("a", "--since", since) as process:
        output, told = process.communicate(timeout=BOUND_SECONDS)
        assert (process.returncode, output, told.decode().splitlines()[-1]) == (status, b"", line)


def test_what_cannot_work_is_one_line() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    for arguments, line in (
        (
            ["a b", "--url", url],
            "channel 'a b' has a character that is not allowed; use letters, digits and _ - . @ = + ~",
        ),
        (
            ["a", "--url", url],
            f"cannot subscribe at {url}: [Errno 111] Error connecting to ('127.0.0.1', {port}): Connection refused; "
            "start it with `broker serve`, or correct the URL",
        ),
    ):
        with _sub(*arguments) as process:
            output = process.communicate(timeout=BOUND_SECONDS)
            assert (process.returncode, *output) == (1, b"", f"broker: {line}\n".encode())
