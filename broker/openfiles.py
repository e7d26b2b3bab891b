"""The open-file limit, and how many connections follow from it."""

from __future__ import annotations

import resource

# Listeners, Redis, the log, the embedded server's pipe, answers of 503, and some to spare.
RESERVED = 96
_ENOUGH = 1 << 20


def raise_open_file_limit() -> int:
    """Raise the soft limit to the hard one. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        except (ValueError, OSError):  # macOS has a lower bound of its own
            pass
    return open_file_limit()


def open_file_limit() -> int:
    """The limit in force. Another process may change it at any time (prlimit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def connections_for(limit: int, wanted: int) -> int:
    """How many connections may be open at once: `wanted`, or as many as `limit` allows where that is 0 or fewer."""
    room = max(1, limit - RESERVED)
    return min(wanted, room) if wanted else room
