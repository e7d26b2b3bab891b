"""The takeover: a new process gets the listening sockets of the old one, and only then does the old one stop.

Over the control socket, a line of JSON each; N is the new process, O the old one:

    N   {"do": "takeover", "pid": 7}
    O   {"sockets": 2, "pid": 3, "version": "1.0", "environ": {...}}    or {"error": "..."}
    O   {"socket": {"name": "127.0.0.1:8000", ...}}, with the socket itself; so many times
    N   {"ready": true}                     it accepts connections by now
    O   {"leaving": true}                   it accepts none any more, and drains

Laws: until `ready` the old one goes on as if nothing were; whatever becomes of the new one before that is its own
affair. Both hold the same sockets, so what the kernel has queued is served by whichever is left: no connection is
refused or reset. One takeover at a time.
Bounds: `_ANSWER_SECONDS` for each answer of the old one; `READY_SECONDS` for the new one to be ready.

Neither side runs trio or knows of workers: the daemon and the supervisor of several both use it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import trio
from attrs import define, field, frozen

from broker import __version__
from broker.controlsocket import ControlWire
from broker.errors import ControlError, TakeoverError

READY_SECONDS = 120.0
_ANSWER_SECONDS = 10.0
_SOCKETS_MAX = 4096
# By which systemd is talked to; whoever is to be the main process needs them.
_HANDED_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC")

log = structlog.get_logger(__name__)


@frozen
class Handed:
    """A listening socket on its way from one process to the next.

    Args:
        name: the address that it is bound to.
        is_given: it is of no address of the settings: systemd gave it.
        owns_file: a unix socket whose file its last owner removes.
    """

    name: str
    socket: socket.socket
    is_given: bool = False
    owns_file: bool = False


@define(eq=False)
class Offer:
    """The old side: a verb of the control socket.

    Args:
        sockets: what is handed over, from now on until `on_end`.
        objection: why nothing can be handed over now; None where it can.
        on_end: told the process id of the new one, which accepts: stop accepting, and drain; None where there is no
            new one. Synchronous.
        environ: how the new one tells systemd, where the old one is its service.
    """

    _sockets: Callable[[], Sequence[Handed]]
    _objection: Callable[[], str | None]
    _on_end: Callable[[int | None], None]
    _environ: Callable[[], Mapping[str, str]]
    _is_under_way: bool = field(init=False, default=False)

    async def serve(self, wire: ControlWire, request: Mapping[str, Any]) -> None:
        """Hand everything to whoever asks, and stop once it is ready."""
        objection = "another takeover is under way" if self._is_under_way else self._objection()
        if objection is not None:
            await wire.send({"error": objection})
            return
        asker = request.get("pid", 0)
        pid = wire.peer[0] if wire.peer is not None else asker if isinstance(asker, int) else 0
        self._is_under_way = True
        log.info("a new process gets the listening sockets", pid=pid)
        try:
            is_ready = await self._hand_over(wire)
        finally:
            self._is_under_way = False
        # Where this process ends before that, what it has may be the new one's already: it keeps its hands off.
        self._on_end(pid if is_ready else None)
        if not is_ready:
            log.warning("the takeover did not happen; this process goes on", pid=pid)
            return
        await wire.send({"leaving": True})

    async def _hand_over(self, wire: ControlWire) -> bool:
        """Send the sockets. Returns whether the new process became ready."""
        try:
            sockets = list(self._sockets())
            facts: dict[str, object] = {"sockets": len(sockets), "pid": os.getpid(), "version": __version__}
            await wire.send({**facts, "environ": dict(self._environ())})
            for one in sockets:
                facts = {"name": one.name, "is_given": one.is_given, "owns_file": one.owns_file}
                await wire.send({"socket": facts}, one.socket)
            with trio.move_on_after(READY_SECONDS):
                answer = await wire.receive()
                return answer is not None and answer.get("ready") is True
        except ControlError as error:
            log.info("the takeover broke off", why=str(error))
        return False


@define(eq=False)
class Takeover:
    """The new side: what was handed over, until `close`.

    Args:
        path: of the control socket.
        pid: the old process.
        sockets: `take` takes out of here; `close` closes the others.
        environ: how systemd is talked to, where the old process was its service.
    """

    path: Path
    pid: int
    version: str
    environ: Mapping[str, str]
    _wire: ControlWire
    sockets: list[Handed] = field(factory=list)
    is_done: bool = field(init=False, default=False)  # `ready` was called

    def take(self, is_wanted: Callable[[socket.socket], bool]) -> list[Handed]:
        """Those that are wanted, and those that systemd gave; the caller's from here on."""
        found = [one for one in self.sockets if one.is_given or is_wanted(one.socket)]
        self.sockets = [one for one in self.sockets if one not in found]
        return found

    async def ready(self) -> None:
        """Say that the sockets are accepted from; returns when the old process does not any more.

        Where it has ended meanwhile, nothing is wrong with the new one: that is logged.

        Raises:
            TakeoverError: it has given the new one up, and goes on.
        """
        why = f"nothing in {_ANSWER_SECONDS:g} s"
        is_leaving = False
        try:
            await self._wire.send({"ready": True})
            with trio.move_on_after(_ANSWER_SECONDS) as patience:
                answer = await self._wire.receive()
                is_leaving = answer is not None and "leaving" in answer
            has_hung_up = not is_leaving and not patience.cancelled_caught
        except ControlError:
            has_hung_up = True
        if has_hung_up:
            why = "it hung up"
            if (wire := await ControlWire.open(self.path)) is not None:
                wire.close()
                # Two that serve for ever would be worse than one that was not replaced.
                raise TakeoverError(f"the daemon before, process {self.pid}, has given this one up, and goes on")
        if is_leaving:
            log.info("took over", pid=self.pid, version=self.version)
        else:
            log.warning("the process before did not say that it leaves", pid=self.pid, why=why)
        self.is_done = True
        self.close()

    def close(self) -> None:
        """Close what was not used. The old process goes on, unless `ready` was called. Synchronous."""
        for one in self.sockets:
            if (
                self.is_done and one.owns_file and one.socket.family == socket.AF_UNIX
            ):  # of an address that the settings have no more
                Path(one.socket.getsockname()).unlink(missing_ok=True)
            one.socket.close()
        self.sockets.clear()
        self._wire.close()


