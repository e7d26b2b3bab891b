"""Row 1: Redis is killed again and again under load, and its connections break; nobody misses an event.

One daemon is connected to Redis, a second one through a proxy that breaks its connections. Every other kill comes
while a batch is on its way that Redis has not answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event

from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.proxy import ProxyThread
from tests.actors.redis_server import RedisServer
from tests.actors.service import Service
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.verdicts import judge
from tests.faults.waits import deliver_again, let_pass, settle
from tests.promise.oracle import STAMPED, Truth

CHANNELS = tuple(f"kept:{number}" for number in range(4))
HISTORY = ("--type", "kept.history_length=100000", "--type", "kept.history_seconds=600")
# The recommended settings; docs/delivery.md.
AOF = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
# At small size faults follow each other so closely that a reconnect would always wait up to the longest.
QUICK = ("--redis-backoff-max-seconds", "0.5")
RATE = 200
ALL_CHANNELS_EVERY = 10
BACK_SECONDS = 2.0
HEALED_SECONDS = 15.0
SETTLED_SECONDS = 20.0


def play(stage: Stage) -> None:
    server = stage.redis(*AOF)
    wire = stage.proxy(server.port)
    flags = (*HISTORY, *stage.pick((), QUICK))
    daemons = [stage.daemon(url, *flags) for url in (server.url, f"redis://127.0.0.1:{wire.port}/0")]
    truths = {channel: Truth({STAMPED: 0}) for channel in CHANNELS}
    followers = clients(truths, [daemon.port for daemon in daemons], stage.pick(200, 30))
    open_followers(followers)
    service = Service(server, truths, RATE, seed=stage.dice.getrandbits(30))
    service.start()
    kills = stage.pick(5, 2)
    faults = faults_of_wires(stage, server, wire)
    wires = stage.dice.sample(faults, stage.pick(len(faults), 4))
    back: list[float] = []
    healed: list[float] = []
    for turn in range(kills):
        for fault in wires[turn::kills]:
            let_pass(followers, stage.dice.uniform(*stage.pick((0.5, 2.0), (0.1, 0.3))))
            fault()
            healed.append(deliver_again(followers))
        let_pass(followers, stage.dice.uniform(*stage.pick((1.0, 4.0), (0.1, 0.3))))
        kill(server, service, followers, is_within_batch=turn % 2 == 0)
        let_pass(followers, stage.dice.uniform(*stage.pick((0.1, 2.0), (0.1, 0.3))))
        server.start()
        back.append(deliver_again(followers))
    service.end()
    settle(followers, SETTLED_SECONDS)
    stage.exactly("kills", len(back), kills)
    stage.exactly("other faults", len(healed), stage.pick(9, 4))
    stage.at_most("delivering again after another fault", max(healed), HEALED_SECONDS, "s")
    noticed = sum(daemon.own_stats()["redis"]["outages"] for daemon in daemons)
    # A kill is one for each; of the nine other faults, six at least end a connection.
    stage.at_least("outages noticed by two daemons", noticed, 2 * kills + stage.pick(6, 0))
    stage.at_least("events a second", service.published / service.seconds, 0.95 * RATE)
    verdict = judge(stage, followers)
    stage.exactly("gaps", sum(len(follower.gaps()) for follower in followers), 0)
    due = sum(truths[channel].published[STAMPED] for follower in followers for channel in follower.channels)
    stage.exactly("events delivered", verdict.heard, due)
    stage.exactly("clients disconnected", sum(follower.endings for follower in followers), 0)
    # At small size others have the processors too.
    stage.at_most("delivering again after", max(back), stage.pick(BACK_SECONDS, 5 * BACK_SECONDS), "s")


def clients(truths: Truths, ports: Sequence[int], count: int) -> list[Follower]:
    """Of every kind and at every daemon; most follow one channel, some all."""
    kinds: tuple[type[Follower], ...] = (WebSocketFollower, V1Follower, SseFollower)
    found = []
    for number in range(count):
        names = CHANNELS if number % ALL_CHANNELS_EVERY == 0 else (CHANNELS[number // 6 % len(CHANNELS)],)
        found.append(kinds[number % 3](names, truths, ports[number // 3 % 2]))
    return found


def faults_of_wires(stage: Stage, server: RedisServer, wire: ProxyThread) -> list[Callable[[], object]]:
    """Everything but a kill; each is over soon after its call."""

    def cut_within_a_push() -> None:
        wire.cut_after(stage.dice.randrange(1, 300), "down")

    def cut_within_a_command() -> None:
        # Those of a reconnect: else there are few.
        wire.cut_after(stage.dice.randrange(1, 150), "up")
        wire.cut()

    def kill_connections(*kinds: str) -> None:
        with server.client() as client:
            for kind in kinds:
                client.execute_command("CLIENT", "KILL", "TYPE", kind)

    def slow_down_and_cut() -> None:
        wire.delay(0.05)
        wire.cut()
        time.sleep(0.3)
        wire.delay(0)

    def stand_still() -> None:
        # Not so long that the daemon takes it for gone.
        server.freeze()
        time.sleep(stage.pick(2.0, 0.3))
        server.thaw()

    return [
        cut_within_a_push,
        cut_within_a_command,
        partial(wire.half_close, "down"),
        partial(wire.half_close, "up"),
        slow_down_and_cut,
        stand_still,
        partial(kill_connections, "pubsub"),
        partial(kill_connections, "normal"),
        partial(kill_connections, "pubsub", "normal"),
    ]


def kill(server: RedisServer, service: Service, followers: Sequence[Follower], *, is_within_batch: bool) -> None:
    """kill -9."""
    # While an fsync runs, Redis writes up to two seconds late, also what it has answered: that is its own bargain.
    # From here on none begins, and what was answered before this is in the file.
    with server.client() as client:
        client.config_set("appendfsync", "no")
    if not is_within_batch:
        server.kill()
        return
    killed = Event()

    def strike() -> None:
        server.kill()
        killed.set()

    service.interrupt(strike)
    follow(followers, killed.is_set)


ROW = Row(
    1,
    "Redis killed and started again under load loses nothing on channels with history",
    "200 messages/s to 200 clients at two daemons; kill -9 and start 5 times at random, with an append-only file "
    "that has what Redis has answered (docs/delivery.md);"
    " between them Redis stands still, and connections are cut within a message, half-closed, slow, killed by Redis",
    "0 lost, 0 doubled, 0 out of order; delivering again within 2 s of Redis answering",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
