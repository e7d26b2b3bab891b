"""Row 4: Redis cuts two daemons that do not read for two seconds; what they missed is filled in, or told.

The one stands behind a proxy that reads nothing any more; the other is stopped (SIGSTOP). Meanwhile more is published
than the kernel holds and the limit allows.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.redis_server import RedisServer
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.verdicts import judge
from tests.faults.waits import settle
from tests.promise.oracle import STAMPED, Truth
from tests.promise.publishing import StampingPublisher

KEPT = ("kept:1", "kept:2")
NOT_KEPT = "none:1"
FLAGS = (
    *("--type", "kept.history_length=100000", "--type", "kept.history_seconds=600"),
    *("--type", "none.history_length=0"),
)
LIMIT = ("--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub", "1mb", "256kb", "5")
HELD_SECONDS = 2.0
BATCH = 50
PAD_BYTES = 15_000
# Beside the limit, the kernel's buffers of two sockets hold some megabytes.
FLOOD_MAX_BYTES = 60_000_000
SETTLED_SECONDS = 20.0
BACK_SECONDS = 2.0
KINDS: tuple[type[Follower], ...] = (WebSocketFollower, V1Follower, SseFollower)


def play(stage: Stage) -> None:
    server = stage.redis(*LIMIT)
    wire = stage.proxy(server.port)
    behind_wire = stage.daemon(f"redis://127.0.0.1:{wire.port}/0", *FLAGS)
    stopped = stage.daemon(server.url, *FLAGS)
    daemons = (behind_wire, stopped)
    truths = {channel: Truth({STAMPED: 0}) for channel in (*KEPT, NOT_KEPT)}
    with_history, without = clients(truths, daemons, stage.pick(10, 2))
    followers = [*with_history, *without]
    open_followers(followers)
    publisher = StampingPublisher.at(server, seed=stage.seed)
    publish(publisher, truths, KEPT, 10)
    publish(publisher, truths, (NOT_KEPT,), 10)
    settle(followers, SETTLED_SECONDS)
    # The first time a daemon is asked, it waits for the other.
    assert not any(is_back(daemon) for daemon in daemons)

    wire.stall("down")
    stopped.process.send_signal(signal.SIGSTOP)
    try:
        held_at = time.monotonic()
        flooded = 0
        while is_heard(server) and flooded < FLOOD_MAX_BYTES:
            publish(publisher, truths, KEPT, BATCH, pad=PAD_BYTES)
            flooded += len(KEPT) * BATCH * PAD_BYTES
        publish(publisher, truths, (NOT_KEPT,), 10)
        stage.at_least("connections cut by Redis", cuts(server), len(daemons))
        time.sleep(max(0.0, held_at + HELD_SECONDS - time.monotonic()))
    finally:
        wire.flow()
        stopped.process.send_signal(signal.SIGCONT)

    back = follow(followers, lambda: all(is_back(daemon) for daemon in daemons))
    publish(publisher, truths, (*KEPT, NOT_KEPT), 10)
    publisher.close()
    settle(followers, SETTLED_SECONDS)
    stage.exactly("outages noticed", sum(daemon.own_stats()["redis"]["outages"] for daemon in daemons), len(daemons))
    stage.at_least("bytes published meanwhile", flooded, 1_000_000)
    judge(stage, followers)
    stage.exactly("gaps with history", sum(len(each.gaps()) for each in with_history), 0)
    told = [[gap.reason for gap in each.gaps()] for each in without]
    stage.exactly("clients without history told", told.count(["redis_away"]), len(without))
    stage.exactly("clients disconnected", sum(each.endings for each in followers), 0)
    # At small size others have the processors too, and a daemon reads what the kernel held for it first.
    stage.at_most("the connections are back after", back, stage.pick(BACK_SECONDS, 5 * BACK_SECONDS), "s")


def clients(
    truths: Truths, daemons: Sequence[DaemonProcess], count: int
) -> tuple[Sequence[Follower], Sequence[Follower]]:
    """Of every kind at each daemon: so many with history, and so many without."""
    ports = [daemon.port for daemon in daemons]
    names = [KEPT[:1], KEPT[1:], KEPT]
    with_history = [
        kind(names[number % len(names)], truths, port) for number in range(count) for kind in KINDS for port in ports
    ]
    return with_history, [kind((NOT_KEPT,), truths, port) for kind in KINDS for port in ports]


def publish(publisher: StampingPublisher, truths: Truths, channels: Sequence[str], count: int, *, pad: int = 0) -> None:
    """So many on each."""
    for channel in channels:
        published = truths[channel].published
        numbers = range(published[STAMPED] + 1, published[STAMPED] + count + 1)
        published[STAMPED] += count
        publisher.publish(
            channel,
            [json.dumps({"c": channel, "by": STAMPED, "n": number, "pad": "x" * pad}).encode() for number in numbers],
        )


def is_heard(server: RedisServer) -> bool:
    """Whether a daemon is connected that listens to what is published, as far as Redis knows."""
    with server.client() as client:
        return any(count for _, count in client.pubsub_numsub(*KEPT))


def cuts(server: RedisServer) -> int:
    """How many connections Redis has cut at their limit: those of the two daemons, and the recorder's."""
    with server.client() as client:
        return int(client.info("stats")["client_output_buffer_limit_disconnections"])


def is_back(daemon: DaemonProcess) -> bool:
    stats = daemon.own_stats()
    return bool(stats["redis"]["outages"] and stats["channels"]["isConnected"])


ROW = Row(
    4,
    "A cut by Redis's output-buffer limit is seen, and what was missed is filled in, or told",
    "pubsub 1mb 256kb 5; two daemons held for 2 s, one by its wire and one by SIGSTOP, while megabytes are published",
    "seen, and filled in: nothing lost and no gap with history; without history each client is told",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
