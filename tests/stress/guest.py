"""A guest: one of `tests.actors.followers`, driven by trio. It comes back by itself wherever it is cut off."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio
from attrs import define, field

from tests.actors.followers import Follower

AGAIN_SECONDS = 0.05


@define(eq=False)
class Guest:
    """Runs in `live`. `tell` is called whenever something has come.

    Args:
        trickle: it takes so many bytes every `AGAIN_SECONDS`; None for all that comes.
    """

    follower: Follower
    _tell: Callable[[], object]
    trickle: int | None = None
    _changed: trio.Event = field(factory=trio.Event)

    async def live(self) -> None:
        follower = self.follower
        while True:
            if follower.is_due:
                follower.connect()
            peer = follower.peer
            if peer is None:
                await self._wait(AGAIN_SECONDS if follower.port is not None else math.inf)
            elif follower.is_stalled:
                await self._wait(math.inf)
            else:
                try:
                    await trio.lowlevel.wait_readable(peer.socket)
                except trio.ClosedResourceError:
                    continue
                # It may have been cut, or told to stop, while this waited.
                if follower.peer is peer and not follower.is_stalled:
                    follower.receive(self.trickle or 1 << 18)
                    self._tell()
                if self.trickle is not None:
                    await trio.sleep(AGAIN_SECONDS)

    async def _wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._changed.wait()

    def cut(self, size: int = 0) -> None:
        """Take `size` bytes more, if they are there, and be gone; to come back."""
        peer = self.follower.peer
        if peer is not None:
            trio.lowlevel.notify_closing(peer.socket)
        self.follower.cut_within(size)
        self._change()

    def leave(self) -> None:
        self.follower.port = None
        self.cut()

    def go_to(self, port: int) -> None:
        """Where it comes back from now on."""
        self.follower.port = port
        self._change()

    def stall(self) -> None:
        """It reads nothing more, until `go_on`."""
        self.follower.is_stalled = True

    def go_on(self) -> None:
        self.follower.is_stalled = False
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
