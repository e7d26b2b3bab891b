"""When to wait a moment before reading again, so that messages arriving singly leave together.

Waking up costs as much as a dozen messages do: at thousands of messages a second that arrive one by
one, a pause of a few milliseconds after a read lets about `BATCH_MESSAGES` of them pile up. An idle
broker never pauses, and one that is busy anyway (large batches, many deliveries) needs no pause.

Synchronous; no clock.
"""

from __future__ import annotations

from attrs import define

PAUSE_MIN_SECONDS = 0.001
PAUSE_MAX_SECONDS = 0.004
BATCH_MESSAGES = 32
_MESSAGES_PER_SECOND = 500.0


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
        if messages > 2 * BATCH_MESSAGES or self._interval * _MESSAGES_PER_SECOND > 1.0:
            return 0.0
        pause = min(PAUSE_MAX_SECONDS, max(PAUSE_MIN_SECONDS, BATCH_MESSAGES * self._interval))
        return max(0.0, pause - (now - read_at))
