"""The service manager's side: a socket for notifications, and a daemon that is started with listening sockets."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import define, field

from tests.actors.forks import ForkedProcess, start_fork

SECONDS = 30.0
_HIGH = 200  # descriptors from here on are nobody's


@define(eq=False)
class NotifySocket:
    """What $NOTIFY_SOCKET names. Keeps every datagram in order."""

    address: str
    taken: list[str] = field(factory=list)
    _socket: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)

    def take(self, seconds: float = 0.0) -> list[str]:
        """What has come, after waiting for one datagram at most so long."""
        found: list[str] = []
        while select.select([self._socket], [], [], 0.0 if found else seconds)[0]:
            found.append(self._socket.recv(65536).decode())
        self.taken += found
        return found

    def wait_for(self, is_it: Callable[[str], object], seconds: float = SECONDS) -> str:
        """The next datagram of that kind."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for text in self.take(left):
                if is_it(text):
                    return text
        raise AssertionError(f"it was not told within {seconds:g} s; told was {self.taken}")

    def close(self) -> None:
        self._socket.close()


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A socket that listens on a free port, as systemd opens it."""
    opened = socket.create_server((host, 0), backlog=4096)
    return opened


def activated(command: Sequence[str], sockets: Sequence[socket.socket]) -> tuple[list[str], list[int]]:
    """A command that has `sockets` as its descriptors 3, 4 and so on, with LISTEN_PID; and what it is to be passed."""
    high = [fcntl.fcntl(one, fcntl.F_DUPFD, _HIGH) for one in sockets]
    moves = "".join(f"exec {3 + index}<&{number} {number}<&-; " for index, number in enumerate(high))
    return ["bash", "-c", f'{moves}export LISTEN_PID=$$; exec "$@"', "bash", *command], high


@define(eq=False)
class Service:
    """A daemon that the manager has started.

    Args:
        flags: of `broker serve`; it says where to listen only if these do.
        environ: variables besides those that the manager sets.
        is_forked: whether its interpreter may be a fork (tests/actors/forks.py).
    """

    notify: NotifySocket
    log_path: Path
    sockets: Sequence[socket.socket]
    flags: tuple[str, ...]
    environ: Mapping[str, str] = field(factory=dict)
    is_forked: bool = True
    process: subprocess.Popen[str] | ForkedProcess = field(init=False)
    expected_errors: set[str] = field(factory=set)

    def start(self) -> None:
        """Start it, and do not wait."""
        arguments = ["serve", "--log-format", "json", *self.flags]
        clean = {key: text for key, text in os.environ.items() if not key.startswith("BROKER_") and key != "REDIS_URL"}
        told = {"NOTIFY_SOCKET": self.notify.address, "LISTEN_FDS": str(len(self.sockets)), "LISTEN_FDNAMES": "a:b"}
        environ = {**clean, **told, **self.environ}
        with open(self.log_path, "ab") as log:
            if self.is_forked:
                self.process = start_fork(
                    "broker", arguments, environ=environ, stderr=log.fileno(), sockets=self.sockets
                )
                return
            command, high = activated([sys.executable, "-m", "broker", *arguments], self.sockets)
            try:
                self.process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=log, text=True, pass_fds=high, env=environ
                )
            finally:
                for number in high:
                    os.close(number)

    def wait_ready(self) -> None:
        try:
            self.notify.wait_for(lambda text: text.startswith("READY=1"))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        try:
            return self.process.wait(SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
