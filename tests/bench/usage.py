"""What a process has used, as the kernel counts it. Linux only: 0 elsewhere.

CPU that was used is not changed by what else the machine does, as far as caches allow; seconds are.
Source: proc(5); `Documentation/scheduler/sched-stats.rst` of the kernel: the first number is nanoseconds run.
"""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """CPU of all threads of a process, in user mode and in the kernel."""
    try:
        return sum(_nanoseconds(task) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9
    except FileNotFoundError:
        return 0.0


def resident_bytes(pid: int) -> int:
    """Memory that a process has in RAM."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


def _nanoseconds(task: Path) -> int:
    return int((task / "schedstat").read_text().split()[0])
