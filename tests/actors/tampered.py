"""A daemon that a test tampers with while it runs: its wall clock jumps, its loop is stuck, its functions raise.

`Tampered` starts one and gives the orders, over a unix socket, a JSON line each. In the daemon's process a thread
takes them: `python -m tests.actors.tampered SOCKET python -m broker serve ...`. Nothing else about it is different.

Where a function is to raise, it does so for one victim alone: whoever is connected as the user `VICTIM`, and channels
whose id is that.
"""

from __future__ import annotations

import importlib
import json
import runpy
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

if TYPE_CHECKING:
    pass

VICTIM = "victim"
_ANSWER_SECONDS = 10.0


class Sabotage(Exception):
    """Raised in the daemon by order."""


@define(eq=False)
class Tampered:
    """The test's side. Start the daemon with `under`. Blocks.

    Args:
        path: of the socket; in a folder that is there.
    """

    path: Path

    @property
    def under(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.actors.tampered", str(self.path))

    def order(self, what: str, *arguments: Any) -> Any:
        """Have it done. Returns what the daemon's process answers."""
        with socket.socket(socket.AF_UNIX) as opened:
            opened.settimeout(_ANSWER_SECONDS)
            opened.connect(str(self.path))
            opened.sendall(json.dumps([what, *arguments]).encode() + b"\n")
            answer = json.loads(opened.makefile().readline())
        assert "failed" not in answer, answer
        return answer["is"]

    def jump(self, seconds: float) -> None:
        """The wall clock goes on from so much later, or earlier. Clocks that only count do not."""
        self.order("jump", seconds)

    def wall_clock(self) -> float:
        """What time the daemon believes it is."""
        return float(self.order("wall_clock"))

    def block(self, seconds: float) -> None:
        """The loop does nothing else for so long; returns at once."""
        self.order("block", seconds)

    @contextmanager
    def raising(self, place: str, *, times: int | None = None) -> Iterator[None]:
        """`place`, such as `broker.session:Session.joined`, raises for the victim; `times`: so often, and no more."""
        self.arm(place, times=times)
        try:
            yield
        finally:
            self.order("disarm")

    def arm(self, place: str, *, times: int | None = None) -> None:
        """As `raising`, with no end but that of the daemon."""
        self.order("arm", place, times)

    @property
    def raised(self) -> int:
        """How often the place that is armed has raised."""
        return int(self.order("raised"))

    def hang(self) -> None:
        """Who reads what Redis sends never comes back, and cannot be cancelled, until `release`."""
        self.order("hang")

    def release(self) -> None:
        self.order("release")


def concerns_victim(arguments: tuple[Any, ...]) -> bool:
    """Whether one of a call's arguments is the victim's, as far as can be seen from it."""
    return any(_user_of(each) == VICTIM for each in arguments)


def _user_of(thing: Any) -> object:
    if isinstance(thing, bytes):  # a channel of the victim's name is the victim's
        return VICTIM if thing.endswith(b":" + VICTIM.encode()) else None
    trouble = getattr(thing, "_on_trouble", None)  # an outbox knows its client by whom it tells
    for holder in (thing, getattr(thing, "_client", None), getattr(trouble, "__self__", None)):
        user = getattr(holder, "user_id", None) or getattr(getattr(holder, "identity", None), "user_id", None)
        if user is not None:
            return user
    asked = getattr(thing, "asked", None)
    if callable(asked):  # a request says who it is in its query
        return asked("userId")
    return getattr(thing, "_user", None)  # a watch of an evaluation has nobody


@define(eq=False)
class Tamper:
    """The daemon's side."""

    _token: trio.lowlevel.TrioToken | None = None
    _clock: Any = None
    _undo: Callable[[], None] | None = None
    _released: trio.Event | None = None
    raised: int = field(init=False, default=0)

    def before_run(self) -> None:
        """Called by trio, as an instrument."""
        self._token = trio.lowlevel.current_trio_token()

    def serve(self, listening: socket.socket) -> None:
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rw") as file:
                what, *arguments = json.loads(file.readline())
                try:
                    answer = {"is": getattr(self, f"_{what}")(*arguments)}
                except Exception as error:
                    answer = {"failed": f"{type(error).__name__}: {error}"}
                file.write(json.dumps(answer) + "\n")

    def _jump(self, seconds: float) -> None:
        if self._clock is None:
            import time_machine

            was, counted = time.time(), time.monotonic()
            self._clock = time_machine.travel(was, tick=True).start()
            # It ticks from when it has started, which takes a while.
            seconds += time.monotonic() - counted - (time.time() - was)
        self._clock.shift(timedelta(seconds=seconds))

    def _wall_clock(self) -> float:
        return time.time()

    def _block(self, seconds: float) -> None:
        self._in_loop(lambda: time.sleep(seconds))

    def _arm(self, place: str, times: int | None) -> None:
        self._disarm()
        self.raised = 0
        module, _, name = place.partition(":")
        *holders, last = name.split(".")
        holder = importlib.import_module(module)
        for each in holders:
            holder = getattr(holder, each)
        original = getattr(holder, last)

        def raising(*arguments: Any, **named: Any) -> Any:
            if self.raised != times and concerns_victim((*arguments, *named.values())):
                self.raised += 1
                raise Sabotage(place)
            return self._inner(*arguments, **named)

        inner = getattr(original, "__wrapped__", None)
        if inner is None:
            is_property = isinstance(original, property)
            self._inner = original.fget if is_property else original
            setattr(holder, last, property(raising) if is_property else raising)
            self._undo = lambda: setattr(holder, last, original)
            return
        # A method with a fence around it raises inside the fence.
        cell = next(each for each in original.__closure__ if each.cell_contents is inner)
        self._inner = inner
        cell.cell_contents = raising

        def undo() -> None:
            cell.cell_contents = inner

        self._undo = undo

    _inner: Callable[..., Any] = field(init=False, default=lambda: None)

    def _disarm(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def _raised(self) -> int:
        return self.raised

    def _hang(self) -> None:
        from broker.upstream import link

        rest, pause_seconds = link._rest, link.Gathering.pause_seconds
        released = self._released = trio.Event()

        async def hang(seconds: float) -> None:
            link._rest, link.Gathering.pause_seconds = rest, pause_seconds
            with trio.CancelScope(shield=True):
                await released.wait()

        # It rests after each read that brings so much: now after the next, and for long.
        link._rest, link.Gathering.pause_seconds = hang, lambda *_: 1.0

    def _release(self) -> None:
        released = self._released
        assert released is not None
        self._in_loop(released.set)

    def _in_loop(self, what: Callable[[], object]) -> None:
        assert self._token is not None
        self._token.run_sync_soon(what)


def main() -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(sys.argv[1])
    listening.listen()
    tamper = Tamper()
    threading.Thread(target=tamper.serve, args=(listening,), daemon=True).start()
    run = trio.run

    def run_watched(*arguments: Any, **options: Any) -> Any:
        return run(*arguments, **{**options, "instruments": [tamper]})

    trio.run = run_watched
    module = sys.argv.index("-m") + 1
    sys.argv = sys.argv[module:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
