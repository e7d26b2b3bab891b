"""What publishing costs Redis: the script that stamps, beside a bare PUBLISH, one call a round trip.

One client listens on the daemon to each channel. On channels with history the daemon's recorder listens too, so
Redis writes each event twice: the script is held against a bare PUBLISH to the same listeners, and shown beside one
on a channel without history. Rounds take turns, and medians are compared.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from statistics import median

from tests.bench.figure import Figure
from tests.bench.place import KEPT, Place
from tests.bench.publishing import QUIET_SECONDS, Way, payload_of, plain, stamped, unkept
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds

CALLS = 1000
ROUNDS = 20
_POLL_EVERY = 50


def publish_cost(place: Place) -> list[Figure]:
    """Redis' CPU for a call, and how many times that of a bare PUBLISH it is."""
    names = ("bench:cost", f"{KEPT}:costbare", f"{KEPT}:cost", f"{KEPT}:costplain")
    ways: tuple[Way, ...] = (plain, unkept, stamped, plain)
    listeners = [_listener(place, name) for name in names]
    costs: list[list[float]] = [[], [], [], []]
    with socket.create_connection(("127.0.0.1", place.redis.port)) as service:
        service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for turn in range(ROUNDS + 1):
            for way, name, listener, found in zip(ways, names, listeners, costs, strict=True):
                first = turn * CALLS
                commands = [way(name, payload_of(number)) for number in range(first, first + CALLS)]
                before = cpu_seconds(place.redis_pid)
                _call(service, commands, listener)
                found.append((cpu_seconds(place.redis_pid) - before) / CALLS)
    wrong = sum(each.wrong + abs((ROUNDS + 1) * CALLS - each.received) for each in listeners)
    for each in listeners:
        each.close()
    # The first round fills the history: from then on each event kept is one that goes.
    bare, heard, script, recorded = (median(found[1:]) * 1e6 for found in costs)
    return [
        Figure("Redis' CPU for a bare PUBLISH", bare, "us", wrong=wrong),
        Figure("Redis' CPU for the script that stamps", script, "us"),
        Figure("Redis' CPU, the script / a bare PUBLISH to the same listeners", script / heard, most=3),
        Figure("Redis' CPU, the script / a bare PUBLISH without history", script / bare),
        Figure("Redis' CPU, a plain PUBLISH that is recorded / a bare one", recorded / bare),
    ]


def _listener(place: Place, name: str) -> Subscribers:
    listener = Subscribers(place.daemon.port, "websocket", lambda _: name)
    listener.open(1)
    return listener


def _call(service: socket.socket, commands: Sequence[bytes], listener: Subscribers) -> None:
    """One after the other, each answered before the next; then all of them are delivered."""
    expected = listener.received + len(commands)
    for index, command in enumerate(commands):
        service.sendall(command)
        answer = service.recv(4096)
        if not answer.startswith(b":"):
            raise RuntimeError(f"Redis answered {answer!r}")
        if index % _POLL_EVERY == 0:
            listener.poll(0)
    waits = 0
    while listener.received < expected and waits < QUIET_SECONDS / 0.01:
        listener.poll(0.01)
        waits += 1
