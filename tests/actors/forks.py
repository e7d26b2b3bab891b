"""Python processes that cost no start and no imports: a server that has them behind it forks them.

Half of what a daemon costs a test is the start of an interpreter and the imports, one CPU second and
more; a fork costs a hundredth. What is forked runs as `python -m MODULE` would: `__main__`, `sys.argv`,
environment, standard streams, open-file limit, an exit with `atexit` and all. Only `sys.orig_argv`, what
is already imported and the hash seed are the server's own. Whoever needs those new asks for `exec`.

The server (`python -m tests.actors.forks`) has no threads and opens nothing. A request is one datagram: JSON,
three descriptors, and listening sockets as systemd gives them. Its processes are killed when whoever asked for
them is gone.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from attrs import define, field

from tests.actors.roots import trust_one_root

# What a daemon imports as it starts, what it imports behind that, and what a worker imports.
IMPORTED = ("broker.cli.serve", "broker.web.app", "hypercorn.trio.tcp_server", "broker.evaluation")
REQUEST_BYTES = 128 * 1024
SOCKETS_MAX = 8
_FIRST_SOCKET = 3
_HIGH = 200  # descriptors from here on are nobody's
_INT = struct.Struct("!i")

_server: socket.socket | None = None
_starting = threading.Lock()


@define(eq=False)
class ForkedProcess:
    """One such process, with the face of `subprocess.Popen`. `stdout` is there when nothing else was given."""

    arguments: Sequence[str]
    pid: int
    _status: int
    stdout: IO[str] | None = None
    returncode: int | None = field(init=False, default=None)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not wait_readable(self._status, timeout):
                raise subprocess.TimeoutExpired(list(self.arguments), timeout or 0.0)
            self.returncode = _read_int(self._status)
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_fork(
    module: str,
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str],
    stderr: int,
    stdout: int | None = None,
    sockets: Sequence[socket.socket] = (),
) -> ForkedProcess:
    """Start `python -m module arguments`, in the caller's folder.

    Args:
        stdout: a descriptor, or None for a pipe whose other end is the process's `stdout`.
        sockets: its descriptors 3, 4 and so on, with $LISTEN_PID; at most `SOCKETS_MAX`.
    """
    listened, told = os.pipe()
    reader = None
    if stdout is None:
        here, there = os.pipe()
        reader = open(here, encoding="utf-8")  # noqa: SIM115 - as long as the process
    else:
        there = os.dup(stdout)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [each.fileno() for each in sockets]
    asked = {"run": [module, *arguments], "environ": dict(environ), "folder": os.getcwd(), "files": limits}
    try:
        socket.send_fds(_server_or_start(), [json.dumps(asked).encode()], [there, stderr, told, *held])
    finally:
        os.close(there)
        os.close(told)
    return ForkedProcess((module, *arguments), _read_int(listened), listened, reader)


def run_fork(
    module: str, arguments: Sequence[str], *, environ: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments` to its end, as `subprocess.run(capture_output=True, text=True)`."""
    said, err = os.pipe()
    process = start_fork(module, arguments, environ=environ, stderr=err)
    os.close(err)
    assert process.stdout is not None
    texts: dict[int, bytes] = {process.stdout.fileno(): b"", said: b""}
    deadline = time.monotonic() + timeout
    going = set(texts)
    try:
        while going:
            ready, _, _ = select.select(going, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(["python", "-m", module, *arguments], timeout)
            for each in ready:
                data = os.read(each, 1 << 16)
                texts[each] += data
                if not data:
                    going.discard(each)
        status = process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        process.kill()
        process.stdout.close()
        os.close(said)
    stdout, stderr = (text.decode() for text in texts.values())
    return subprocess.CompletedProcess([module, *arguments], status, stdout, stderr)


def wait_readable(descriptor: int, seconds: float | None) -> bool:
    """Whether there is something to read, or the end, within so long. Unlike `select`, of any descriptor."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))


def _read_int(descriptor: int) -> int:
    data = os.read(descriptor, _INT.size)
    assert len(data) == _INT.size, "the server of forks has ended"
    return int(_INT.unpack(data)[0])


def _server_or_start() -> socket.socket:
    """This process's server. It ends with this process."""
    global _server
    with _starting:
        if _server is None:
            mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * REQUEST_BYTES)
            with other:
                command = [sys.executable, "-m", "tests.actors.forks", str(other.fileno())]
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[other.fileno()]
                )
            _server = mine
            atexit.register(_end, process)
        return _server


def _end(process: subprocess.Popen[bytes]) -> None:
    assert _server is not None
    _server.close()
    process.wait(10)


def _serve(control: socket.socket) -> list[str]:
    """Fork until the other side is gone, then exit. Returns only in what was forked: what to run."""
    for module in IMPORTED:
        importlib.import_module(module)
    trust_one_root()
    # Else every one of them looks through all of it as it ends.
    gc.collect()
    gc.freeze()
    children: dict[int, int] = {}
    awake, wake = socket.socketpair()
    for each in (awake, wake):
        each.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake.fileno())
    while True:
        ready, _, _ = select.select([control, awake], [], [])
        if awake in ready:
            awake.recv(4096)
            _tell_of_ended(children)
        if control not in ready:
            continue
        data, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 3 + SOCKETS_MAX)
        if not data:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            sys.exit()
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for each in (control, awake, wake):
                each.close()
            for status in (*children.values(), descriptors[2]):
                os.close(status)
            return _become(json.loads(data), descriptors[0], descriptors[1], descriptors[3:])
        os.write(descriptors[2], _INT.pack(pid))
        children[pid] = descriptors[2]
        for descriptor in (*descriptors[:2], *descriptors[3:]):
            os.close(descriptor)


def _tell_of_ended(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with suppress(BrokenPipeError):
            os.write(children[pid], _INT.pack(os.waitstatus_to_exitcode(status)))
        os.close(children.pop(pid))


def _become(asked: dict[str, object], stdout: int, stderr: int, sockets: Sequence[int]) -> list[str]:
    # Out of the way first: what is moved may be where another goes.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, _HIGH) for each in (stdout, stderr, *sockets)]
    for descriptor in (stdout, stderr, *sockets):
        os.close(descriptor)
    for descriptor, place in zip(high, (1, 2, *range(_FIRST_SOCKET, _FIRST_SOCKET + len(sockets))), strict=True):
        os.dup2(descriptor, place)
        os.close(descriptor)
    environ, folder, files, run = asked["environ"], asked["folder"], asked["files"], asked["run"]
    assert isinstance(environ, dict) and isinstance(folder, str) and isinstance(files, list) and isinstance(run, list)
    os.environ.clear()
    os.environ.update(environ)
    if sockets:
        os.environ["LISTEN_PID"] = str(os.getpid())
    os.chdir(folder)
    # It is remembered, and the environment may say another.
    tempfile.tempdir = None
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[0], files[1]))
    return run


if __name__ == "__main__":
    _module, *sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module(_module, run_name="__main__", alter_sys=True)
