"""The daemon among others, as the settings name it: its name, its processes, its control socket.

Nothing is looked up.
"""

from __future__ import annotations

import os
import re

from broker.config.secret import shown

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
WORKERS_MAX = 256
AUTO = "auto"
OFF = "off"


def check_workers(text: str) -> None:
    """Refuse what is neither auto nor a number of processes.

    Raises:
        ValueError: so it is.
    """
    if text == AUTO:
        return
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= WORKERS_MAX):
        raise ValueError(f"{shown(text)} is no number of processes; write 1 to {WORKERS_MAX}, or {AUTO}")


def worker_count(text: str) -> int:
    """How many processes: one for each core that this one may use, with `auto`."""
    if text != AUTO:
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), WORKERS_MAX)
    return min(os.cpu_count() or 1, WORKERS_MAX)


def check_node(name: str) -> None:
    """Refuse what cannot be shown as the name of a daemon everywhere.

    Raises:
        ValueError: so it is.
    """
    if name and not _NODE.fullmatch(name):
        raise ValueError(f"{shown(name)} is no name of a daemon; write 1 to 64 letters, digits, dots, - or _")


def check_control_socket(path: str) -> None:
    """Refuse what is neither off nor the absolute path of a unix socket.

    Raises:
        ValueError: so it is.
    """
    if path in ("", OFF):
        return
    if not path.startswith("/") or path.endswith("/") or "\0" in path or len(os.fsencode(path)) > 100:
        raise ValueError(f"{shown(path)} is no path of a socket; write one such as /run/broker/control.sock, or {OFF}")
