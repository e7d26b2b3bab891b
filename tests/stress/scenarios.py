"""All scenarios: those of each file of this folder, in the order in which they stand there."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from pathlib import Path

from tests.stress.scenario import Scenario

SLICE = 8
QUICK = ("redis cuts everybody off", "settings are read again", "redis is emptied", "everything is written to the log")
"""Those that hurt everybody and start no daemon again."""


def all_scenarios() -> Sequence[Scenario]:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    modules = [importlib.import_module(f"tests.stress.{name}") for name in names if not name.startswith(("_", "test_"))]
    return [each for module in modules for each in vars(module).values() if isinstance(each, Scenario)]


def slice_of(scenarios: Sequence[Scenario], dice: random.Random) -> Sequence[Scenario]:
    """`SLICE` of those that are played beside others, and one of `QUICK`."""
    crowd = [each for each in scenarios if not each.is_alone]
    loners = [each for each in scenarios if each.name in QUICK]
    return [*dice.sample(crowd, min(SLICE, len(crowd))), *dice.sample(loners, min(1, len(loners)))]
