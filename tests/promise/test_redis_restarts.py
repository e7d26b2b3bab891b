"""Redis fails in the middle of ten thousand stamped events to a hundred clients of every kind.

With an append-only file everybody ends with every event once; with nothing, or with an older state, whoever
has missed something has its gap event; and where Redis only broke a connection or stood still, nobody notices.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
import redis
from attrs import define, field

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import (
    Follower,
    SseFollower,
    Truths,
    V1Follower,
    WebSocketFollower,
    follow,
    open_followers,
)
from tests.actors.redis_server import RedisServer
from tests.promise.oracle import STAMPED, Truth
from tests.promise.publishing import StampingPublisher

StartDaemon = Callable[..., DaemonProcess]

CHANNELS = tuple(f"kept:{number}" for number in range(8))
EVENTS = 10_000
BATCH = 50
BATCHES = EVENTS // BATCH
SETTLED_SECONDS = 60.0
FROZEN_SECONDS = 5.0
FLAGS = ("--type", "kept.history_length=100000", "--type", "kept.history_seconds=600")
QUICK_PINGS = ("--redis-ping-seconds", "0.5", "--redis-ping-timeout-seconds", "1", "--redis-connect-seconds", "1")
PERSISTENCE = {
    "aof": ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
    "nothing": ("--save", "", "--appendonly", "no"),
}


@define(eq=False)
class Burst:
    """A service that publishes on `CHANNELS`, and tries again what was not answered, under the same key.

    Args:
        truths: what it publishes is counted in them.
        between: called before the batch of that number, which is left out where that returns True.
    """

    server: RedisServer
    truths: Truths
    between: dict[int, Callable[[Burst], object]] = field(factory=dict)
    batches: int = BATCHES
    pad: str = ""
    pause_seconds: float = 0.0
    failures: list[Exception] = field(factory=list)
    is_over: bool = False
    _publisher: StampingPublisher | None = None

    def start(self) -> Thread:
        thread = Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def publish(self, batch: int) -> None:
        """Until it is answered."""
        channel, events, keys = self._events(batch)
        while True:
            try:
                if self._publisher is None:
                    self._publisher = StampingPublisher.at(self.server, seed=batch)
                answers = self._publisher.publish(channel, events, once=keys)
                # What was published before is answered with why it is not kept: empty.
                assert all(isinstance(each, int) or each[1] == b"" for each in answers), answers
                return
            except redis.RedisError:
                self._hang_up()
                time.sleep(0.01)

    def send(self, batch: int) -> None:
        """Without an answer; `publish` it again later."""
        assert self._publisher is not None
        channel, events, keys = self._events(batch)
        self._publisher.send(channel, events, once=keys)
        self._hang_up()

    def _run(self) -> None:
        try:
            for batch in range(self.batches):
                if batch not in self.between or self.between[batch](self) is not True:
                    self.publish(batch)
                time.sleep(self.pause_seconds)
        except Exception as error:
            self.failures.append(error)
        finally:
            self._hang_up()
            self.is_over = True

    def _hang_up(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _events(self, batch: int) -> tuple[str, list[bytes], list[str]]:
        channel = CHANNELS[batch % len(CHANNELS)]
        begin = batch // len(CHANNELS) * BATCH
        # Counted first, as everywhere; who comes later has to have what comes later.
        counts = self.truths[channel].published
        counts[STAMPED] = max(counts[STAMPED], begin + BATCH)
        numbers = range(begin + 1, begin + BATCH + 1)
        events = [
            json.dumps({"c": channel, "by": STAMPED, "n": number, "pad": self.pad}).encode() for number in numbers
        ]
        return channel, events, [str(number) for number in numbers]


def nothing_yet() -> Truths:
    return {channel: Truth({STAMPED: 0}) for channel in CHANNELS}


def clients(truths: Truths, daemon: DaemonProcess, *, one: int = 32, all: int = 2) -> list[Follower]:
    """A hundred: of Base, `broker.v1` and SSE `one` each on one channel; of the last two `all` each on all of them."""
    found: list[Follower] = []
    for number in range(one):
        names = (CHANNELS[number % len(CHANNELS)],)
        found += [kind(names, truths, daemon.port) for kind in (WebSocketFollower, V1Follower, SseFollower)]
    return found + [kind(CHANNELS, truths, daemon.port) for kind in (V1Follower, SseFollower) for _ in range(all)]


def settle(followers: list[Follower], burst: Burst, *, seconds: float = SETTLED_SECONDS) -> None:
    """Read until all have all, and judge."""
    follow(followers, lambda: burst.is_over, seconds)
    assert burst.failures == []

    def faults() -> list[str]:
        return [fault for follower in followers for fault in follower.faults(is_end=True)][:20]

    follow(followers, lambda: all(each.is_live for each in followers) and not faults(), seconds, why=faults)


def gaps_of(followers: list[Follower]) -> set[tuple[str, int]]:
    """Reasons, and how often a client was told one of them for one channel."""
    found = set()
    for follower in followers:
        for record in follower.records.values():
            told = [gap.reason for gap in record.gaps()]
            found |= {(reason, told.count(reason)) for reason in told}
            if not told:
                found.add(("", 0))
    return found


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, PERSISTENCE[request.param])
    server.start()
    yield server
    server.kill()


# The keys of what was not answered are forgotten with the rest: tried again, it would be published twice.
FORGOTTEN = True


def kill_within(batch: int) -> Callable[[Burst], None]:
    """kill -9 while a batch is on its way, and start again."""

    def kill(burst: Burst) -> None:
        publisher = StampingPublisher.at(burst.server)
        # What waits for an fsync is written late, also where it was answered: that is Redis' own bargain.
        deadline = time.monotonic() + 10
        while (info := persistence_of(publisher))["aof_pending_bio_fsync"] or info["aof_buffer_length"]:
            assert time.monotonic() < deadline
        publisher.close()
        burst.publish(batch - 1)  # the same once more: there is a connection, and it is a repetition
        burst.send(batch)
        burst.server.kill()
        time.sleep(0.2)
        burst.server.start()

    return kill


def persistence_of(publisher: StampingPublisher) -> dict[str, int]:
    info = publisher.execute("INFO", "persistence")
    return {name: int(info.get(name, 0)) for name in ("aof_pending_bio_fsync", "aof_buffer_length")}


@pytest.mark.parametrize("server", ["aof"], indirect=True)
def test_with_an_append_only_file_everybody_ends_with_every_event_once(
    server: RedisServer, start_daemon: StartDaemon
) -> None:
    truths = nothing_yet()
    followers = clients(truths, start_daemon(server.url, *FLAGS))
    open_followers(followers)
    burst = Burst(server, truths, {BATCHES // 3: kill_within(BATCHES // 3), BATCHES // 2: kill_within(BATCHES // 2)})
    burst.start()
    settle(followers, burst)
    assert gaps_of(followers) == {("", 0)}
    lengths = {len(record.entries) for follower in followers for record in follower.records.values()}
    assert lengths == {1 + EVENTS // len(CHANNELS)}


@pytest.mark.parametrize("server", ["nothing"], indirect=True)
def test_without_its_data_everybody_has_a_gap_event(server: RedisServer, start_daemon: StartDaemon) -> None:
    truths = nothing_yet()
    followers = clients(truths, start_daemon(server.url, *FLAGS))
    open_followers(followers)
    told_after: list[float] = []

    def restart(burst: Burst) -> bool:
        kill_within(BATCHES // 2)(burst)
        began = time.monotonic()
        while not all(each.gaps() for each in followers):
            assert time.monotonic() - began < 5
            time.sleep(0.01)
        # At once, and not with the next event: none was published since.
        told_after.append(time.monotonic() - began)
        return FORGOTTEN

    burst = Burst(server, truths, {BATCHES // 2: restart})
    burst.start()
    settle(followers, burst)
    # That nobody recorded meanwhile is told too, where it was found out later.
    assert {("epoch_changed", 1)} <= gaps_of(followers) <= {("epoch_changed", 1), ("recorder_changed", 1)}
    assert told_after[0] < 4


@pytest.mark.parametrize("server", ["nothing"], indirect=True)
def test_an_older_state_gives_out_offsets_again_and_everybody_is_told(
    server: RedisServer, start_daemon: StartDaemon
) -> None:
    truths = nothing_yet()
    daemon = start_daemon(server.url, *FLAGS)
    followers = clients(truths, daemon)
    # These are away when it happens, and come back when their offsets have long been given out again.
    absent = [V1Follower(CHANNELS, truths, daemon.port), SseFollower(CHANNELS, truths, daemon.port)]
    everyone = [*followers, *absent]
    open_followers(everyone)
    dice = random.Random(4)
    beyond = Event()

    def save(burst: Burst) -> None:
        publisher = StampingPublisher.at(burst.server)
        publisher.execute("SAVE")
        publisher.close()

    def restart(burst: Burst) -> bool:
        # Who is still before the older state has missed nothing that Redis knows of.
        assert beyond.wait(SETTLED_SECONDS)
        kill_within(BATCHES // 2)(burst)
        return FORGOTTEN

    burst = Burst(server, truths, {BATCHES // 4: save, BATCHES // 2: restart})
    burst.start()
    saved = BATCHES // 4 * BATCH // len(CHANNELS) + BATCH
    follow(
        everyone,
        lambda: all(len(record.entries) > saved + 1 for follower in everyone for record in follower.records.values()),
        SETTLED_SECONDS,
    )
    for follower in absent:
        follower.port = None
        follower.cut_within(dice.randrange(1000))
    beyond.set()
    settle(followers, burst)
    for follower in absent:
        follower.port = daemon.port
    settle(everyone, burst)
    assert gaps_of(everyone) == {("rolled_back", 1)}


def test_connections_that_redis_kills(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    truths = nothing_yet()
    followers = clients(truths, start_daemon(redis_server.url, *FLAGS), one=8, all=2)
    open_followers(followers)

    def kill(*kinds: str) -> Callable[[Burst], None]:
        def run(burst: Burst) -> None:
            with burst.server.client() as client:
                for kind in kinds:
                    client.execute_command("CLIENT", "KILL", "TYPE", kind)

        return run

    between = {BATCHES // 5: kill("pubsub"), BATCHES // 3: kill("normal"), BATCHES // 2: kill("pubsub", "normal")}
    burst = Burst(redis_server, truths, between, pause_seconds=0.005)
    burst.start()
    settle(followers, burst)
    assert gaps_of(followers) == {("", 0)}


def test_a_redis_that_stands_still(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    truths = nothing_yet()
    # One daemon gives Redis up before it goes on, the other is patient.
    daemons = [start_daemon(redis_server.url, *FLAGS, *QUICK_PINGS), start_daemon(redis_server.url, *FLAGS)]
    followers = [each for daemon in daemons for each in clients(truths, daemon, one=4, all=1)]
    open_followers(followers)

    def freeze(burst: Burst) -> None:
        burst.server.freeze()
        time.sleep(FROZEN_SECONDS)
        burst.server.thaw()

    burst = Burst(redis_server, truths, {BATCHES // 3: freeze})
    burst.start()
    settle(followers, burst)
    assert gaps_of(followers) == {("", 0)}


def test_a_daemon_that_stands_still_until_redis_gives_it_up(tmp_path: Path, start_daemon: StartDaemon) -> None:
    limit = ("--client-output-buffer-limit", "pubsub", "256kb", "128kb", "1")
    server = RedisServer(tmp_path, (*PERSISTENCE["nothing"], *limit))
    server.start()
    try:
        truths = nothing_yet()
        daemon = start_daemon(server.url, *FLAGS)
        followers = clients(truths, daemon, one=4, all=1)
        open_followers(followers)

        def stop(burst: Burst) -> None:
            os.kill(daemon.process.pid, signal.SIGSTOP)
            Thread(target=go_on, daemon=True).start()

        def go_on() -> None:
            time.sleep(2.0)
            os.kill(daemon.process.pid, signal.SIGCONT)

        # More than the kernel's buffers hold.
        burst = Burst(server, truths, {4: stop}, batches=BATCHES // 4, pad="x" * 8000)
        burst.start()
        settle(followers, burst)
        assert "Redis connection lost" in daemon.log()
        assert gaps_of(followers) == {("", 0)}
    finally:
        server.kill()
