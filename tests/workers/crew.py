"""The processes of a daemon of several workers, as the kernel shows them. Linux only, as they are."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from tests.actors.daemon_process import DaemonProcess

_ESTABLISHED = "01"
_WORKER = re.compile(r"worker\0--slot\0(\d+)\0")


def workers_of(daemon: DaemonProcess) -> dict[int, int]:
    """The process id of each slot's worker that is there."""
    return {slot: pid for pid in children_of(daemon.process.pid) if (slot := _slot(pid)) is not None}


def children_of(pid: int) -> list[int]:
    """Those that are there, and no zombies; whichever thread has started them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, task.read_text().split())
    return [child for child in found if is_there(child)]


def is_there(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def connections_of(daemon: DaemonProcess, pid: int) -> int:
    """How many of the daemon's clients one of its workers has."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    found = [line.split() for line in lines]
    here = f":{daemon.port:04X}"
    # A row may come twice where connections come and go while the table is read.
    return len({row[9] for row in found if row[1].endswith(here) and row[3] == _ESTABLISHED} & inodes)


def _slot(pid: int) -> int | None:
    try:
        found = _WORKER.search(Path(f"/proc/{pid}/cmdline").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(found[1]) if found else None
