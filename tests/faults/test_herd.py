"""Row 11: the daemon is killed and started again, and everybody who was there comes back at once.

The new daemon is held (SIGSTOP) until all have knocked: so the kernel has all of them waiting at a time.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

from tests.actors.followers import Follower, SseFollower, V1Follower, follow, open_followers
from tests.actors.returning import Service, raise_open_files
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.verdicts import judge
from tests.faults.waits import settle

CHANNELS = tuple(f"kept:{index}" for index in range(10))
FLAGS = ("--type", "kept.history_length=1000", "--type", "kept.history_seconds=600")
# The kernel does not refuse who finds the backlog full: it says nothing, and the client knocks again after a second.
SECOND_KNOCK_SECONDS = 0.9
OPEN_AT_ONCE = 200


def play(stage: Stage) -> None:
    raise_open_files()
    redis = stage.redis()
    daemon = stage.daemon(redis.url, *FLAGS)
    service = Service(redis, CHANNELS, 2.0)
    try:
        clients: list[Follower] = [
            kind((CHANNELS[index % len(CHANNELS)],), service.truths, daemon.port)
            for index in range(stage.pick(1000, 150))
            for kind in (V1Follower, SseFollower)
        ]
        for begin in range(0, len(clients), OPEN_AT_ONCE):
            open_followers(clients[begin : begin + OPEN_AT_ONCE])
        heard = service.count + 1
        follow(clients, lambda: service.count > heard)

        daemon.stop(signal.SIGKILL)
        for client in clients:
            client.cut()
        daemon.listen = f"127.0.0.1:{daemon.port}"
        daemon.start()
        daemon.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        refused, unanswered = _knock(clients)
        knocked = time.monotonic() - began
        daemon.process.send_signal(signal.SIGCONT)
        follow(clients, lambda: all(client.is_live for client in clients), 60)
        live = time.monotonic() - began
        service.end()
        settle(clients, 15)
    finally:
        service.end()
    stage.at_least("events published", service.count * len(CHANNELS), 2 * len(CHANNELS))
    stage.at_least("clients", len(clients), stage.pick(2000, 300))
    stage.at_most("all have come back within", knocked, stage.pick(1.0, 5.0), "s")
    stage.exactly("refused by the kernel", refused, 0)
    stage.exactly("left without an answer by the kernel", unanswered, 0)
    stage.at_most("all live within", live, stage.pick(10, 30), "s")
    stage.exactly("connections lost since", sum(client.endings for client in clients), 0)
    judge(stage, clients)
    stage.exactly("gaps told", sum(len(client.gaps()) for client in clients), 0)


def _knock(clients: Sequence[Follower]) -> tuple[int, int]:
    """All connect, one after the other. Returns how many were refused, and how many had to knock twice."""
    refused = unanswered = 0
    for client in clients:
        began = time.monotonic()
        try:
            client.connect()
        except TimeoutError:
            return refused, unanswered + 1  # the others would find it full as well
        refused += client.peer is None
        unanswered += time.monotonic() - began > SECOND_KNOCK_SECONDS
    return refused, unanswered


ROW = Row(
    11,
    "A herd that comes back is let in",
    "2000 clients reconnect within 1 s of a restart, all before the new daemon accepts the first",
    "none refused by the kernel (backlog 4096), all live within 10 s",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
