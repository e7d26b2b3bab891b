"""What it costs to look at a token (HS256): CPU for a connection with one, beside one where nobody is asked."""

from __future__ import annotations

import time
from statistics import median

import jwt

from tests.bench.figure import Figure
from tests.bench.place import Place, another_daemon
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds

ROUNDS = 6
MOST_US = 150.0
_SECRET = "a secret of the benchmark that is longer than 32 bytes"
_CHANNEL = "bench:token"


def tokens(place: Place, transport: str, clients: int) -> list[Figure]:
    """CPU of a connect without authentication, and how much more it is with a token. In turns, on fresh daemons."""
    now = int(time.time())
    made = [
        jwt.encode(
            {"sub": f"user_{index}", "iat": now, "exp": now + 3600, "jti": str(index), "subscribe": ["bench:*"]},
            _SECRET,
            "HS256",
        )
        for index in range(ROUNDS * clients)
    ]
    with another_daemon(place) as free, another_daemon(place, _SECRET) as asking:
        sides = [
            (free, Subscribers(free.daemon.port, transport, lambda _: _CHANNEL)),
            (asking, Subscribers(asking.daemon.port, transport, lambda _: _CHANNEL, token=made.__getitem__)),
        ]
        costs: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for (where, subscribers), cost in zip(sides, costs, strict=True):
                before = cpu_seconds(where.daemon_pid)
                subscribers.open(clients)
                cost.append((cpu_seconds(where.daemon_pid) - before) / clients * 1e6)
        for _, subscribers in sides:
            subscribers.close()
    # The first round of a daemon warms it up.
    without, with_token = (median(cost[1:]) for cost in costs)
    return [
        Figure(f"CPU for a connection where nobody is asked, {transport}", without, "us"),
        Figure(f"how much more it is with a token, {transport}", with_token - without, "us", most=MOST_US),
    ]
