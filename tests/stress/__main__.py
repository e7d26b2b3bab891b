"""Play the stress run: `python -m tests.stress`, or `make stress`.

    --seed N                    repeats the order and the dice of a run
    --only NAME [--only NAME]   the scenarios whose names hold this text
    --slice                     a few of them, which the seed chooses, as `make test` does
    --daemons N                 so many share the Redis (3)

A line for each scenario, then what is there when everybody has left. Ends with 1 where anything was wrong.
The same seed makes the same dice; how the machine's time falls is not repeated.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.stress.runner import Stress
from tests.stress.scenarios import all_scenarios, slice_of


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="0 for another each time")
    parser.add_argument("--only", action="append", default=[], help="a part of a scenario's name; repeat it for more")
    parser.add_argument("--slice", action="store_true", help="a few, which the seed chooses")
    parser.add_argument("--daemons", type=int, default=3)
    arguments = parser.parse_args()
    scenarios = [
        each
        for each in all_scenarios()
        if not arguments.only or any(part.replace("_", " ") in each.name for part in arguments.only)
    ]
    if not scenarios:
        parser.error("no scenario has such a name")
    seed = arguments.seed or random.SystemRandom().randrange(1, 1_000_000)
    if arguments.slice:
        scenarios = slice_of(scenarios, random.Random(seed))
    print(f"{len(scenarios)} scenarios, {arguments.daemons} daemons, seed {seed}", flush=True)
    # Our own clients and worker live in this process; what they log of their day would stand between the lines.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="broker-stress-"))
    stress = Stress(folder, seed, scenarios, arguments.daemons, lambda line: print(line, flush=True))
    faults = stress.run()
    print(*stress.figures(), sep="\n")
    print(f"{len(stress.played)} scenarios in {time.monotonic() - began:.1f} s, seed {seed}")
    if faults:
        print(f"{len(faults)} WRONG; the logs are in {folder}", *faults, sep="\n  ")
        return 1
    shutil.rmtree(folder)
    print("nothing was wrong, and nothing is left over")
    return 0


sys.exit(main())
