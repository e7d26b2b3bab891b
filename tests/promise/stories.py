"""Random stories of publishers, clients and faults; whatever happens in them, the oracle finds nothing.

A story has four channels: with a history that is long enough, with a short one, with a short one whose slow
clients lose the oldest events, and with none; and two daemons on one Redis. Hypothesis decides what happens; at its
end everybody comes back, one event more is published on every channel, and within `SETTLED_SECONDS` everybody has had
everything, or was told that it has not.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import ClassVar

from attrs import Factory, define
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from broker.history.keys import Keys
from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import (
    Follower,
    SseFollower,
    Truths,
    V1Follower,
    WebSocketFollower,
    follow,
)
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.faults.verdicts import Verdict
from tests.promise.causes import Causes, resumed
from tests.promise.oracle import PLAIN, STAMPED, Truth
from tests.promise.publishing import StampingPublisher

SETTLED_SECONDS = 10.0
FOLLOWERS_MAX = 8
HEARD_SECONDS = 0.5
# What the kernel takes at once, and in a packet: little fits on the way, and what who stalls does not read waits in the
# daemon. With less than this a packet may be larger than the window, and the kernel hands on one in 0.2 s.
NARROW = (8192, 1400)
TYPES = ("long", "short", "dropping", "none")
KINDS: tuple[type[Follower], ...] = (WebSocketFollower, V1Follower, SseFollower)
KILLS_MAX = 3
FLAGS = (
    *("--type", "long.history_length=10000", "--type", "long.history_seconds=600"),
    *("--type", "short.history_length=25", "--type", "short.history_seconds=600", "--type", "short.replay=2"),
    *("--type", "dropping.history_length=25", "--type", "dropping.history_seconds=600"),
    *("--type", "dropping.slow_clients=drop_oldest"),
    *("--clients-catch-up-bytes", "8192", "--clients-outbox-max-bytes", "65536"),
    *("--channels-message-max-bytes", "32768"),
    *("--redis-backoff-min-seconds", "0.02", "--redis-backoff-max-seconds", "0.1"),
    *("--history-check-seconds", "1", "--history-lease-seconds", "1", "--daemon-drain-seconds", "1"),
)
_BIG = 3000
_HUGE = 30_000

numbers = st.integers(0, 1000)
channels = st.sampled_from(TYPES)
# At any byte: where a connection is cut matters most in its first few, and inside what is read at once.
sizes = st.one_of(st.just(0), st.integers(1, 400), st.integers(400, 20_000))


@define(eq=False)
class Scene:
    """What outlives a story.

    Args:
        folder: where a story that went wrong is written.
        counts: how often each step was taken.
        faults: what went wrong, a line each.
    """

    redis_server: RedisServer
    daemons: tuple[DaemonProcess, ...]
    seed: int
    folder: Path
    stories: int = 0
    steps: int = 0
    counts: Counter[str] = Factory(Counter)
    gaps: Counter[str] = Factory(Counter)
    resumed: int = 0
    unjustified: int = 0
    verdict: Verdict = Factory(Verdict)
    faults: list[str] = Factory(list)

    def is_settled(self) -> bool:
        """Whether every daemon hears Redis, and one records."""
        stats = [daemon.own_stats() for daemon in self.daemons]
        return all(each["status"] == "healthy" for each in stats) and any(
            each["history"]["isRecorder"] for each in stats
        )


class Story(RuleBasedStateMachine):
    """One story."""

    scene: ClassVar[Scene]

    @initialize()
    def open(self) -> None:
        scene = self.scene
        scene.stories += 1
        self.kills = 0
        self.told: list[str] = []
        self.publishers = 1000 * scene.stories
        self.is_overwhelmed = self.is_restarted = self.is_redis_restarted = False
        self.publisher = self._publisher()
        self.channels = {type: f"{type}:{scene.stories}" for type in TYPES}
        self.truths: Truths = {name: Truth({STAMPED: 0, PLAIN: 0}) for name in self.channels.values()}
        self.followers: list[Follower] = []
        self.causes = Causes()
        for type, channel in self.channels.items():
            self.causes.begin(type, channel)
        self.keys = Keys("")
        self.unrecorded = {self.channels[type] for type in TYPES if type != "none"}
        wait_until(scene.is_settled)
        # Whatever follows, somebody is there.
        for number, kind in enumerate(KINDS):
            self.followers.append(kind(tuple(self.channels.values()), self.truths, self._port(number)))
        follow(self.followers, lambda: all(follower.is_live for follower in self.followers), SETTLED_SECONDS)

    # -- publishers

    @rule(type=channels, count=st.integers(1, 12), is_big=st.booleans())
    def publish_stamped(self, type: str, count: int, is_big: bool) -> None:
        channel = self.channels[type]
        self._tell("publish_stamped", channel, count, is_big)
        answers = self.publisher.publish(channel, [self._event(channel, STAMPED, _BIG * is_big) for _ in range(count)])
        assert all(isinstance(answer, int) for answer in answers), answers

    @rule(types=st.lists(channels, min_size=2, max_size=6))
    def publish_batch(self, types: list[str]) -> None:
        items = [(channel, self._event(channel, STAMPED)) for channel in map(self.channels.__getitem__, types)]
        self._tell("publish_batch", types)
        assert self.publisher.publish_all(items)[:3] == [0, len(items), b""]

    @rule(type=channels, count=st.integers(1, 12), is_big=st.booleans())
    def publish_plain(self, type: str, count: int, is_big: bool) -> None:
        channel = self.channels[type]
        if channel in self.unrecorded and (self.kills or self.is_restarted or self.is_redis_restarted):
            # Who records may still be away, which is not told of a history that has nothing plain.
            self._have_recorded()
        self._tell("publish_plain", channel, count, is_big)
        self._publish_plain(channel, count, is_big)

    # -- clients

    @precondition(lambda self: len(self.followers) < FOLLOWERS_MAX)
    @rule(
        kind=st.sampled_from(KINDS),
        types=st.lists(channels, min_size=1, max_size=4, unique=True),
        number=numbers,
        is_narrow=st.booleans(),
    )
    def come(self, kind: type[Follower], types: list[str], number: int, is_narrow: bool) -> None:
        names = tuple(self.channels[type] for type in types)
        follower = kind(names, self.truths, self._port(number), *(NARROW if is_narrow else ()))
        self._tell("come", follower, number)
        self.followers.append(follower)

    @precondition(lambda self: self.followers)
    @rule(number=numbers, size=sizes, to=numbers, stays_away=st.booleans())
    def cut(self, number: int, size: int, to: int, stays_away: bool) -> None:
        follower = self._follower(number)
        self._tell("cut", number, size, to, stays_away)
        follower.cut_within(size)
        follower.port = None if stays_away else self._port(to)

    @precondition(lambda self: self.followers)
    @rule(number=numbers, size=sizes, count=st.integers(1, 60), to=numbers, is_trimmed=st.booleans())
    def miss(self, number: int, size: int, count: int, to: int, is_trimmed: bool) -> None:
        """Somebody is away while a lot is published, or little that is trimmed."""
        follower = self._follower(number)
        channel = follower.channels[count % len(follower.channels)]
        self._tell("miss", number, size, count, to, is_trimmed)
        follower.port, follower.is_stalled = self._port(to), False
        follow([follower], lambda: follower.is_live, SETTLED_SECONDS)
        follower.cut_within(size)
        self.publisher.publish(channel, [self._event(channel, STAMPED) for _ in range(count)])
        if is_trimmed:
            self.causes.trimmed(channel)
            self.publisher.execute("XTRIM", self.keys.events(channel), "MAXLEN", count // 2)

    @precondition(lambda self: self.followers and not self.is_overwhelmed)
    @rule(number=numbers, count=st.integers(200, 300), goes_on=st.booleans())
    def overwhelm(self, number: int, count: int, goes_on: bool) -> None:
        """More than the kernel and the outbox hold is published on a channel that somebody does not read."""
        follower = self._follower(number)
        channel = follower.channels[count % len(follower.channels)]
        self._tell("overwhelm", number, count, goes_on)
        follower.port, follower.is_stalled = self._port(number), False
        follow([follower], lambda: follower.is_live, SETTLED_SECONDS)
        self.publisher.publish(channel, [self._event(channel, STAMPED, _HUGE) for _ in range(count)])
        follower.is_stalled = not goes_on
        # It takes a while, and once is enough.
        self.is_overwhelmed = True

    @precondition(lambda self: any(follower.port is None for follower in self.followers))
    @rule(to=numbers)
    def come_back(self, to: int) -> None:
        self._tell("come_back", to)
        for follower in self.followers:
            if follower.port is None:
                follower.port = self._port(to)
                follower.connect()

    @precondition(lambda self: self.followers)
    @rule(number=numbers)
    def stop_or_go_on_reading(self, number: int) -> None:
        follower = self._follower(number)
        follower.is_stalled = not follower.is_stalled
        self._tell("stop_or_go_on_reading", number)

    @rule(milliseconds=st.sampled_from([1, 10, 60]))
    def read(self, milliseconds: int) -> None:
        self._tell("read", milliseconds)
        until = time.monotonic() + milliseconds / 1000
        follow(self.followers, lambda: time.monotonic() >= until)

    # -- faults

    @precondition(lambda self: self.kills < KILLS_MAX)
    @rule(kind=st.sampled_from(["pubsub", "normal"]))
    def kill_connections(self, kind: str) -> None:
        self.kills += 1
        # Of a channel on which nothing was ever recorded nobody can say that plain PUBLISHes are missing.
        self._have_recorded()
        self.causes.interrupted()
        self._tell("kill_connections", kind)
        self.publisher.execute("CLIENT", "KILL", "TYPE", kind)

    @rule(type=channels, what=st.sampled_from(["top", "events", "both"]))
    def delete(self, type: str, what: str) -> None:
        channel = self.channels[type]
        self._tell("delete", channel, what)
        (self.causes.trimmed if what == "events" else self.causes.deleted)(channel)
        keys = {"top": [self.keys.top(channel)], "events": [self.keys.events(channel)]}
        self.publisher.execute("DEL", *keys.get(what, [*keys["top"], *keys["events"]]))
        if what != "events" and type != "none":
            self.unrecorded.add(channel)

    @rule(type=channels, keep=st.integers(0, 10))
    def trim(self, type: str, keep: int) -> None:
        self._tell("trim", type, keep)
        self.causes.trimmed(self.channels[type])
        self.publisher.execute("XTRIM", self.keys.events(self.channels[type]), "MAXLEN", keep)

    # Each takes a while, and once in a story is enough.

    @precondition(lambda self: not self.is_restarted)
    @rule(number=numbers, is_killed=st.booleans())
    def restart_daemon(self, number: int, is_killed: bool) -> None:
        self.is_restarted = True
        self._have_recorded()
        self.causes.interrupted()
        self._tell("restart_daemon", number, is_killed)
        daemon = self.scene.daemons[number % len(self.scene.daemons)]
        daemon.listen = f"127.0.0.1:{daemon.port}"
        leaving = Thread(target=daemon.stop, args=(signal.SIGKILL if is_killed else signal.SIGTERM,), daemon=True)
        leaving.start()
        # Who reads is told goodbye meanwhile, and goes where nobody is.
        follow(self.followers, lambda: not leaving.is_alive())
        daemon.start()

    @precondition(lambda self: not self.is_redis_restarted)
    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3]))
    def restart_redis(self, seconds: float) -> None:
        self.is_redis_restarted = True
        self._have_recorded()
        self.causes.interrupted()
        self._tell("restart_redis", seconds)
        # While an fsync runs, Redis writes up to two seconds late, also what it has answered: from here on none begins.
        self.publisher.execute("CONFIG", "SET", "appendfsync", "no")
        self.publisher.close()
        self.scene.redis_server.kill()
        until = time.monotonic() + seconds
        follow(self.followers, lambda: time.monotonic() >= until)
        self.scene.redis_server.start()
        self.publisher = self._publisher()

    def teardown(self) -> None:
        try:
            self._end()
        finally:
            # Nobody needs them any more, and Redis reads them each time it starts.
            for channel in self.truths:
                self.publisher.execute("DEL", self.keys.top(channel), self.keys.events(channel))
            for follower in self.followers:
                follower.port = None
                follower.cut()
            self.publisher.close()

    # -- how it is done

    def _end(self) -> None:
        self._tell("end")
        wait_until(self.scene.is_settled)
        for channel in self.truths:
            self.publisher.publish(channel, [self._event(channel, STAMPED)])
            self._publish_plain(channel, 1)
        for follower in self.followers:
            follower.is_stalled = False
            follower.port = follower.port or self._port(0)

        def is_complete() -> bool:
            return all(follower.is_live and not follower.faults(is_end=True) for follower in self.followers)

        try:
            follow(self.followers, is_complete, SETTLED_SECONDS)
        except AssertionError:
            pass  # what is missing, the followers say
        scene = self.scene
        scene.steps += len(self.told) - 1
        scene.counts.update(what for _, what, *_ in map(str.split, self.told))
        for follower in self.followers:
            scene.gaps.update(gap.reason for gap in follower.gaps())
            for channel, record in follower.records.items():
                scene.verdict.hear(record)
                scene.resumed += resumed(record)
                scene.unjustified += len(list(self.causes.unjustified(channel, record)))
        if found := self._faults():
            place = scene.folder / f"story-{scene.stories}.log"
            place.write_text("\n".join(found))
            scene.faults += [f"story {scene.stories}, see {place.name}", *found[:10]]

    def _faults(self) -> list[str]:
        """What was wrong, what those had noted who say so, and the whole story."""
        found = [fault for follower in self.followers for fault in follower.faults(is_end=True)]
        found += [f"{follower} is not live" for follower in self.followers if not follower.is_live]
        for follower in self.followers:
            for channel, record in follower.records.items():
                found += [f"{follower}, {each}" for each in self.causes.unjustified(channel, record)]
        if not found:
            return []
        for follower in self.followers:
            for channel, record in follower.records.items():
                if record.faults_at_end() or any(self.causes.unjustified(channel, record)):
                    found += [f"what {follower} noted of {channel}:", *map(str, record.entries[-40:])]
        return [*found, "the story:", *self.told]

    def _publisher(self) -> StampingPublisher:
        self.publishers += 1
        return StampingPublisher.at(self.scene.redis_server, seed=self.scene.seed + 1000 * self.publishers)

    def _tell(self, *what: object) -> None:
        self.told.append(f"{time.monotonic():.3f} {' '.join(map(str, what))}")

    def _event(self, channel: str, by: str, pad: int = 0) -> bytes:
        counts = self.truths[channel].published
        # Counted before it is published: who is told meanwhile that it is live need not have it.
        counts[by] += 1
        event = {"c": channel, "by": by, "n": counts[by], "pad": "x" * pad}
        return json.dumps(event).encode()

    def _publish_plain(self, channel: str, count: int, is_big: bool = False) -> None:
        for _ in range(count):
            self.publisher.execute("PUBLISH", channel, self._event(channel, PLAIN, _BIG * is_big))

    def _have_recorded(self) -> None:
        """One plain event on every channel of whose history none is a part, and wait until it is."""
        wait_until(self.scene.is_settled)
        # A daemon whose connection was killed a moment ago does not know it yet: so what nobody follows goes first.
        wait_until(self._is_heard)
        for channel in self.unrecorded:
            self._publish_plain(channel, 1)
        for channel in self.unrecorded:
            wait_until(lambda channel=channel: self._is_recorded(channel))
        self.unrecorded.clear()

    def _is_heard(self) -> bool:
        """Whether what is published plainly is recorded, just now."""
        channel = f"long:heard-{self.scene.stories}"
        self.publisher.execute("DEL", self.keys.top(channel), self.keys.events(channel))
        self.publisher.execute("PUBLISH", channel, b"{}")
        until = time.monotonic() + HEARD_SECONDS
        while not self._is_recorded(channel):
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _is_recorded(self, channel: str) -> bool:
        # A place without events has a generation too.
        top = self.publisher.execute("GET", self.keys.top(channel))
        if top is None:
            return False
        _, offset, _, generation = top.split()
        return offset != b"0" and generation != b"0"

    def _follower(self, number: int) -> Follower:
        return self.followers[number % len(self.followers)]

    def _port(self, number: int) -> int:
        return self.scene.daemons[number % len(self.scene.daemons)].port
