"""How old events are when they have been written to the sockets of those who listen: a sample.

An event says in its `timestamp` when it was made, by the clock of the service that made it; here the daemon's clock is
read. So it is the whole way, from the service to the kernel's buffer for the client, and it is wrong by what the two
clocks differ. Clients that read too slowly, for whom events wait, are not in it: that is what flushes measure.

Bounds: `_SAMPLES_PER_SECOND` events are looked at, of at most `_BYTES_MAX`. What is older than `_OLD_SECONDS` was not
published when it was made; that, and what comes from a clock that is ahead, is counted and not measured.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

import msgspec
from attrs import Factory, define

from broker.histogram import Histogram

_SAMPLES_PER_SECOND = 20
_BYTES_MAX = 16 * 1024
_OLD_SECONDS = 3600.0
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
AHEAD, OLD, UNKNOWN = "ahead", "old", "unknown"


class _Made(msgspec.Struct):
    timestamp: str


_decode = msgspec.json.Decoder(_Made).decode


@define(eq=False)
class EventAge:
    """Counts it. Whoever hands events on asks `due_at` first, in loop seconds.

    Args:
        clock: seconds since 1970.
        skipped: events that were looked at and not measured, by reason.
    """

    clock: Callable[[], float] = time.time
    histogram: Histogram = Factory(lambda: Histogram(BOUNDS))
    skipped: Counter[str] = Factory(Counter)
    due_at: float = float("-inf")

    def note(self, payload: bytes, now: float) -> None:
        """An event has been handed on by `now`, in loop seconds. Synchronous; raises nothing."""
        self.due_at = now + 1 / _SAMPLES_PER_SECOND
        try:
            made = datetime.fromisoformat(_decode(payload).timestamp) if len(payload) <= _BYTES_MAX else None
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            made = None
        if made is None or made.tzinfo is None:
            self.skipped[UNKNOWN] += 1
            return
        # The timestamp has milliseconds: what is ahead by less is only cut.
        age = self.clock() - made.timestamp()
        if age < 0:
            self.skipped[AHEAD] += 1
        elif age > _OLD_SECONDS:
            self.skipped[OLD] += 1
        else:
            self.histogram.add(age)
