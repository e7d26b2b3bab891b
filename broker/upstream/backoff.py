"""How long to wait before the next try to connect: random, up to a bound that doubles from try to try.

Random, so that many daemons do not come back at once. A connection that lived for a moment only starts
nothing anew: that would be no reason to come back at once, again and again.
"""

from __future__ import annotations

import random

from attrs import define

from broker.config.sections import Redis


@define(eq=False)
class Backoff:
    """The waits of one link. Synchronous."""

    _section: Redis
    _tries: int = 0

    def seconds(self) -> float:
        """The next wait; the bound of the one after it is twice as long, to `backoff_max_seconds`."""
        most = min(self._section.backoff_max_seconds, self._section.backoff_min_seconds * 2 ** min(self._tries, 20))
        self._tries += 1
        return random.uniform(0, most)

    def lived(self, seconds: float) -> None:
        """A connection has ended that lived so long."""
        if seconds >= self._section.backoff_max_seconds:
            self._tries = 0
