"""The signals: SIGTERM and SIGINT stop, SIGHUP reads the settings again, SIGUSR1 writes a dump to the log.

Heard from before anything else is opened, so that none of them ends a daemon that is only half there: one that stops
cancels everything then, the others are answered once somebody is there to do it.

A terminal that is closed sends SIGHUP too. Who was started on one and has it no more stops.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio
from attrs import define, field

from broker.lifecycle import STARTING, Lifecycle

log = structlog.get_logger(__name__)

_STANDARD_ERROR = 2


@define(eq=False)
class Signals:
    """What is done at a signal that does not stop.

    Args:
        on_reload: at SIGHUP; None while nobody can.
        on_dump: at SIGUSR1; None while nobody can.
        ends_at_second: whether the second signal to stop ends everything. Not in a worker, which hears it from its
            supervisor too.
    """

    _lifecycle: Lifecycle
    on_reload: Callable[[], object] | None = field(init=False, default=None)
    on_dump: Callable[[], object] | None = field(init=False, default=None)
    _ends_at_second: bool = True
    _was_told: bool = field(init=False, default=False)  # to stop, by a signal
    _has_terminal: bool = field(init=False, factory=lambda: _has_terminal())

    @classmethod
    @asynccontextmanager
    async def open(cls, lifecycle: Lifecycle, *, ends_at_second: bool = True) -> AsyncIterator[Signals]:
        """Hear them until the context is left; what ends at once is what runs inside."""
        signals = cls(lifecycle, ends_at_second)
        async with trio.open_nursery() as life:
            await life.start(signals._serve, life.cancel_scope)
            yield signals
            life.cancel_scope.cancel()

    async def _serve(
        self, life: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        with trio.open_signal_receiver(*numbers) as received:
            task_status.started()
            async for number in received:
                if number == signal.SIGUSR1:
                    self._do(self.on_dump, "nothing is dumped: the daemon is not serving")
                elif number == signal.SIGHUP and not (self._has_terminal and not _has_terminal()):
                    self._do(self.on_reload, "the settings are not read again: the daemon is not serving")
                else:
                    self._stop(life)

    def _stop(self, life: trio.CancelScope) -> None:
        """Stop at the first; end everything at the second, or where nothing serves yet."""
        if self._lifecycle.state == STARTING or (self._ends_at_second and self._was_told):
            log.warning("ending at once")
            life.cancel()
        self._was_told = True
        self._lifecycle.stop()

    def _do(self, what: Callable[[], object] | None, otherwise: str) -> None:
        if what is None:
            log.warning(otherwise)
            return
        try:
            what()
        except Exception:
            log.exception("a signal was not answered")


def _has_terminal() -> bool:
    """Whether standard error is a terminal that is still there."""
    try:
        os.tcgetpgrp(_STANDARD_ERROR)
    except OSError:
        return False
    return True
