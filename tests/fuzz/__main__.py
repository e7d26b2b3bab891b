"""`python -m tests.fuzz`: many inputs over all targets, in several processes. Ends with 1 where one fails.

Two engines make the inputs: `atheris` goes by coverage and adds what is new to the kept corpus; `own` goes by what
comes out, needs nothing installed, and is repeated by its seed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import random
import sys

import attrs

from tests.fuzz.campaign import Campaign
from tests.fuzz.crew import run
from tests.fuzz.targets import TARGETS

# Each target's inputs are so many pieces of work, each with a seed of its own.
PIECES = 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--engine", choices=["atheris", "own"], help="atheris, where it is installed")
    parser.add_argument("--minutes", type=float, default=10.0, help="of atheris, for all targets together")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of our own engine, over all targets together")
    parser.add_argument("--seed", type=int, default=0, help="repeats a run of our own engine; 0 for another each time")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this one; repeat it for more")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--input", help="one input, as Python bytes, for the one --target: check it and nothing else")
    arguments = parser.parse_args()
    names = arguments.target or sorted(TARGETS)
    if arguments.input is not None:
        return _check_one(names[0], arguments.input)
    engine = arguments.engine
    if engine != "own" and importlib.util.find_spec("atheris") is None:
        if engine == "atheris":
            parser.error("atheris is not installed; `make fuzz` installs it, on Linux on x86-64")
        print("atheris is not installed (it comes for Linux on x86-64): inputs are made without coverage's guidance")
        engine = "own"
    if engine != "own":
        from tests.fuzz import guided

        seconds = max(1, round(arguments.minutes * 60 * arguments.workers / len(names)))
        print(f"{len(names)} targets under atheris, {seconds} s each: {', '.join(names)}", flush=True)
        return guided.run(names, seconds, arguments.workers)
    seed = arguments.seed or random.randrange(1, 1 << 32)
    print(f"{arguments.inputs} inputs over {len(names)} targets, seed {seed}: {', '.join(names)}", flush=True)
    each = max(1, -(-arguments.inputs // (len(names) * PIECES)))
    work = [(name, seed + piece, each) for piece in range(PIECES) for name in names]
    return run(work, arguments.workers)


def _check_one(name: str, written: str) -> int:
    failure = Campaign(attrs.evolve(TARGETS[name], seeds=(ast.literal_eval(written),)), 1).run(1)
    print(failure or "fine")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
