"""Row 21: beside everything else somebody lives with a daemon, and when all have left it is as it was.

The life is that of `tests.soak`: clients that come and go, stall and vanish, services that publish, and two or three
faults of Redis a minute. Then all leave, and with nobody there the daemon is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.soak.vitals import IN_USE, LIMITS, RESIDENT, slope_through

ROOT = Path(__file__).parents[2]
EXACT = ("descriptors", "tasks", "Redis subscriptions")
WARM_MINUTES = 5.0
# What has to happen in a soak that deserves the name: first words of its counts.
TROUBLES = {"follow", "visit", "stall", "cut", "redis", "reloads", "events", "gaps"}
# What is in use moves by 0.08 MB from rest to rest: its slope is known to 0.15 MiB/h over twenty minutes, and to 0.4
# over the ten of the row alone.
SLOPE_MIB_AN_HOUR = 1.0
# What is resident moves by steps: Python takes memory by the MiB, and gives such an arena back when it is empty. In
# ten minutes one step more or less is 6 MiB/h, so there is a bound on it and no slope. It shows what holds pages and is
# in use no more.
RESIDENT_MIB_MAX = 3.0
START_AND_END_SECONDS = 120.0


def play(stage: Stage) -> None:
    # Alone fifteen minutes: what lies behind the fifth has to be long enough for a slope.
    minutes, part_seconds, pace = stage.pick((15.0, 30.0, 0.6), (0.12, 3.0, 1.0))
    found = live(stage, minutes, "--part-seconds", str(part_seconds), "--pace", str(pace))
    base, taken, counts = found["base"], found["taken"], found["counts"]
    stage.faults += found["faults"]
    lasted = taken[-1]["minute"]
    stage.at_least("lasted", lasted, stage.pick(minutes, 0.1), "min")
    faults = sum(count for name, count in counts.items() if name.startswith("redis "))
    stage.at_least("faults of Redis", faults, int(lasted) + 1)
    stage.at_least("connections of clients", counts["connections of followers"], stage.pick(500, 3))
    for name in EXACT:
        # At the rest that is farthest away.
        stage.exactly(f"{name} more than at first", max((each[name] - base[name] for each in taken), key=abs), 0)
    if stage.is_full:
        happened = {name.partition(" ")[0] for name, count in counts.items() if count}
        stage.exactly("kinds of trouble that never came", len(TROUBLES - happened), 0)
    told = [RESIDENT, IN_USE] if IN_USE in base else [RESIDENT]
    if IN_USE not in base:
        stage.note = "the C library cannot say what memory is in use (no mallinfo2): only resident memory was measured"
    stage.at_least("resident memory at first", base[RESIDENT], 1, "MiB")
    if not stage.is_full:
        # Rests some seconds apart, of a daemon that is still warming up, make no slope.
        for name in told:
            more = taken[-1][name] - taken[0][name]
            stage.at_most(f"{name.removesuffix(', MB')} grew by", more, LIMITS[name], "MiB")
        return
    warm = [each for each in taken if each["minute"] >= WARM_MINUTES]
    stage.at_least(f"rests after minute {WARM_MINUTES:g}", len(warm), 10)
    third = len(warm) // 3 or 1
    more = median(each[RESIDENT] for each in warm[-third:]) - median(each[RESIDENT] for each in warm[:third])
    stage.at_most("resident memory, in the last third of these more than in the first", more, RESIDENT_MIB_MAX, "MiB")
    if IN_USE in base:
        slope = 60 * slope_through([(each["minute"], each[IN_USE]) for each in warm])
        stage.at_most(f"memory in use grows after minute {WARM_MINUTES:g} by", slope, SLOPE_MIB_AN_HOUR, "MiB/h")


def live(stage: Stage, minutes: float, *flags: str) -> Any:
    """The soak, in a process of its own, so that it shares no interpreter with the clients of other rows.

    It ends when they are over, and not before its own time is. Returns what it found.
    """
    told = stage.folder / "soak.json"
    command = [sys.executable, "-m", "tests.soak", "--beside", "--minutes", str(minutes), "--json", str(told)]
    command += ["--seed", str(stage.seed), *flags]
    with open(stage.folder / "soak.log", "wb") as log:
        soak = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        while stage.others_are_over is not None and soak.poll() is None and not stage.others_are_over.wait(0.5):
            pass
        soak.communicate(timeout=60 * minutes + START_AND_END_SECONDS)
    finally:
        soak.kill()
        soak.wait()
    if not told.exists():
        raise AssertionError(f"the soak broke off: {(stage.folder / 'soak.log').read_text()[-2000:]}")
    return json.loads(told.read_text())


ROW = Row(
    21,
    "Nothing leaks",
    "a soak beside all other rows, with churn and at least a fault a minute; measured when all have left",
    "memory in use: slope < 1 MiB/h after minute 5 (resident memory, which moves by steps of a MiB: < 3 MiB in all); "
    "descriptors, tasks and Redis subscriptions back to base exactly",
    play,
    is_beside=True,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
