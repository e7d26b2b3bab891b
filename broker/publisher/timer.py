"""Calls that are due later, made by one thread that starts when it is needed and ends when it is not.

Laws: the thread is a daemon and never holds up the end of the process; a forked child has no thread and
no calls; an action raises nothing. Bound: the thread lives `_IDLE_SECONDS` with nothing to do.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from attrs import define, field

_IDLE_SECONDS = 5.0


@define(eq=False)
class Timer:
    """Safe in threads. Actions run one after another, in the order in which they are due."""

    _changed: threading.Condition = field(init=False, factory=threading.Condition)
    _due: list[tuple[float, int, Callable[[], None]]] = field(init=False, factory=list)
    _number: count[int] = field(init=False, factory=count)
    _thread: threading.Thread | None = field(init=False, default=None)

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Call `action` at `when`, a time of `time.monotonic`, or soon after."""
        with self._changed:
            heapq.heappush(self._due, (when, next(self._number), action))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="broker-publisher-timer", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    # No thread to be had, as while the interpreter ends: what is held goes with the next call.
                    self._thread = None
            else:
                self._changed.notify()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            with suppress(Exception):
                action()

    def _next(self) -> Callable[[], None] | None:
        idle_until = time.monotonic() + _IDLE_SECONDS
        with self._changed:
            while True:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                until = self._due[0][0] if self._due else idle_until
                if until <= now:
                    self._thread = None
                    return None
                self._changed.wait(until - now)
