"""The outbox pool: what waits in all outboxes together, bounded.

Each outbox tells the pool how many bytes wait in it, whenever that changes; one in which nothing waits
costs nothing. Over the bound, those in which most waits are ended first, until the total is under `_RELIEF` of the
bound: so the outboxes are put in order once for a good share of the bound, not for every message.

Laws: synchronous, never waits, raises nothing. An outbox that was ended counts as gone at once.
Bounds: `max_bytes`, and what one message adds to the outboxes that it reaches before the pool is asked again.
What the topics keep for slow clients (`backlog_bytes`) has its own bound for each client and is not in the total.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define, field, frozen

from broker.ending import OUTBOX_TOTAL, Ending
from broker.histogram import Histogram

_RELIEF = 7 / 8


@frozen
class OutboxPoolStatistics:
    """A snapshot: bytes that wait now, the most that ever did, and how many clients were ended for it."""

    queued_bytes: int
    peak_bytes: int
    ended: int


@define(eq=False)
class PoolShare:
    """One outbox's part of the pool."""

    _pool: OutboxPool
    _on_over: Callable[[Ending], None]
    bytes: int = 0

    def change(self, bytes: int) -> None:
        """Tell how many bytes wait in the outbox now."""
        self._pool.change(self, bytes)

    def end(self) -> None:
        self._on_over(OUTBOX_TOTAL)


@define(eq=False)
class OutboxPool:
    """The sum over all outboxes.

    Args:
        max_bytes: what may wait in all of them.
        flushing: from when bytes of a client had to wait until the kernel had taken all.
    """

    max_bytes: int
    flushing: Histogram = Factory(Histogram)
    _waiting: dict[PoolShare, None] = Factory(dict)
    _total: int = field(init=False, default=0)
    _peak: int = field(init=False, default=0)
    _ended: int = field(init=False, default=0)
    _is_relieving: bool = field(init=False, default=False)

    def share(self, on_over: Callable[[Ending], None]) -> PoolShare:
        """A part for one outbox.

        Args:
            on_over: ends whoever the outbox is for; called while any outbox is delivered to.
        """
        return PoolShare(self, on_over)

    def change(self, share: PoolShare, bytes: int) -> None:
        self._total += bytes - share.bytes
        share.bytes = bytes
        if bytes:
            self._waiting[share] = None
        else:
            self._waiting.pop(share, None)
        self._peak = max(self._peak, self._total)
        if self._total > self.max_bytes and not self._is_relieving:
            self._is_relieving = True
            self._relieve()
            self._is_relieving = False

    @property
    def waiting(self) -> int:
        """For how many something waits now."""
        return len(self._waiting)

    def statistics(self) -> OutboxPoolStatistics:
        return OutboxPoolStatistics(self._total, self._peak, self._ended)

    def _relieve(self) -> None:
        for share in sorted(self._waiting, key=lambda each: each.bytes, reverse=True):
            if self._total <= self.max_bytes * _RELIEF:
                return
            self._ended += 1
            self.change(share, 0)
            share.end()
