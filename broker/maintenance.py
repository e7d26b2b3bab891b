"""Maintenance: what a person, or a command on this machine, may ask of a running daemon.

By a signal or over the control socket; the same is done either way:

    SIGHUP   {"do": "reload"}    read the settings again: `reload`
    SIGUSR1  {"do": "dump"}      write to the log what the daemon is doing
             {"do": "status"}    say how it does
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
import trio
from attrs import define

from broker.controlsocket import ControlWire, Verb
from broker.reload import Outcome, Reloader
from broker.signals import Signals
from broker.systemd import Notifier

log = structlog.get_logger(__name__)


@define(eq=False)
class Maintenance:
    """Of a daemon, of one process or of several.

    Args:
        status: says how it does.
        dump: writes to the log; returns in a sentence what was written.
        life: where a dump that a signal asks for is written.
    """

    _status: Callable[[], Mapping[str, Any]]
    _dump: Callable[[], Awaitable[str]]
    _reloader: Reloader
    _life: trio.Nursery
    _notifier: Notifier

    def heed(self, signals: Signals) -> None:
        """Answer the signals from here on."""
        signals.on_reload = self.reload
        signals.on_dump = self.dump_soon

    def verbs(self) -> dict[str, Verb]:
        """What the control socket answers."""
        return {"reload": self._answer_reload, "status": self._answer_status, "dump": self._answer_dump}

    def reload(self) -> Outcome:
        """Read the settings again, and go by them. Synchronous; raises nothing."""
        with self._notifier.reload():
            return self._reloader.reload()

    def dump_soon(self) -> None:
        """Write a dump. Synchronous; raises nothing, then or later."""
        self._life.start_soon(self._dump_fenced)

    async def _dump_fenced(self) -> None:
        try:
            await self._dump()
        except Exception:
            # Whoever looks what is wrong must not make it worse.
            log.exception("the dump is not whole")

    async def _answer_reload(self, wire: ControlWire, request: Mapping[str, Any]) -> None:
        outcome = self.reload()
        await wire.send(
            {"changed": outcome.changed, "waiting": outcome.waiting, "problems": outcome.problems, "pid": os.getpid()}
        )

    async def _answer_status(self, wire: ControlWire, request: Mapping[str, Any]) -> None:
        await wire.send(self._status())

    async def _answer_dump(self, wire: ControlWire, request: Mapping[str, Any]) -> None:
        await wire.send({"written": await self._dump()})
