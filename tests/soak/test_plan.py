"""The plan of a soak; the soak itself is `tests/faults/test_soak.py`, and `python -m tests.soak`."""

from __future__ import annotations

from tests.soak.plan import PARTS, plan


def test_a_seed_makes_one_plan() -> None:
    assert [plan(7, part, 10.0) for part in range(PARTS)] == [plan(7, part, 10.0) for part in range(PARTS)]
    assert plan(7, 0, 10.0) != plan(8, 0, 10.0)
    assert all(0 <= step.at <= 10.0 for part in range(PARTS) for step in plan(7, part, 10.0))


def test_the_pace_is_that_of_the_clients_and_not_of_the_faults() -> None:
    slow, quick = (plan(7, 0, 300.0, pace) for pace in (0.5, 2.0))
    assert 3 * sum(step.what == "visit" for step in slow) < sum(step.what == "visit" for step in quick)
    assert min(sum(step.what == "redis" for step in each) for each in (slow, quick)) >= 3
