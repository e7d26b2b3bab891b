"""The stage of a row at its small size."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.row import KEPT, SKIPPED, Row
from tests.faults.stage import SMALL, Stage


@pytest.fixture
def small(tmp_path: Path) -> Callable[[Row], None]:
    """Plays a row at its small size; a row that is not kept fails the test, with what repeats it."""

    def play(row: Row) -> None:
        seed = random.SystemRandom().randrange(1, 1_000_000)
        outcome = Stage(tmp_path, SMALL, seed).play(row)
        if outcome.verdict == SKIPPED:
            pytest.skip(outcome.note)
        told = "\n".join(
            (f"row {row.number}: {row.promise}", *map(str, outcome.measured), *outcome.faults, outcome.again)
        )
        assert outcome.verdict == KEPT, told

    return play
