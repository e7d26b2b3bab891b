"""What goes out on an HTTP/2 connection: written at once as far as the kernel takes it, else by one task.

Laws: `put` never waits and raises nothing. Whoever has more to send waits for room first, so that no more waits here
than `ROOM_BYTES` and one piece of each who waited. A peer that takes nothing for too long is gone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio
from attrs import define, field

ROOM_BYTES = 64 * 1024
_WRITE_BYTES = 16 * 1024


@define(eq=False)
class Http2Output:
    """The way out of one connection.

    Args:
        socket: non-blocking; its owner closes it.
        patience: how long the peer may take nothing, in seconds, as it is now.
        on_taken: told how many bytes the kernel took.
        on_broken: told once that nothing can be written any more.
    """

    _socket: socket.socket
    _patience: Callable[[], float]
    _on_taken: Callable[[int], None]
    _on_broken: Callable[[], None]
    _waiting: bytearray = field(init=False, factory=bytearray)
    _has_some: trio.Event = field(init=False, factory=trio.Event)
    _has_room: trio.Event = field(init=False, factory=trio.Event)
    _is_waiting: bool = field(init=False, default=False)
    is_broken: bool = field(init=False, default=False)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def is_full(self) -> bool:
        return len(self._waiting) > ROOM_BYTES

    def put(self, data: bytes) -> None:
        """Send `data` behind what waits."""
        if not self.is_broken:
            self._waiting += data
            if not self._is_waiting:
                self._write_some()

    async def wait_for_room(self) -> None:
        """Wait until the kernel has taken something, or never will."""
        await self._has_room.wait()

    def wake(self) -> None:
        """Have everybody who waits for room look again."""
        self._has_room.set()
        self._has_room = trio.Event()

    async def drain(self) -> None:
        """Wait until nothing waits any more, or never will be taken. The caller bounds the wait."""
        while self._waiting:
            await self.wait_for_room()

    def abandon(self) -> None:
        """Nothing can be written any more."""
        if not self.is_broken:
            self.is_broken = True
            self._waiting.clear()
            self.wake()
            self._on_broken()

    async def write(self) -> None:
        """Write what waits. Runs until nothing can be written any more, or until cancelled."""
        while True:
            await self._has_some.wait()
            self._has_some = trio.Event()
            self._is_waiting = True
            with trio.move_on_after(self._patience()) as waiting:
                await trio.lowlevel.wait_writable(self._socket)
            self._is_waiting = False
            if waiting.cancelled_caught:
                self.abandon()
            if self.is_broken:
                return
            self._write_some()

    def _write_some(self) -> None:
        try:
            while self._waiting:
                taken = self._socket.send(bytes(self._waiting[:_WRITE_BYTES]))
                del self._waiting[:taken]
                self._on_taken(taken)
        except BlockingIOError:
            self._has_some.set()
        except OSError:
            self.abandon()
        if not self.is_full:
            self.wake()
