"""Two daemons, and the one that records plain PUBLISHes dies: who listens to the other is told, once, and goes on.

What was published with a stamp needs no recorder: nobody who has only that is told anything. Nor is anybody where the
recorder is stopped in order: tests/restarts/test_recording_goes_on.py.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from threading import Event, Thread

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
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.promise.oracle import PLAIN, STAMPED, Told, Truth
from tests.promise.publishing import StampingPublisher

RECORDED = "alerts:recorded"
ONLY_STAMPED = "alerts:stamped"
# 200 plain PUBLISHes a second.
PAUSE_SECONDS = 0.005


@define(eq=False)
class Service:
    """Publishes plainly on one channel and with a stamp on the other, until it is told to stop."""

    server: RedisServer
    truths: Truths
    over: Event = field(factory=Event)
    failures: list[Exception] = field(factory=list)

    def start(self) -> Thread:
        thread = Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            publisher = StampingPublisher.at(self.server)
            while not self.over.wait(PAUSE_SECONDS):
                publisher.execute("PUBLISH", RECORDED, self._event(RECORDED, PLAIN))
                publisher.publish(ONLY_STAMPED, [self._event(ONLY_STAMPED, STAMPED)])
            publisher.close()
        except (redis.RedisError, AssertionError) as error:
            self.failures.append(error)

    def _event(self, channel: str, by: str) -> bytes:
        published = self.truths[channel].published
        published[by] += 1
        return json.dumps({"c": channel, "by": by, "n": published[by]}).encode()


def is_recorder(daemon: DaemonProcess) -> bool:
    return bool(daemon.own_stats()["history"]["isRecorder"])


def test_the_recording_daemon_dies(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    within_seconds = 4.0
    recording, surviving = start_daemon(redis_server.url), start_daemon(redis_server.url)
    wait_until(lambda: is_recorder(recording))
    assert not is_recorder(surviving)
    truths = {RECORDED: Truth({PLAIN: 0}), ONLY_STAMPED: Truth({STAMPED: 0})}
    both = (RECORDED, ONLY_STAMPED)
    followers: list[Follower] = [
        WebSocketFollower(both, truths, surviving.port),
        V1Follower(both, truths, surviving.port),
        SseFollower((RECORDED,), truths, surviving.port),
        SseFollower((ONLY_STAMPED,), truths, surviving.port),
        SseFollower(both, truths, surviving.port),
    ]
    concerned = [follower for follower in followers if RECORDED in follower.channels]
    open_followers(followers)
    service = Service(redis_server, truths)
    service.start()
    follow(followers, lambda: truths[RECORDED].published[PLAIN] >= 100)
    goes = Thread(target=recording.stop, args=(signal.SIGKILL,), daemon=True)
    goes.start()
    told_after = follow(followers, lambda: all(each.gaps() for each in concerned))
    assert told_after < within_seconds
    assert is_recorder(surviving)
    # And they go on.
    count = truths[RECORDED].published[PLAIN] + 100
    follow(followers, lambda: truths[RECORDED].published[PLAIN] >= count)
    service.over.set()
    goes.join()

    def faults() -> list[str]:
        return [fault for follower in followers for fault in follower.faults(is_end=True)]

    follow(followers, lambda: not faults(), why=faults)
    assert service.failures == []
    for follower in concerned:
        (gap,) = follower.records[RECORDED].gaps()
        assert gap == Told("recorder_changed", gap.begin, gap.begin)
    assert [each.records[ONLY_STAMPED].gaps() for each in followers if ONLY_STAMPED in each.channels] == [[]] * 4
    # Nothing was missed but what nobody recorded: at 200 a second that is a few seconds' worth, at most.
    assert all(len(each.records[RECORDED].entries) > count - within_seconds * 200 for each in concerned)


def test_a_recorder_that_stands_still_comes_back_to_a_lease_that_is_gone(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemons = start_daemon(redis_server.url), start_daemon(redis_server.url)
    recording, other = daemons
    wait_until(lambda: is_recorder(recording))
    truths = {RECORDED: Truth({PLAIN: 0}), ONLY_STAMPED: Truth({STAMPED: 0})}
    both = (RECORDED, ONLY_STAMPED)
    followers: list[Follower] = [
        kind(both, truths, daemon.port) for kind in (WebSocketFollower, V1Follower, SseFollower) for daemon in daemons
    ]
    open_followers(followers)
    service = Service(redis_server, truths)
    service.start()
    follow(followers, lambda: truths[RECORDED].published[PLAIN] >= 100)
    recording.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        follow(followers, lambda: is_recorder(other))
        assert time.monotonic() - began < 4
    finally:
        recording.process.send_signal(signal.SIGCONT)
    follow(followers, lambda: all(follower.gaps() for follower in followers))
    service.over.set()

    def faults() -> list[str]:
        return [fault for follower in followers for fault in follower.faults(is_end=True)]

    follow(followers, lambda: not faults(), why=faults)
    assert service.failures == []
    # One of them records, and what the other had read by then is not recorded twice.
    assert [is_recorder(daemon) for daemon in daemons] == [False, True]
    reasons = [[gap.reason for gap in follower.records[RECORDED].gaps()] for follower in followers]
    assert reasons == [["recorder_changed"]] * len(followers)
    assert [follower.records[ONLY_STAMPED].gaps() for follower in followers] == [[]] * len(followers)
