"""What this process uses, as the kernel says. Linux; elsewhere what is not known is None.

Open descriptors are counted by the size of their folder where the kernel says it (Linux 6.2 and newer); before that
they are listed, which takes milliseconds for ten thousand, so it is done beside the event loop, and no more often than
every `_LIST_SECONDS`. Source: proc(5).
"""

from __future__ import annotations

import os
import resource
import time

import trio
from attrs import define, field, frozen

_LIST_SECONDS = 10.0
_DESCRIPTORS = "/proc/self/fd"


@frozen
class ProcessStatistics:
    """A snapshot. Times are in seconds, `started_at` since 1970."""

    cpu_seconds: float
    resident_bytes: int | None
    open_descriptors: int | None
    max_descriptors: float
    started_at: float | None


@define(eq=False)
class Process:
    """This process."""

    _listed: int | None = field(init=False, default=None)
    _listed_at: float = field(init=False, default=float("-inf"))
    _started_at: float | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._started_at = _started_at()

    async def statistics(self) -> ProcessStatistics:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return ProcessStatistics(
            time.process_time(),
            _resident_bytes(),
            await self._open_descriptors(),
            float("inf") if soft == resource.RLIM_INFINITY else soft,
            self._started_at,
        )

    async def _open_descriptors(self) -> int | None:
        try:
            size = os.stat(_DESCRIPTORS).st_size
        except OSError:
            return None
        if size:
            return size
        if trio.current_time() - self._listed_at >= _LIST_SECONDS:
            self._listed_at = trio.current_time()
            # One is open to list them.
            self._listed = len(await trio.to_thread.run_sync(os.listdir, _DESCRIPTORS)) - 1
        return self._listed


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _started_at() -> float | None:
    try:
        with open("/proc/self/stat", "rb") as file:
            # Behind the name, which may have anything in it: the 22nd field of all.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as file:
            booted_at = time.time() - float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return booted_at + ticks / os.sysconf("SC_CLK_TCK")
