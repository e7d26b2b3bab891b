"""Deliberate bugs, and the rows that find them: `python -m tests.faults.mutants [NAME ...]`, or `make mutants`.

A fault suite that passes may be blind. So each bug is put into a copy of the repository, rows are played there until
one is broken, and the copy is thrown away. The working tree stays as it is. Ends with 1 where a bug was not found.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.faults.row import BROKEN, KEPT

ROOT = Path(__file__).parents[2]
PARTS = ("broker", "tests", "conf", "docs", "setup.cfg")
LEFT_OUT = shutil.ignore_patterns("node_modules", "__pycache__", ".*")
TRIES = 3
REASONS_SHOWN = 5
REASON_CHARACTERS = 160


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
        "client-fence",
        "what is called for one client and raises goes to whoever called",
        "broker/client.py",
        "        try:\n            method(self, *arguments)\n        except Exception:\n",
        "        try:\n            method(self, *arguments)\n        except ZeroDivisionError:\n",
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
    Mutant(
        "replay",
        "who comes back is told that everything was trimmed, and gets none of it",
        "broker/topic/page.py",
        "        begin = known\n",
        "        begin = known\n"
        "        if known.offset < top.offset:\n"
        "            gap = Gap(TRIMMED, was.text, top.text, at)\n"
        "            return Page(top, (gap,), top, True, int(recorded), int(generation), None)\n",
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
    """Put the bug into a copy and play its rows there, a few times, as some bugs show by chance.

    Raises:
        AssertionError: the place is no more, or a row is broken in the copy without the bug, and proves nothing.
    """
    with tempfile.TemporaryDirectory(prefix="broker-mutant-") as folder:
        copy = Path(folder)
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, copy / part, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / part, copy / part)
        print(f"{mutant.name}: {mutant.what} ({mutant.file})", flush=True)
        for row in mutant.rows:
            told = _played(copy, row)
            assert told["verdict"] == KEPT, f"row {row} is {told['verdict']} without the bug: {told}"
        text = (copy / mutant.file).read_text()
        assert text.count(mutant.old) == 1, f"{mutant.file} has changed: {mutant.name} has no place in it any more"
        (copy / mutant.file).write_text(text.replace(mutant.old, mutant.new))
        for attempt in range(TRIES):
            for row in mutant.rows:
                told = _played(copy, row)
                if told["verdict"] == BROKEN:
                    print(
                        f"  found by row {row} in {told['seconds']:.1f} s, at try {attempt + 1}, seed {told['seed']}:"
                    )
                    print(*(f"    {line}" for line in _reasons(told)[:REASONS_SHOWN]), sep="\n", flush=True)
                    return True
        print("  NOT FOUND", flush=True)
        return False


def _played(copy: Path, row: int) -> dict[str, Any]:
    """What came of a row in the copy, as in the machine-readable document."""
    told = copy / "faults.json"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.faults", "--row", str(row), "--size", "small", "--json", str(told)]
    said = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert told.exists(), said.stderr[-2000:]
    [found] = json.loads(told.read_text())["rows"]
    assert isinstance(found, dict)
    return found


def _reasons(told: dict[str, Any]) -> list[str]:
    """What was not as promised, a line each."""
    missed = [each for each in told["measured"] if not each["is_kept"]]
    figures = [f"{each['what']} {each['value']:g} ({each['relation']} {each['bound']:g})" for each in missed]
    return [*figures, *(str(fault)[:REASON_CHARACTERS] for fault in told["faults"])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
