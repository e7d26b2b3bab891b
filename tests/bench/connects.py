"""What a connection costs on a channel with history, where a new client gets the newest event, beside one without.

The daemon is a fresh one, and nobody leaves while it is measured: memory that was used before would look free.
"""

from __future__ import annotations

import time
from statistics import median

from tests.bench.figure import Figure
from tests.bench.place import STATE, Place, another_daemon
from tests.bench.publishing import QUIET_SECONDS, Publishing, payload_of, stamped
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds, resident_bytes

ROUNDS = 4


def connects(place: Place, transport: str, clients: int) -> list[Figure]:
    """CPU and memory of a daemon for a client, and the share that history has in it."""
    with another_daemon(place) as fresh:
        return _connects(fresh, transport, clients)


def _connects(place: Place, transport: str, clients: int) -> list[Figure]:
    name = f"{STATE}:{transport}"
    publishing = Publishing(place.redis.port)
    publishing.ask(stamped(name, payload_of(0)))
    publishing.close()
    channels = ("bench:connect", name)
    opened = [Subscribers(place.daemon.port, transport, lambda _, name=name: name) for name in channels]
    costs: tuple[list[float], list[float]] = ([], [])
    memory: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS):
        for subscribers, cost, bytes_each in zip(opened, costs, memory, strict=True):
            cpu, resident = cpu_seconds(place.daemon_pid), resident_bytes(place.daemon_pid)
            subscribers.open(clients)
            _await(opened[1], (turn + (subscribers is opened[1])) * clients)
            cost.append((cpu_seconds(place.daemon_pid) - cpu) / clients)
            bytes_each.append((resident_bytes(place.daemon_pid) - resident) / clients)
    wrong = abs(ROUNDS * clients - opened[1].received) + sum(each.wrong for each in opened)
    for each in opened:
        each.close()
    without, kept = (median(each) * 1e6 for each in costs)
    without_bytes, kept_bytes = (median(each) / 1024 for each in memory)
    return [
        Figure(f"CPU for a connection without history, {transport}", without, "us"),
        Figure(f"the same, with history / without, {transport}", kept / without, wrong=wrong),
        Figure(f"memory of a connection without history, {transport}", without_bytes, "KB"),
        Figure(f"memory of a connection with history, {transport}", kept_bytes, "KB"),
    ]


def _await(subscribers: Subscribers, count: int) -> None:
    """The newest event follows the answer."""
    deadline = time.monotonic() + QUIET_SECONDS
    while subscribers.received < count and time.monotonic() < deadline:
        subscribers.poll(0.005)
