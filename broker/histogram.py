"""Histograms for hot paths, and a sample of how long something takes.

A histogram has fixed bounds: a value costs one bisection and two additions, and nothing is allocated. The bounds are
upper ones, and a value that equals one is under it; the last count is of what is over all of them.

Synchronous; one thread. Bounds: as many numbers as there are bounds. Source: Prometheus, "Histograms and summaries".
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import TypeVar

from attrs import Factory, define, field

T = TypeVar("T")

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds for what the daemon does, in seconds: from what nobody notices to what everybody does."""


@define(eq=False)
class Histogram:
    """Counts values by their size.

    Args:
        bounds: rising.
        total: the sum of all values.
    """

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def rising(self) -> Iterator[tuple[float, int]]:
        """Each bound, and infinity, with how many values were no larger."""
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            yield bound, seen


@define(eq=False)
class Stopwatch:
    """Times one of many: the next call after somebody has said that one is due. Whoever calls asks `is_due` first.

    Args:
        clock: seconds that only rise.
    """

    histogram: Histogram = Factory(Histogram)
    is_due: bool = False
    clock: Callable[[], float] = time.perf_counter

    def time(self, work: Callable[..., T], *arguments: object) -> T:
        """Do it, and note how long that took."""
        self.is_due = False
        begun = self.clock()
        done = work(*arguments)
        self.histogram.add(self.clock() - begun)
        return done
