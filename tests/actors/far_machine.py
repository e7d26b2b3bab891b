"""A far machine: a network namespace with a cable to here, and sockets in it. For root on Linux with `ip`.

The cable can be pulled out: then packets are lost both ways, and nobody closes anything or is told.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from types import TracebackType
from typing import Self

from attrs import define, field

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, of setns(2)
_CONNECT_SECONDS = 10.0


class NoFarMachine(Exception):
    """There can be none here; the message says why."""


@define(eq=False)
class FarMachine:
    """Made and taken away by a `with`. Blocks.

    Args:
        number: of the network, 0 to 255: those that are there at once differ in it.
    """

    number: int = field(factory=lambda: os.getpid() % 256)
    _name: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._name = f"brk{os.getpid()}-{self.number}"

    @property
    def near_address(self) -> str:
        """Of this machine, as the far one has it."""
        return f"10.213.{self.number}.1"

    @property
    def _far_address(self) -> str:
        return f"10.213.{self.number}.2"

    @property
    def _near_end(self) -> str:
        return f"brk{self.number}n"

    @property
    def _far_end(self) -> str:
        return f"brk{self.number}f"

    def __enter__(self) -> Self:
        """
        Raises:
            NoFarMachine: this is no place for one.
        """
        try:
            _ip("netns", "add", self._name)
            _ip("link", "add", self._near_end, "type", "veth", "peer", "name", self._far_end, "netns", self._name)
            _ip("addr", "add", f"{self.near_address}/24", "dev", self._near_end)
            _ip("link", "set", self._near_end, "up")
            _ip("-n", self._name, "addr", "add", f"{self._far_address}/24", "dev", self._far_end)
            self.plug_in()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__(None, None, None)
            said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise NoFarMachine(f"no network namespace can be made: {said}") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # With it goes the cable.
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._near_end], capture_output=True, check=False)

    def pull_out(self) -> None:
        """The cable is out."""
        _ip("-n", self._name, "link", "set", self._far_end, "down")

    def plug_in(self) -> None:
        _ip("-n", self._name, "link", "set", self._far_end, "up")

    def connect(self, port: int) -> socket.socket:
        """A connection from there to a port of `near_address`."""
        found: list[socket.socket | OSError] = []

        def connect() -> None:
            # Of this thread alone, which ends with it.
            with open(f"/run/netns/{self._name}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK):
                    found.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                found.append(socket.create_connection((self.near_address, port), _CONNECT_SECONDS))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
