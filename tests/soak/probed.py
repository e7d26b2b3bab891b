"""A daemon with a window: `python -m tests.soak.probed FILE python -m broker serve ...`.

At SIGUSR2 it collects its garbage, gives free memory back, and writes to FILE what it then has: trio's tasks
by name, objects by type, resident bytes, bytes that are in use, descriptors. Nothing else about it is different.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import runpy
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

_MALLINFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


def resident_bytes(pid: int | str = "self") -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO)


def used_bytes() -> int | None:
    """What was asked of the allocators and not given back: of glibc's and of Python's own, whose arenas are none of it.

    Not as resident memory does, it does not move with how full the pages are. None where the C library cannot say it.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):  # glibc before 2.33, or another
        return None
    mallinfo.restype = _Mallinfo
    told = mallinfo()
    # It can only be printed, and that to the error output.
    before = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(before, 2)
            os.close(before)
        printed.seek(0)
        found = re.search(rb"# bytes in allocated blocks += +([0-9,]+)", printed.read())
    return int(told.uordblks + told.hblkhd) + (int(found[1].replace(b",", b"")) if found else 0)


def _forget_deadlines() -> None:
    """Trio keeps up to a thousand scopes that are over, some 200 KB, until it next tidies up."""
    with suppress(AttributeError):  # it is private there
        GLOBAL_RUN_CONTEXT.runner.deadlines._prune()


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

    def tell() -> None:
        _forget_deadlines()
        for _ in range(3):
            gc.collect()
        if trim is not None:
            trim(0)
        told = {
            "tasks": Counter(task.name for task in _tasks(trio.lowlevel.current_root_task())),
            "bytes": resident_bytes(),
            "used": used_bytes(),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # the folder itself
            "objects": Counter(type(each).__qualname__ for each in gc.get_objects()),
        }
        written = place.with_suffix(".new")
        written.write_text(json.dumps(told))
        written.replace(place)

    # Between two tasks, where nothing is half done.
    signal.signal(signal.SIGUSR2, lambda number, frame: trio.lowlevel.current_trio_token().run_sync_soon(tell))
    # As `python -m` would: the broker is that of the folder in which this is run.
    sys.path[0] = os.getcwd()
    sys.argv = sys.argv[module:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


main()
