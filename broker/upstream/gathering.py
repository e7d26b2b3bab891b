"""When to wait a moment before reading again, so that messages arriving singly leave together.

Waking up costs more than a message does: at thousands of messages a second that arrive one by one,
a pause of a millisecond or two after a read lets the next ones pile up. An idle broker never pauses,
and one that is busy anyway (large batches, many deliveries) needs no pause: they pile up by themselves.

Synchronous; no clock.
"""

from __future__ import annotations

from attrs import define

PAUSE_SECONDS = 0.002
_WAKES_PER_SECOND = 500.0
_BATCH_MESSAGES = 32


@define(eq=False)
class Gathering:
    """Decides after each read. The rate is a moving average over the last ten or so reads."""

    _interval: float = 1.0
    _last: float = 0.0

    def pause_seconds(self, messages: int, now: float) -> float:
        """How long to wait before the next read; 0 for not at all.

        Args:
            messages: how many the last read held.
            now: loop seconds, when the read was handled.
        """
        elapsed = now - self._last
        self._last = now
        if messages:
            self._interval += 0.1 * (min(elapsed / messages, 1.0) - self._interval)
        if messages > _BATCH_MESSAGES or self._interval * _WAKES_PER_SECOND > 1.0:
            return 0.0
        return PAUSE_SECONDS
