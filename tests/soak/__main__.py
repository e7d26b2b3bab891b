"""Soak a daemon: `python -m tests.soak --minutes 10 [--seed N]`, or `make soak MINUTES=10`.

Prints where memory, descriptors and tasks began and ended, and everything that was wrong. The status is 1 where
anything was. The same seed makes the same plan; what becomes of it depends on the machine's time too.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Soak

_SHOWN = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    arguments = parser.parse_args()
    print(f"{arguments.minutes:g} minutes, seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="broker-soak-"))
    soak = Soak(folder, arguments.seed, arguments.minutes, lambda line: print(line, flush=True))
    faults = soak.run()
    print(*soak.report(), sep="\n")
    if faults:
        print(f"\n{len(faults)} WRONG; the log is in {folder}", *(fault[:_SHOWN] for fault in faults[:50]), sep="\n")
        return 1
    shutil.rmtree(folder)
    print("nothing was wrong")
    return 0


sys.exit(main())
