"""The supervisor: how a daemon of several workers begins and ends, and what it says when it cannot begin."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from functools import partial
from pathlib import Path

import pytest
import trio

from broker.config.sources import load
from broker.controlcall import call
from broker.errors import BrokerError
from broker.workers.supervisor import run_supervisor
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import close_all, open_streams, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of
from tests.workers.conftest import Start
from tests.workers.crew import children_of, is_there, workers_of


def refusal(**flags: object) -> str:
    """What a daemon of two workers says that does not start."""
    effective = load(flags={name.replace("__", "."): value for name, value in flags.items()}, environ={}, file=None)
    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(partial(run_supervisor, effective, workers=2, dev=False, on_ready=print))
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        assert len(error.exceptions) == 1
        error = error.exceptions[0]
    assert isinstance(error, BrokerError)
    return str(error)


def test_what_every_worker_would_say_is_said_once(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("requirepass", "right")
    url = f"redis://:wrong@127.0.0.1:{redis_server.port}/0"
    said = refusal(listen__addresses=("127.0.0.1:0",), redis__url=url)
    assert "password" in said
    assert said.endswith("(set by flag --redis)")
    assert len(said.splitlines()) == 1


def test_what_the_supervisor_can_tell_it_tells_before_any_worker_starts() -> None:
    assert "the embedded one is for loopback addresses only" in refusal(
        listen__addresses=("0.0.0.0:0",), auth__mode="off"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal(listen__addresses=(address,)) == (
            f"cannot listen on {address} (set by flag --listen): "
            "another program listens there; stop it, or choose another address with --listen"
        )


def test_nothing_is_left_of_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """Its workers drain and end, and the embedded Valkey goes with it."""
    flags = ("--log-format", "json", "--workers", "2", "--daemon-control-socket", "off")
    # No fork: the folder for temporary files is looked up once.
    daemon = DaemonProcess(None, tmp_path / "daemon.log", flags, {"TMPDIR": str(tmp_path)}, is_forked=False)
    daemon.start()
    websockets, streams = open_websockets(daemon.port, 6, "a:1"), open_streams(daemon.port, 6, "a:1")
    try:
        family = _descendants(daemon.process.pid)
        assert len(workers_of(daemon)) == 2
        assert len(family) >= 4  # the shell that holds Valkey, and Valkey
        daemon.process.kill()
        daemon.process.wait()
        pump([*websockets, *streams], lambda: all(peer.parse() and peer.close_code for peer in websockets))
        for peer in websockets:
            peer.send_close(1012)
        pump(streams, lambda: all(peer.is_complete for peer in streams))
        wait_until(lambda: not any(map(is_there, family)))
    finally:
        close_all()
        daemon.stop()
    assert errors_of(daemon) == []
    assert [peer.close_code for peer in websockets] == [1012] * 6
    assert list(tmp_path.glob("broker-*")) == []


def test_orders_reach_every_worker_and_the_port_is_taken(
    start_daemon: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Also those that come later. What is bad changes nothing."""
    settings, control = tmp_path / "broker.toml", tmp_path / "control.sock"
    settings.write_text("")
    daemon = start_daemon(
        redis_server.url, "--workers", "2", "--config", str(settings), "--daemon-control-socket", str(control)
    )
    bad, died = "the new settings cannot be used; those before stay", "a worker has died; another takes its place"
    daemon.expected_errors |= {bad, died}
    # Theirs to share, and nobody else's.
    assert "another program listens there" in refusal(listen__addresses=(f"127.0.0.1:{daemon.port}",))
    settings.write_text('[log]\nrequests = "loud"\n')
    problems = call(control, "reload")["problems"]
    assert len(problems) == 1
    assert "log.requests" in problems[0]
    settings.write_text('[daemon]\nnode = "elsewhere"\n[log]\nrequests = "on"\n')
    answer = call(control, "reload")
    assert answer == {
        "changed": ["log.requests: 'off' -> 'on'"],
        "waiting": ["daemon.node"],
        "problems": [],
        "pid": daemon.process.pid,
    }
    wait_until(lambda: _who_logged(daemon, "settings read again") == {None, 0, 1})
    before = workers_of(daemon)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def replaced() -> list[int]:
        """The slots whose new worker serves."""
        workers = call(control, "status")["workers"]
        return [each["slot"] for each in workers if each["is_serving"] and each["pid"] not in before.values()]

    wait_until(lambda: replaced() == [0, 1])
    assert daemon.stats()["status"] == "healthy"
    wait_until(lambda: _who_logged(daemon, "request"))
    daemon.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: _who_logged(daemon, "dump: state") == {0, 1})
    assert daemon.stop() == 0


def test_what_is_said_while_a_worker_starts_is_not_lost_on_it(
    start_daemon: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """New settings; a dump, which must not end it; and that there is no room for it at all."""
    settings, control = tmp_path / "broker.toml", tmp_path / "control.sock"
    settings.write_text("")
    daemon = start_daemon(
        redis_server.url, "--workers", "2", "--config", str(settings), "--daemon-control-socket", str(control)
    )
    died = "a worker has died; another takes its place"
    daemon.expected_errors.add(died)
    supervisor, before = daemon.process.pid, workers_of(daemon)
    soft, hard = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (10, hard))
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: "was not started" in {entry.get("how") for entry in _entries(daemon, died)})
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: workers_of(daemon).keys() == {0, 1})
    starting = workers_of(daemon)[0]
    os.kill(starting, signal.SIGSTOP)
    settings.write_text('[log]\nrequests = "on"\n')
    assert call(control, "reload")["changed"] == ["log.requests: 'off' -> 'on'"]
    call(control, "dump")
    os.kill(starting, signal.SIGCONT)
    wait_until(lambda: all(worker["is_serving"] for worker in call(control, "status")["workers"]))
    assert workers_of(daemon) == {0: starting, 1: before[1]}
    wait_until(lambda: {entry.get("worker") for entry in _entries(daemon, "settings read again")} == {None, 0, 1})
    assert daemon.stop() == 0


def _entries(daemon: DaemonProcess, event: str) -> list[dict[str, object]]:
    return [entry for line in daemon.log().splitlines() if (entry := json.loads(line))["event"] == event]


def _who_logged(daemon: DaemonProcess, event: str) -> set[object]:
    """The workers that did; None for the supervisor."""
    return {entry.get("worker") for entry in _entries(daemon, event)}


def _descendants(pid: int) -> list[int]:
    children = children_of(pid)
    return [*children, *(deeper for child in children for deeper in _descendants(child))]
