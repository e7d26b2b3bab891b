"""Soak a daemon: `python -m tests.soak --minutes 10 [--seed N]`, or `make soak MINUTES=10`.

Prints where memory, descriptors and tasks began and ended, and everything that was wrong. The status is 1 where
anything was. The same seed makes the same plan; what becomes of it depends on the machine's time too.

    --part-seconds 55   everybody leaves so often, and the daemon is measured; else five times in a run
    --pace 0.5          half as busy as else
    --beside            it goes on past its minutes until its standard input ends
    --json FILE         what was measured, and what happened
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

from tests.soak.soak import Soak

_SHOWN = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--part-seconds", type=float, default=0.0)
    parser.add_argument("--pace", type=float, default=1.0)
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{arguments.minutes:g} minutes, seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="broker-soak-"))
    part_seconds, pace = arguments.part_seconds, arguments.pace
    tell = partial(print, flush=True)
    soak = Soak(folder, arguments.seed, arguments.minutes, tell, part_seconds=part_seconds, pace=pace)
    if arguments.beside:
        soak.over = threading.Event()
        threading.Thread(target=_await_end_of_input, args=(soak.over,), daemon=True).start()
    faults = soak.run()
    print(*soak.report(), sep="\n")
    if arguments.json:
        taken = [{"minute": each.minute, **each.figures} for each in (soak.base, *soak.taken)]
        told = {"faults": faults, "counts": soak.counts, "base": taken[0], "taken": taken[1:]}
        arguments.json.write_text(json.dumps(told))
    if faults:
        print(f"\n{len(faults)} WRONG; the log is in {folder}", *(fault[:_SHOWN] for fault in faults[:50]), sep="\n")
        return 1
    shutil.rmtree(folder)
    print("nothing was wrong")
    return 0


def _await_end_of_input(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


sys.exit(main())
