"""When to wait a moment before reading again, so that messages arriving singly leave together.

Waking up costs as much as a dozen messages do: at thousands of messages a second that arrive one by
one, a pause after a read lets the next ones pile up. It is the longer the more there is to save, up
to where `BATCH_MESSAGES` come in it: 0.6 ms at 1000 messages a second, 6 ms at 10 000, 3 ms at
20 000. An idle broker never pauses, and one that is busy anyway (large batches, many deliveries)
needs no pause.

Synchronous; no clock.
"""

from __future__ import annotations

from attrs import define

BATCH_MESSAGES = 64
_RATE_MIN = 500.0  # messages a second; below, nothing is saved
_PAUSE_PER_RATE = 0.006 / 10_000  # seconds, for each message a second


@define(eq=False)
class Gathering:
    """Decides after each read. The rate is a moving average over the last ten or so reads."""

    _interval: float = 1.0
    _last: float = 0.0

    def pause_seconds(self, messages: int, read_at: float, now: float) -> float:
        """How long to wait before the next read; 0 for not at all.

        Args:
            messages: how many the last read held.
            read_at, now: loop seconds, when it was read and when all of it was handed on; while that
                took its time the next messages were piling up already.
        """
        elapsed = read_at - self._last
        self._last = read_at
        if messages:
            self._interval += 0.1 * (min(elapsed / messages, 1.0) - self._interval)
        # Twice the aim: what a pause has gathered must not count as a batch that needed none.
        if messages > 2 * BATCH_MESSAGES or self._interval * _RATE_MIN > 1.0:
            return 0.0
        pause = min(_PAUSE_PER_RATE / self._interval, BATCH_MESSAGES * self._interval)
        return max(0.0, pause - (now - read_at))
