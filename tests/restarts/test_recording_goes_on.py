"""The daemon that records plain PUBLISHes is stopped or taken over: every event is kept and delivered, no gap told."""

from __future__ import annotations

import json
import time
from threading import Event, Thread

import redis
from attrs import define, field

from broker.history.keys import Keys
from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.promise.oracle import PLAIN, Truth
from tests.restarts.conftest import Row

KEYS = Keys("")
CHANNELS = tuple(f"kept:{number}" for number in range(4))
FLAGS = ("--type", "kept.history_length=100000", "--type", "kept.history_seconds=600")
# 500 plain PUBLISHes a second over all channels.
PAUSE_SECONDS = len(CHANNELS) / 500


@define(eq=False)
class PlainService:
    """Publishes plainly on all channels until it is told to stop."""

    server: RedisServer
    truths: Truths = field(factory=lambda: {name: Truth({PLAIN: 0}) for name in CHANNELS})
    failures: list[Exception] = field(factory=list)
    _over: Event = field(factory=Event)
    _thread: Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        return self.truths[CHANNELS[-1]].published[PLAIN]

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        return self.count

    def _run(self) -> None:
        try:
            with self.server.client() as client:
                due = time.monotonic()
                while not self._over.is_set():
                    for name in CHANNELS:
                        published = self.truths[name].published
                        published[PLAIN] += 1
                        client.publish(name, json.dumps({"c": name, "by": PLAIN, "n": published[PLAIN]}))
                    due += PAUSE_SECONDS
                    time.sleep(max(0.0, due - time.monotonic()))
        except redis.RedisError as error:
            self.failures.append(error)


def holder(server: RedisServer) -> bytes:
    with server.client() as client:
        found = client.get(KEYS.lease)
    assert found is None or isinstance(found, bytes)
    return found or b""


def kept(server: RedisServer) -> list[list[tuple[bytes, int, str]]]:
    """Of each channel, how each event came, its number, and its offset."""
    found = []
    with server.client() as client:
        for name in CHANNELS:
            entries = client.xrange(KEYS.events(name))
            found.append(
                [
                    (came, json.loads(event)["n"], id.decode().partition("-")[0])
                    for id, fields in entries
                    for came, event in fields.items()
                ]
            )
    return found


def all_of(count: int) -> list[list[tuple[bytes, int, str]]]:
    return [[(b"r", number, str(number)) for number in range(1, count + 1)]] * len(CHANNELS)


def at(daemon: DaemonProcess, truths: Truths) -> list[Follower]:
    kinds = (WebSocketFollower, V1Follower, SseFollower)
    return [kind(CHANNELS, truths, daemon.port) for kind in kinds]


def run_to_the_end(service: PlainService, followers: list[Follower], server: RedisServer) -> None:
    """A while later it ends; everything is kept, in order and once, and everybody has it and was told no gap."""
    until = service.count + 50
    follow(followers, lambda: service.count >= until)
    count = service.end()

    def faults() -> list[str]:
        return [fault for follower in followers for fault in follower.faults(is_end=True)]

    follow(followers, lambda: not faults(), why=lambda: faults()[:5])
    assert service.failures == []
    assert [follower.gaps() for follower in followers] == [[]] * len(followers)
    assert kept(server) == all_of(count)


def recording(server: RedisServer) -> bytes:
    """The generation, with somebody recording."""
    wait_until(lambda: not holder(server).endswith(b":"))
    return holder(server).partition(b":")[2]


def test_the_recording_daemon_is_stopped(redis_server: RedisServer, row: Row) -> None:
    first = row.first(redis_server.url, *FLAGS)
    second = row.first(redis_server.url, *FLAGS)
    generation = recording(redis_server)
    who = holder(redis_server)
    service = PlainService(redis_server)
    followers = at(second, service.truths)
    try:
        open_followers(followers)
        follow(followers, lambda: service.count >= 50)
        stopping = Thread(target=first.stop, daemon=True)
        stopping.start()
        follow(followers, lambda: not stopping.is_alive())
        assert (holder(redis_server) != who, recording(redis_server)) == (True, generation)
        run_to_the_end(service, followers, redis_server)
    finally:
        service.end()


def test_the_recording_daemon_is_taken_over(redis_server: RedisServer, row: Row) -> None:
    old = row.first(redis_server.url, *FLAGS, "--daemon-drain-seconds", "1", "--daemon-reconnect-seconds", "0.2")
    new = row.after(old)
    generation = recording(redis_server)
    who = holder(redis_server)
    service = PlainService(redis_server)
    # A client without positions misses what comes while it is away.
    followers = [each for each in at(old, service.truths) if type(each) is not WebSocketFollower]
    try:
        open_followers(followers)
        follow(followers, lambda: service.count >= 50)
        starting = Thread(target=new.start, daemon=True)
        starting.start()
        follow(followers, lambda: old.process.poll() is not None)
        starting.join()
        assert (holder(redis_server) != who, recording(redis_server)) == (True, generation)
        run_to_the_end(service, followers, redis_server)
    finally:
        service.end()


def test_all_workers_of_the_recording_daemon_are_stopped(redis_server: RedisServer, row: Row) -> None:
    first = row.first(redis_server.url, *FLAGS, "--workers", "2")
    second = row.first(redis_server.url, *FLAGS)
    generation = recording(redis_server)
    service = PlainService(redis_server)
    followers = at(second, service.truths)
    try:
        open_followers(followers)
        follow(followers, lambda: service.count >= 50)
        stopping = Thread(target=first.stop, daemon=True)
        stopping.start()
        follow(followers, lambda: not stopping.is_alive())
        assert recording(redis_server) == generation
        run_to_the_end(service, followers, redis_server)
    finally:
        service.end()
