"""The stage of a scenario: its Redis servers, daemons and proxies, its dice, and what it measures.

Laws: whatever was started is stopped with the stage; what a daemon logged as an error, and was not expected, is a fault
of the row. Everything that is random comes from `dice`, so that a failure repeats from its seed. Blocks.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from attrs import define, field

from tests.actors import peers
from tests.actors.daemon_process import DaemonProcess
from tests.actors.proxy import ProxyThread
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of
from tests.faults.row import BROKEN, KEPT, SKIPPED, Measured, Outcome, Row

FULL, SMALL = "full", "small"
FAULTS_SHOWN = 50
T = TypeVar("T")


class CannotPlay(Exception):
    """The machine does not allow this scenario; the text says what is missing."""


@define(eq=False)
class Stage:
    """Made for one row. `play` plays it.

    Args:
        size: full, or small for what `make test` runs.
        seed: of `dice`.
        others_are_over: for a row that lives beside others: set when it may end. None where it is played alone.
    """

    folder: Path
    size: str
    seed: int
    others_are_over: threading.Event | None = None
    dice: random.Random = field(init=False)
    measured: list[Measured] = field(init=False, factory=list)
    faults: list[str] = field(init=False, factory=list)
    note: str = field(init=False, default="")
    _servers: list[RedisServer] = field(init=False, factory=list)
    _daemons: list[DaemonProcess] = field(init=False, factory=list)
    _stack: ExitStack = field(init=False, factory=ExitStack)

    def __attrs_post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    @property
    def is_full(self) -> bool:
        return self.size == FULL

    def pick(self, full: T, small: T) -> T:
        """The one of two that belongs to this size."""
        return full if self.is_full else small

    def redis(self, *arguments: str) -> RedisServer:
        """A started server of its own folder; without persistence, unless `arguments` say something else."""
        folder = self.folder / f"redis-{len(self._servers)}"
        folder.mkdir()
        server = RedisServer(folder, arguments) if arguments else RedisServer(folder)
        self._servers.append(server)
        server.start()
        return server

    def daemon(
        self,
        redis_url: str | None,
        *flags: str,
        environ: dict[str, str] | None = None,
        under: tuple[str, ...] = (),
        listen: str = "127.0.0.1:0",
        expected_errors: tuple[str, ...] = (),
    ) -> DaemonProcess:
        """A started daemon; see `DaemonProcess`."""
        log = self.folder / f"daemon-{len(self._daemons)}.log"
        daemon = DaemonProcess(
            redis_url,
            log,
            ("--log-format", "json", *flags),
            environ or {},
            listen=listen,
            under=under,
            expected_errors=set(expected_errors),
        )
        self._daemons.append(daemon)
        daemon.start()
        return daemon

    def proxy(self, target: int) -> ProxyThread:
        """A proxy on a free port of this machine, to another of its ports."""
        return self._stack.enter_context(ProxyThread(target))

    def exactly(self, what: str, value: float, bound: float, unit: str = "") -> None:
        self.measured.append(Measured(what, value, "=", bound, unit))

    def at_most(self, what: str, value: float, bound: float, unit: str = "") -> None:
        self.measured.append(Measured(what, value, "<=", bound, unit))

    def at_least(self, what: str, value: float, bound: float, unit: str = "") -> None:
        self.measured.append(Measured(what, value, ">=", bound, unit))

    def errors_logged(self) -> int:
        """By all daemons so far, beside those that are expected."""
        return sum(len(errors_of(daemon)) for daemon in self._daemons)

    def cannot_play(self, why: str) -> None:
        """End the scenario: skipped, with the reason. What was measured before does not count.

        Raises:
            CannotPlay: always.
        """
        raise CannotPlay(why)

    def play(self, row: Row) -> Outcome:
        """The whole scenario, and the end of everything that it started."""
        began = time.monotonic()
        skipped = ""
        try:
            row.play(self)
        except CannotPlay as error:
            skipped = str(error)
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error} {_place_of(error)}")
        finally:
            self._end()
        seconds = time.monotonic() - began
        is_kept = not self.faults and self.measured and all(each.is_kept for each in self.measured)
        return Outcome(
            row.number,
            row.promise,
            row.trial,
            row.figure,
            SKIPPED if skipped else KEPT if is_kept else BROKEN,
            self.size,
            self.seed,
            seconds,
            tuple(self.measured),
            tuple(self.faults[:FAULTS_SHOWN]),
            skipped or self.note,
        )

    def _end(self) -> None:
        if self.others_are_over is None:  # else they are those of another row, which goes on
            peers.close_all()
        for daemon in self._daemons:
            if hasattr(daemon, "port"):
                try:
                    status = daemon.stop()
                    if status not in (0, -signal.SIGKILL):
                        self.faults.append(f"a daemon ended with status {status}")
                except Exception as error:
                    self.faults.append(f"a daemon did not stop: {error}")
                    daemon.stop(signal.SIGKILL)
            self.faults += [f"in the log: {entry}" for entry in errors_of(daemon)]
        for server in self._servers:
            server.kill()
        self._stack.close()


def _place_of(error: BaseException) -> str:
    """Where in this repository's tests it was raised."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        place = trace.tb_frame.f_code.co_filename
        if "/tests/" in place:
            found = f"({place.rpartition('/tests/')[2]}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found
