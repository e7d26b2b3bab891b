"""The lag of the event loop: how late a task wakes that asked to be woken at a time.

Everything the daemon does is done in one thread. What runs for long keeps everybody else waiting, and this task
with them: so its lateness is what a client had to wait before anything was done for it.

Bounds: a wake every `EVERY_SECONDS`; the most is known for the last `SPAN_SECONDS`, to a tenth of it. The wait of the
operating system is rounded up to a millisecond, so up to one is no lag.
"""

from __future__ import annotations

from collections import deque
from typing import NoReturn

import trio
from attrs import Factory, define

from broker.histogram import Histogram

EVERY_SECONDS = 0.1
SPAN_SECONDS = 60.0
_SLOTS = 10
_LOOK_SECONDS = 5.0
_SLOT_SECONDS = SPAN_SECONDS / _SLOTS


@define(eq=False)
class LoopLag:
    """Counts it. `watch` must run for anything to be counted."""

    histogram: Histogram = Factory(Histogram)
    last_seconds: float = 0.0
    tasks: int = 0  # that live, some seconds ago
    _slots: deque[tuple[int, float]] = Factory(lambda: deque(maxlen=_SLOTS))

    async def watch(self) -> NoReturn:
        """Runs until cancelled."""
        look_at = float("-inf")
        while True:
            due = trio.current_time() + EVERY_SECONDS
            await trio.sleep_until(due)
            now = trio.current_time()
            self.note(now - due, now)
            if now >= look_at:
                look_at = now + _LOOK_SECONDS
                # It counts who waits for what, too: milliseconds for ten thousand clients.
                self.tasks = trio.lowlevel.current_statistics().tasks_living

    def note(self, late_seconds: float, now: float) -> None:
        """It woke so late, at `now`, in loop seconds."""
        self.last_seconds = late_seconds
        self.histogram.add(late_seconds)
        slot = int(now / _SLOT_SECONDS)
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1] = slot, max(self._slots[-1][1], late_seconds)
        else:
            self._slots.append((slot, late_seconds))

    def most_seconds(self, now: float) -> float:
        """The latest that it woke in the last `SPAN_SECONDS`; 0 where it did not."""
        since = int(now / _SLOT_SECONDS) - _SLOTS
        return max((late for slot, late in self._slots if slot > since), default=0.0)
