"""The post: a worker's place in its daemon, which the supervisor has given to it.

It has the listening sockets of its own slot, and those of the other slots too: while the worker of a slot is gone
or does not answer, the others accept for it, so that nobody waits in a queue that nobody serves.

Laws: a sign of life comes from the event loop, so a loop that is stuck gives none, nor does one that hands on
nothing that comes from Redis. A supervisor that is gone is the
same as one that says stop.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import structlog
import trio
from attrs import define, field

from broker.config.sources import Effective
from broker.door import Door
from broker.lifecycle import STARTING, Lifecycle
from broker.listening import Listener
from broker.post.launch import Launch
from broker.post.pipe import Message, WorkerPipe, unpacked
from broker.post.siblings import Siblings
from broker.systemd import Vitals

log = structlog.get_logger(__name__)

LIFE_SIGN_SECONDS = 1.0
_REST_SECONDS = 0.5


@define(eq=False)
class Post:
    """One worker's.

    Args:
        slot: which of the daemon's workers this one is, from 0.
        effective: the newest settings.
        is_dev: whether the daemon was started with `--dev`.
        on_dump: writes what the worker is doing to the log; None while nobody can.
    """

    slot: int
    effective: Effective
    siblings: Siblings
    _pipe: WorkerPipe
    _listeners: Sequence[Sequence[Listener]]
    _shared: Sequence[Listener]
    is_dev: bool = False
    on_dump: Callable[[], object] | None = field(init=False, default=None)
    _on_settings: Callable[[], object] | None = field(init=False, default=None)
    _has_news: bool = field(init=False, default=False)  # settings that nobody goes by yet
    _served: set[int] = field(init=False, factory=set)  # slots that are accepted for, besides the own one
    _changed: trio.Event = field(init=False, factory=trio.Event)

    @asynccontextmanager
    async def open_listeners(self) -> AsyncIterator[list[Listener]]:
        """The listeners of the slot, and those that are shared. Owns those of the other slots too, until the end."""
        try:
            yield [*self._listeners[self.slot], *self._shared]
        finally:
            for listeners in (*self._listeners, self._shared):
                for listener in listeners:
                    listener.socket.close()

    async def serve(
        self,
        lifecycle: Lifecycle,
        end: Callable[[], None],
        look: Callable[[], Vitals],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do as the supervisor says, and give signs of life. Runs until cancelled.

        Args:
            end: ends everything at once.
            look: how the worker does.
        """
        self._pipe.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pipe.write)
            nursery.start_soon(self._live, look)
            nursery.start_soon(self._tell_stopping, lifecycle)
            nursery.start_soon(self.siblings.serve)
            task_status.started()
            while (message := await self._pipe.receive()) is not None:
                self._obey(message, lifecycle, end)
            log.warning("the supervisor is gone; this worker drains and ends")
            self.siblings.leave()
            # At once: a daemon that is started now is to have the addresses.
            self._stop(lifecycle, end, is_taken_over=True)

    def follow(self, on_settings: Callable[[], object]) -> None:
        """Have `on_settings` called whenever the settings change; at once, where they did while the worker started."""
        self._on_settings = on_settings
        if self._has_news:
            on_settings()

    def ready(self, *, redis_connected: bool, max_connections: int) -> None:
        """Tell that the worker serves."""
        self._pipe.say({"is": "ready", "redis": redis_connected, "connections": max_connections})

    async def stand_in(self, door: Door, connections: trio.Nursery) -> None:
        """Accept for the slots that the supervisor names. Runs until cancelled; then no socket is open any more."""
        scopes: dict[int, trio.CancelScope] = {}
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    for slot in self._served - scopes.keys():
                        scopes[slot] = trio.CancelScope()
                        nursery.start_soon(self._stand_in_for, slot, scopes[slot], door, connections)
                    for slot in scopes.keys() - self._served:
                        scopes.pop(slot).cancel()
                    self._changed = trio.Event()
                    await self._changed.wait()
        finally:
            for slot, listeners in enumerate(self._listeners):
                if slot != self.slot:
                    for listener in listeners:
                        listener.socket.close()

    async def _stand_in_for(self, slot: int, scope: trio.CancelScope, door: Door, connections: trio.Nursery) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for listener in self._listeners[slot]:
                    copy = attrs.evolve(listener, socket=await _copied(listener.socket))
                    nursery.start_soon(door.serve, copy, connections)

    def _obey(self, message: Message, lifecycle: Lifecycle, end: Callable[[], None]) -> None:
        match message.get("do"):
            case "stand_in":
                self._served.add(int(message["slot"]))
                self._changed.set()
            case "stand_down":
                self._served.discard(int(message["slot"]))
                self._changed.set()
            case "settings":
                launch: Launch = unpacked(message["launch"])
                self.effective, self._has_news = launch.effective, True
                if self._on_settings is not None:
                    self._on_settings()
            case "dump":
                if self.on_dump is not None:
                    self.on_dump()
                else:
                    log.warning("nothing is dumped: this worker is not serving yet")
            case "stop":
                self._stop(lifecycle, end, is_taken_over=bool(message.get("is_taken_over")))

    def _stop(self, lifecycle: Lifecycle, end: Callable[[], None], *, is_taken_over: bool = False) -> None:
        if lifecycle.state == STARTING:
            end()
        elif not lifecycle.stopping.is_set():
            lifecycle.stop(is_taken_over=is_taken_over)

    async def _live(self, look: Callable[[], Vitals]) -> None:
        while True:
            vitals = look()
            if not vitals.is_stuck:
                self._pipe.say({"is": "alive", **attrs.asdict(vitals)})
            await trio.sleep(LIFE_SIGN_SECONDS)

    async def _tell_stopping(self, lifecycle: Lifecycle) -> None:
        await lifecycle.stopping.wait()
        self._pipe.say({"is": "stopping"})


async def _copied(listening: socket.socket) -> socket.socket:
    """A descriptor of its own for the door, which closes it when it is done; as soon as there is one to be had."""
    while True:
        try:
            return listening.dup()
        except OSError as error:
            log.warning("out of file descriptors; nobody stands in yet", error=str(error))
            await trio.sleep(_REST_SECONDS)
