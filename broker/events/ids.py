"""Ids of events: `<stem>_<milliseconds>`, and `-2`, `-3`... behind it within one millisecond.

Laws: no id is given twice by one process, whatever its threads and its clock do; time in ids never
runs backwards. A child after `fork` is a process of its own. Bounds: the stems of one millisecond,
at most 4096 of them; behind them the next millisecond is taken ahead of time.
"""

from __future__ import annotations

import os
from threading import Lock
from time import time

_STEMS_MAX = 4096

_lock = Lock()
_millisecond = 0
_given: dict[str, int] = {}


def unique_id(stem: str) -> str:
    """An id that begins with `stem`. Synchronous; waits for nothing but other callers."""
    global _millisecond
    now = int(time() * 1000)
    with _lock:
        if now > _millisecond or len(_given) >= _STEMS_MAX:
            _millisecond = max(now, _millisecond + 1)
            _given.clear()
        count = _given[stem] = _given.get(stem, 0) + 1
        milliseconds = _millisecond
    return f"{stem}_{milliseconds}" if count == 1 else f"{stem}_{milliseconds}-{count}"


def _unlock_in_child() -> None:
    # Another thread of the parent may have held it when the child was made.
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)
