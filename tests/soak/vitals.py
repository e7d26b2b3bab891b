"""The vitals of a daemon: memory, descriptors, tasks, subscriptions, with nobody there; and what they may have become.

Bounds, for what the last may have more than the first: `LIMITS`. Memory counts after the garbage was collected and free
memory given back; what is left wanders by a few hundred KB, as allocators do. What of it is in use does not; some C
libraries cannot say it, and then there is no such figure.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer

MB = 1024 * 1024
RESIDENT, IN_USE = "resident memory, MB", "memory in use, MB"
LIMITS = {
    **{RESIDENT: 3.0, IN_USE: 1.0, "descriptors": 0, "tasks": 0, "Redis subscriptions": 0},
    **{"clients": 0, "channels": 0, "queued bytes": 0},
}
SLOPE_MB_A_MINUTE = 0.5
"""Over a run of at least `SLOPE_MINUTES`; in a short one the limit on memory says more."""
SLOPE_MINUTES = 5.0
_GROWN_SHOWN = 8
LOOKS = 3
LOOK_SECONDS = 0.15


@frozen
class Vitals:
    """With nobody there.

    Args:
        minute: since the soak began.
    """

    minute: float
    figures: dict[str, float]
    objects: Counter[str]
    tasks: Counter[str]


def measure(daemon: DaemonProcess, server: RedisServer, window: Path, minute: float) -> Vitals:
    """Wait until everybody has left, and measure. Blocks."""
    wait_until(lambda: _is_empty(daemon.stats()), 20)
    stats = daemon.stats()
    # Who asked is still leaving, and what is done now and then may be under way: what is left over stays.
    told = min((_told(daemon, window) for _ in range(LOOKS)), key=lambda each: (each["descriptors"], each["sum"]))
    figures = {
        RESIDENT: told["bytes"] / MB,
        **({} if told["used"] is None else {IN_USE: told["used"] / MB}),
        "descriptors": told["descriptors"],
        "tasks": told["sum"],
        "Redis subscriptions": subscriptions_of(server),
        "clients": clients_of(stats),
        "channels": stats["channels"]["activeChannels"],
        "queued bytes": stats["outboxes"]["queuedBytes"],
    }
    return Vitals(minute, figures, Counter(told["objects"]), Counter(told["tasks"]))


def _told(daemon: DaemonProcess, window: Path) -> Any:
    time.sleep(LOOK_SECONDS)
    window.unlink(missing_ok=True)
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(window.exists)
    told = json.loads(window.read_text())
    return {**told, "sum": sum(told["tasks"].values())}


def clients_of(stats: Any) -> int:
    return int(stats["websocket"]["totalConnections"] + stats["sse"]["totalConnections"])


def subscriptions_of(server: RedisServer) -> int:
    """What all connections of Redis are subscribed to, channels and patterns: one that should have gone counts too."""
    with server.client() as client:
        return sum(int(each["sub"]) + int(each["psub"]) for each in client.client_list())


def slope(taken: Sequence[Vitals]) -> float:
    """MB a minute: the line of least squares through the memory."""
    return slope_through([(each.minute, each.figures[RESIDENT]) for each in taken])


def slope_through(points: Sequence[tuple[float, float]]) -> float:
    """Of the line of least squares."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0


def complaints(taken: Sequence[Vitals]) -> list[str]:
    """What is not where it began, a sentence each."""
    first, last = taken[0], taken[-1]
    found = [
        f"{name}: {first.figures[name]:g} at first, {last.figures[name]:g} at last; at most {limit:g} more"
        for name, limit in LIMITS.items()
        if name in first.figures and last.figures[name] - first.figures[name] > limit
    ]
    if last.minute - first.minute >= SLOPE_MINUTES * 0.75 and slope(taken) > SLOPE_MB_A_MINUTE:
        found.append(f"memory grows by {slope(taken):.2f} MB a minute; at most {SLOPE_MB_A_MINUTE:g}")
    return found


def table(taken: Sequence[Vitals]) -> list[str]:
    """First and last of every figure, what it may have more, and how memory went."""
    first, last = taken[0], taken[-1]
    lines = [f"{'with nobody there':<20}{'first':>12}{'last':>12}{'more':>10}{'at most':>10}"]
    for name in first.figures:
        limit = LIMITS[name]
        begin, end = first.figures[name], last.figures[name]
        lines.append(f"{name:<20}{begin:>12.4g}{end:>12.4g}{end - begin:>10.3g}{limit:>10g}")
    lines.append("memory at each rest: " + ", ".join(f"{each.figures[RESIDENT]:.1f}" for each in taken) + " MB")
    lines.append(
        f"slope: {slope(taken):+.2f} MB a minute (at most {SLOPE_MB_A_MINUTE:g}, from {SLOPE_MINUTES:g} min on)"
    )
    for name, more in (("objects", last.objects - first.objects), ("tasks", last.tasks - first.tasks)):
        grown = more.most_common(_GROWN_SHOWN)
        lines.append(f"{name} that became more: " + (", ".join(f"{each} {count}" for each, count in grown) or "none"))
    return lines


def _is_empty(stats: Any) -> bool:
    channels = stats["channels"]
    # The connection that asks is one.
    is_left = clients_of(stats) == 0 and stats["connections"]["open"] <= 1
    return is_left and channels["activeChannels"] == channels["redisSubscriptions"] == 0
