"""A worker process as its supervisor sees it: started with its sockets and a pipe, heard every second, ended.

Bounds: a worker that gives no sign of life for `daemon.worker_silence_seconds` is stuck: SIGABRT has it write where,
and SIGKILL ends it `_DUMP_SECONDS` later. Before it is ready it has `_START_SECONDS`. One whose pipe is closed has
`_EXIT_SECONDS` to end. Silence is counted in turns of the supervisor's own loop, so that a machine that was
suspended, supervisor and all, does not make every worker look stuck.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio
from attrs import define, field

import broker
from broker.post.launch import Launch
from broker.post.pipe import Message, WorkerPipe, packed
from broker.post.post import LIFE_SIGN_SECONDS
from broker.systemd import Vitals

log = structlog.get_logger(__name__)

# Of the silence that is allowed: so long may new connections wait in its queue before the others accept them.
_HANGING_PART = 1 / 3
_START_SECONDS = 60.0
_TURN_SECONDS = 0.25
_DUMP_SECONDS = 1.0
_EXIT_SECONDS = 5.0
_REAP_SECONDS = 1.0
# Between the service manager and the main process only.
_NOT_FOR_WORKERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_VITALS = {attribute.name for attribute in attrs.fields(Vitals)}


@define(eq=False)
class WorkerProcess:
    """One process.

    Args:
        silence_seconds: how long it may give no sign of life.
        why: what it said when it could not start.
        stands_in_for: the slots that it was told to accept for, besides its own.
    """

    slot: int
    process: trio.Process
    _pipe: WorkerPipe
    silence_seconds: float
    vitals: Vitals | None = field(init=False, default=None)
    redis_connected: bool = field(init=False, default=False)
    max_connections: int = field(init=False, default=0)
    why: str = field(init=False, default="")
    stands_in_for: set[int] = field(init=False, factory=set)
    _is_ready: bool = field(init=False, default=False)
    _was_ready: bool = field(init=False, default=False)
    _silent_turns: int = field(init=False, default=0)

    @classmethod
    async def start(cls, launch: Launch) -> WorkerProcess:
        """Start one. Its sockets are inherited; its settings go by the pipe, so nobody sees them in its arguments."""
        ours, theirs = socket.socketpair()
        listening = [passed.descriptor for slot in (*launch.listeners, launch.shared) for passed in slot]
        try:
            process = await trio.lowlevel.open_process(
                [*_python(), "-m", "broker", "worker", "--slot", str(launch.slot), "--pipe", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *listening),
                # A Ctrl-C is for the supervisor, which tells its workers.
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = cls(launch.slot, process, WorkerPipe(ours), launch.effective.config.daemon.worker_silence_seconds)
        worker._pipe.open()
        worker.say({"version": broker.__version__, "launch": packed(launch)})
        return worker

    @property
    def is_serving(self) -> bool:
        """Whether it accepts what comes to its slot."""
        return self._is_ready and self._silent_turns * _TURN_SECONDS < self._hanging_seconds

    @property
    def _hanging_seconds(self) -> float:
        return max(self.silence_seconds * _HANGING_PART, LIFE_SIGN_SECONDS + 2 * _TURN_SECONDS)

    @property
    def pid(self) -> int:
        return self.process.pid

    def state(self) -> dict[str, Any]:
        """How it does, for people."""
        clients = self.vitals.clients if self.vitals is not None else 0
        return {"pid": self.pid, "is_serving": self.is_serving, "clients": clients}

    def say(self, message: Message) -> None:
        """Tell it something. Synchronous."""
        self._pipe.say(message)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def attend(self, on_change: Callable[[], None]) -> int:
        """Hear it until it has ended. Returns its exit status; that of a signal is less than 0.

        Args:
            on_change: called when it has become ready, has stopped, hangs, or hangs no longer. Synchronous.

        Ownership: when this returns or is cancelled, the process is gone.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pipe.write)
                nursery.start_soon(self._watch, on_change)
                while (message := await self._pipe.receive()) is not None:
                    was_serving = self.is_serving
                    try:
                        self._heed(message)
                    except (KeyError, TypeError, ValueError):
                        log.exception("what a worker said is not understood", worker=self.slot)
                    if self.is_serving != was_serving:
                        on_change()
                nursery.cancel_scope.cancel()
            self._is_ready = False
            on_change()
            with trio.move_on_after(_EXIT_SECONDS):
                return await self.process.wait()
            log.error("a worker has closed its pipe and does not end; it is killed", worker=self.slot, pid=self.pid)
            self.process.kill()
            return await self.process.wait()
        finally:
            self._is_ready = False
            self.signal(signal.SIGKILL)
            self._pipe.close()
            with trio.move_on_after(_REAP_SECONDS, shield=True):
                await self.process.wait()

    def _heed(self, message: Message) -> None:
        self._silent_turns = 0
        match message.get("is"):
            case "alive":
                self.vitals = Vitals(**{name: message[name] for name in _VITALS})
            case "ready":
                self.redis_connected, self.max_connections = bool(message["redis"]), int(message["connections"])
                if self.vitals is not None:  # of a moment when it had not asked Redis yet
                    self.vitals = attrs.evolve(self.vitals, is_waiting=not self.redis_connected)
                self._is_ready = self._was_ready = True
            case "stopping":
                self._is_ready = False
            case "failed":
                self.why = str(message["why"])

    async def _watch(self, on_change: Callable[[], None]) -> None:
        """Count the silence, and end it. Runs until cancelled."""
        while True:
            await trio.sleep(_TURN_SECONDS)
            was_serving = self.is_serving
            self._silent_turns += 1
            if self.is_serving != was_serving:
                log.warning("a worker does not answer; the others accept for it", worker=self.slot, pid=self.pid)
                on_change()
            most = self.silence_seconds if self._was_ready else _START_SECONDS
            if self._silent_turns * _TURN_SECONDS >= most:
                log.error("a worker is stuck; it is killed", worker=self.slot, pid=self.pid, silent_seconds=most)
                self.signal(signal.SIGABRT)
                await trio.sleep(_DUMP_SECONDS)
                self.signal(signal.SIGKILL)
                await trio.sleep_forever()


@cache
def _python() -> list[str]:
    """This Python, which finds this broker: `-m` looks into the current folder first, unless told not to."""
    here = Path(broker.__file__).resolve().parent.parent
    return [sys.executable] if here == Path.cwd().resolve() else [sys.executable, "-P"]
