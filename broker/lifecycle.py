"""The life of the daemon as others see it: it starts, serves, and stops, and whether it wants new clients.

Signals, the control socket and whoever takes over say `stop`; readiness, systemd and the drain look here.
"""

from __future__ import annotations

import trio
from attrs import Factory, define

STARTING, SERVING, STOPPING = "starting", "serving", "stopping"


@define(eq=False)
class Lifecycle:
    """Synchronous, but for waiting on its events.

    Args:
        is_taken_over: another process has our listening sockets: who connects meanwhile is served by it.
        is_handing_over: another process is about to have them.
    """

    state: str = STARTING
    stopping: trio.Event = Factory(trio.Event)
    is_taken_over: bool = False
    is_handing_over: bool = False

    def serve(self) -> None:
        """Everything runs."""
        if self.state == STARTING:
            self.state = SERVING

    def stop(self, *, is_taken_over: bool = False) -> None:
        """Begin to leave. Once is enough."""
        self.is_taken_over = self.is_taken_over or is_taken_over
        self.state = STOPPING
        self.stopping.set()

    @property
    def keeps_files(self) -> bool:
        """Whether the files of our unix sockets are somebody else's, or may be in a moment."""
        return self.is_taken_over or self.is_handing_over

    @property
    def is_ready(self) -> bool:
        """Whether new clients are welcome."""
        return self.state == SERVING
