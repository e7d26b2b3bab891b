"""Histograms, the stopwatch, and how late the loop is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf

import trio

from broker.histogram import Histogram, Stopwatch
from broker.looplag import SPAN_SECONDS, LoopLag


def test_a_value_counts_under_the_first_bound_that_it_is_not_over() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.5, 100.0):
        histogram.add(value)
    assert list(histogram.rising()) == [(1.0, 2), (2.0, 4), (inf, 6)]
    assert (histogram.counts, histogram.total, histogram.count) == ([2, 2, 2], 107.0, 6)


def test_two_histograms_count_apart() -> None:
    one, other = Histogram(), Histogram()
    one.add(0.5)
    assert (one.count, other.count) == (1, 0)


def test_a_stopwatch_times_one_and_is_due_no_more() -> None:
    ticks: Iterator[float] = iter((10.0, 10.5))
    watch = Stopwatch(Histogram((1.0,)), True, lambda: next(ticks))
    assert watch.time(lambda a, b: a + b, 1, 2) == 3
    assert (watch.is_due, watch.histogram.counts, watch.histogram.total) == (False, [1, 0], 0.5)


def test_the_latest_is_known_for_the_span_and_then_forgotten() -> None:
    lag = LoopLag()
    lag.note(0.2, 100.0)
    lag.note(0.5, 101.0)
    lag.note(0.1, 130.0)
    assert (lag.most_seconds(130.0), lag.last_seconds) == (0.5, 0.1)
    assert lag.most_seconds(101.0 + SPAN_SECONDS + 6.0) == 0.1
    assert lag.most_seconds(500.0) == 0.0
    assert (lag.histogram.count, round(lag.histogram.total, 6)) == (3, 0.8)


async def test_who_holds_the_loop_is_seen() -> None:
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.watch)
        await trio.sleep(0.02)
        time.sleep(0.3)  # noqa: ASYNC251
        await trio.sleep(0.02)
        assert 0.15 <= lag.most_seconds(trio.current_time()) < 0.29 + 0.5
        nursery.cancel_scope.cancel()


async def test_a_loop_that_is_free_is_not_late(autojump_clock: object) -> None:
    lag = LoopLag()
    with trio.move_on_after(10.05):
        await lag.watch()
    assert (lag.histogram.count, lag.most_seconds(trio.current_time())) == (100, 0.0)
