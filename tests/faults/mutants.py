"""Deliberate bugs, and the rows that find them: `python -m tests.faults.mutants [NAME ...]`, or `make mutants`.

A fault suite that passes may be blind. So each bug is put into a copy of the repository, rows are played there until
one is broken, and the copy is thrown away. The working tree stays as it is. Ends with 1 where a bug was not found.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
PARTS = ("broker", "tests", "conf", "docs", "setup.cfg")
LEFT_OUT = shutil.ignore_patterns("node_modules", "__pycache__", ".*")
TRIES = 3


@frozen
class Mutant:
    """One bug.

    Args:
        what: what the daemon does no more.
        file: in which it is put.
        old: what stands there once, and `new` instead of it.
        rows: those that can find it, at their small size.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    rows: tuple[int, ...]


MUTANTS = (
    Mutant(
        "outbox-bound",
        "the bound of an outbox in bytes is not looked at",
        "broker/outbox.py",
        "        if self.queued_bytes + len(data) > self._max_bytes:\n",
        "        if False:\n",
        (6,),
    ),
    Mutant(
        "gap-detection",
        "an event that follows no more on the one before is handed on as if it did",
        "broker/topic/page.py",
        "        if entry.position.offset != end.offset + 1:\n",
        "        if False:\n",
        (2,),
    ),
    Mutant(
        "epoch-detection",
        "history of another epoch is handed on as if it were the same",
        "broker/topic/page.py",
        "            items.append(Gap(EPOCH_CHANGED, was.text, begin.text, at))\n",
        "            pass\n",
        (2,),
    ),
    Mutant(
        "fence",
        "an exception of one connection is not kept inside it",
        "broker/door.py",
        "        except* VisitorLeft:\n            pass\n"
        "        except* Exception as group:\n            self._failed += 1\n"
        '            log.error("connection failed", exc_info=group)\n',
        "        except* VisitorLeft:\n            pass\n",
        (22,),
    ),
    Mutant(
        "drain",
        "nobody is told goodbye when the daemon stops",
        "broker/drain.py",
        "            client.end(SHUTDOWN)\n",
        "            pass\n",
        (10,),
    ),
    Mutant(
        "replay-seam",
        "who has read history goes live without what came while it read",
        "broker/topic/trail.py",
        "            if self._send_tail(reader, now):\n                self._go_live(reader, now)\n",
        "            self._go_live(reader, now)\n",
        (5,),
    ),
)


def main(names: Sequence[str]) -> int:
    known = {each.name: each for each in MUTANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no such bug: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    missed = [each.name for each in (known[name] for name in names or known) if not is_found(each)]
    print(f"not found: {', '.join(missed)}" if missed else "every bug was found")
    return 1 if missed else 0


def is_found(mutant: Mutant) -> bool:
    """Put the bug into a copy and play its rows there, a few times, as some bugs show by chance."""
    with tempfile.TemporaryDirectory(prefix="broker-mutant-") as folder:
        copy = Path(folder)
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, copy / part, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / part, copy / part)
        text = (copy / mutant.file).read_text()
        assert text.count(mutant.old) == 1, f"{mutant.file} has changed: {mutant.name} has no place in it any more"
        (copy / mutant.file).write_text(text.replace(mutant.old, mutant.new))
        print(f"{mutant.name}: {mutant.what} ({mutant.file})", flush=True)
        for attempt in range(TRIES):
            for row in mutant.rows:
                began = time.monotonic()
                command = [sys.executable, "-m", "tests.faults", "--row", str(row), "--size", "small"]
                said = subprocess.run(command, cwd=copy, capture_output=True, text=True)
                if said.returncode == 1:
                    print(f"  found by row {row} in {time.monotonic() - began:.1f} s, at try {attempt + 1}:")
                    print(*(f"    {line}" for line in said.stdout.splitlines()[1:8]), sep="\n", flush=True)
                    return True
                assert said.returncode == 0, said.stderr[-2000:]
        print("  NOT FOUND", flush=True)
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
