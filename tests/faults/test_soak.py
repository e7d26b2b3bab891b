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
from typing import Any

from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.soak.vitals import slope_through

ROOT = Path(__file__).parents[2]
EXACT = ("descriptors", "tasks", "Redis subscriptions")
IN_USE = "in use, MB"
WARM_MINUTES = 5.0
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
    # What is in use, and not what is resident: that moves by 0.2 MB from rest to rest with how the allocators fill
    # their pages, and a slope over twenty minutes is then only known to 0.5 MiB/h. What is in use moves by 0.08 MB: its
    # slope is known to 0.15 MiB/h over twenty minutes, and to 0.4 over the ten of the row alone.
    warm = [(each["minute"], each[IN_USE]) for each in taken if each["minute"] >= WARM_MINUTES]
    if stage.is_full:
        stage.at_most(f"memory grows after minute {WARM_MINUTES:g} by", 60 * slope_through(warm), 1.0, "MiB/h")
    else:
        # Rests some seconds apart, of a daemon that is still warming up, make no slope.
        stage.at_most("memory grew by", taken[-1][IN_USE] - taken[0][IN_USE], 1.0, "MiB")


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
    "memory slope < 1 MiB/h after minute 5; descriptors, tasks and Redis subscriptions back to base exactly",
    play,
    is_beside=True,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