async def take(path: Path) -> Takeover | None:
    """Have the daemon behind a control socket hand over; None where none is there.

    Raises:
        TakeoverError: there is one, and it does not.
    """
    wire = await ControlWire.open(path)
    if wire is None:
        return None
    try:
        with trio.move_on_after(_ANSWER_SECONDS):
            return await _take(path, wire)
        raise TakeoverError(f"the daemon at {path} does not answer; it goes on. Is it stopped, or stuck?")
    except TakeoverError:
        wire.close()
        raise
    except ControlError as error:
        wire.close()
        raise TakeoverError(f"the daemon at {path} handed nothing over, and goes on: {error}") from error
    except BaseException:
        wire.close()
        raise


async def _take(path: Path, wire: ControlWire) -> Takeover:
    if wire.peer is not None and wire.peer[1] not in (0, os.getuid()):
        # What it hands over could be anything, and it would hear who connects.
        raise ControlError(f"it runs as another user, with uid {wire.peer[1]}; take over as that user")
    await wire.send({"do": "takeover", "pid": os.getpid()})
    answer = await wire.receive()
    if answer is None:
        raise ControlError("it closed the control socket")
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    count = answer.get("sockets")
    if not isinstance(count, int) or not 0 <= count <= _SOCKETS_MAX:
        raise ControlError("it says something that this version does not understand")
    environ = answer.get("environ")
    taken = Takeover(
        path,
        int(answer.get("pid", 0)),
        str(answer.get("version", "")),
        {name: str(environ[name]) for name in _HANDED_VARIABLES if name in environ}
        if isinstance(environ, dict)
        else {},
        wire,
    )
    try:
        for _ in range(count):
            line = await wire.receive()
            facts = line.get("socket") if line is not None else None
            if not isinstance(facts, dict):
                raise ControlError("it closed the control socket before all sockets had come")
            sock = wire.take_socket()
            sock.setblocking(False)
            if not _is_listening(sock):
                sock.close()
                raise ControlError("it handed over what is no listening socket")
            taken.sockets.append(
                Handed(str(facts.get("name")), sock, facts.get("is_given") is True, facts.get("owns_file") is True)
            )
    except BaseException:
        taken.close()
        raise
    return taken


def _is_listening(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
