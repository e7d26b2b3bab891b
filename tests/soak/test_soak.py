"""A soak of a minute: `python -m tests.soak --minutes 10` is the same for longer."""

from __future__ import annotations

import random
from pathlib import Path

from tests.soak.plan import PARTS, plan
from tests.soak.soak import Soak

MINUTES = 1.0


def test_a_minute_leaves_the_daemon_as_it_was(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    soak = Soak(tmp_path, seed, MINUTES)
    print(f"seed {seed}: python -m tests.soak --minutes {MINUTES:g} --seed {seed}")
    faults = soak.run()
    print(*soak.report(), sep="\n")
    assert faults == []
    # It was a soak: each kind of fault and of client was there.
    happened = {name.partition(" ")[0] for name, count in soak.counts.items() if count}
    assert happened >= {"follow", "visit", "stall", "cut", "redis", "reloads", "events", "gaps"}


def test_a_seed_makes_one_plan() -> None:
    assert [plan(7, part, 10.0) for part in range(PARTS)] == [plan(7, part, 10.0) for part in range(PARTS)]
    assert plan(7, 0, 10.0) != plan(8, 0, 10.0)
    assert all(0 <= step.at <= 10.0 for part in range(PARTS) for step in plan(7, part, 10.0))
