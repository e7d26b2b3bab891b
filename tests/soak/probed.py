"""A daemon with a window: `python -m tests.soak.probed FILE python -m broker serve ...`.

At SIGUSR2 it collects its garbage, gives free memory back, and writes to FILE what it then has: trio's tasks
by name, objects by type, resident bytes, descriptors. Nothing else about it is different.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import trio


def resident_bytes(pid: int | str = "self") -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _tasks(root: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    """A task and all below it."""
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        yield task
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def main() -> None:
    place = Path(sys.argv[1])
    module = sys.argv.index("-m") + 1
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # not glibc
        trim = None

    def tell(number: int, frame: object) -> None:
        for _ in range(3):
            gc.collect()
        if trim is not None:
            trim(0)
        told = {
            "tasks": Counter(task.name for task in _tasks(trio.lowlevel.current_root_task())),
            "bytes": resident_bytes(),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # the folder itself
            "objects": Counter(type(each).__qualname__ for each in gc.get_objects()),
        }
        written = place.with_suffix(".new")
        written.write_text(json.dumps(told))
        written.replace(place)

    signal.signal(signal.SIGUSR2, tell)
    sys.argv = sys.argv[module:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


main()
