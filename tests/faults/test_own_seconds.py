"""Seconds in which others had the processors do not count, unless too few are left."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults.own_seconds import OwnSeconds, stolen_seconds


def seconds(stolen: Sequence[float], wanted: int) -> OwnSeconds:
    """As many seconds, in which so much was stolen; each has the number of its place."""
    readings = iter([10.0, *(10.0 + sum(stolen[: index + 1]) for index in range(len(stolen)))])
    own = OwnSeconds(wanted, stolen=lambda: next(readings), processors=2)
    for index in range(len(stolen)):
        own.over(range(index, index + 1))
    return own


@pytest.mark.parametrize(
    ("stolen", "numbers"),
    [
        ([0, 0, 0], [0, 1, 2]),
        ([0.19, 0.19, 0.19], [0, 1, 2]),
        ([0, 0.21, 0, 0], [0, 3]),
        ([2, 0, 0, 0.5], [2]),
        ([0, 0, 0.5, 0.5, 0, 0], [0, 1, 5]),
    ],
)
def test_a_stolen_second_does_not_count_and_neither_does_the_one_behind_it(
    stolen: list[float], numbers: list[int]
) -> None:
    own = seconds(stolen, len(numbers))

    assert own.is_enough
    assert own.numbers == numbers
    assert own.counted + own.left_out == len(stolen)


def test_where_too_few_are_left_all_count() -> None:
    own = seconds([0, 1, 1], 3)

    assert not own.is_enough
    assert sorted(own.numbers) == [0, 1, 2]
    assert own.left_out == 2


def test_the_kernel_tells_what_was_stolen() -> None:
    assert 0 <= stolen_seconds() <= stolen_seconds()
