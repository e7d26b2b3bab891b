"""A daemon of four workers: clients are spread over them, and what becomes of one worker is nothing to the others."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, follow, open_followers
from tests.actors.peers import BOUND_SECONDS, close_all, open_streams, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.returning import Knocking, ReturningStream, ReturningWebSocket, Service
from tests.conftest import errors_of
from tests.workers.conftest import COMMON
from tests.workers.crew import connections_of, is_there, workers_of

CHANNELS = ("kept:1", "kept:2")
# A connection that a worker has accepted goes with it: of each of the two who knock, one at a time.
CUT_OFF_MOST = 2


def test_clients_are_spread_and_each_hears_each_event(four_workers: DaemonProcess, shared_redis: RedisServer) -> None:
    assert sorted(workers_of(four_workers)) == [0, 1, 2, 3]
    websockets = open_websockets(four_workers.port, 60, "spread:1")
    streams = open_streams(four_workers.port, 60, "spread:1")
    try:
        workers = workers_of(four_workers)

        def counted() -> dict[int, int]:
            return {slot: connections_of(four_workers, pid) for slot, pid in workers.items()}

        # One that asked for something else may still be closing.
        wait_until(lambda: sum(counted().values()) == 120)
        connections = counted()
        assert all(connections.values())
        payloads = [b'{"n":%d}' % number for number in range(50)]
        shared_redis.publish("spread:1", *payloads)
        pump(
            [*websockets, *streams],
            lambda: (
                all(peer.parse()[2:] == payloads for peer in websockets)
                and all(peer.blocks[-50:] == [b"data: %b" % payload for payload in payloads] for peer in streams)
            ),
        )
        nodes = four_workers.stats()["nodes"]
        assert {int(node["id"].partition(":")[2].partition("-")[0]): node["clients"] for node in nodes} == connections
    finally:
        close_all()


def test_a_worker_that_is_killed_is_replaced_and_nobody_is_refused(
    four_workers: DaemonProcess, shared_redis: RedisServer
) -> None:
    four_workers.expected_errors.add("a worker has died; another takes its place")
    before = workers_of(four_workers)
    with _followed(four_workers, shared_redis) as (followers, service):
        lost = connections_of(four_workers, before[1])
        with Knocking(("127.0.0.1", four_workers.port)) as knocking:
            wait_until(lambda: knocking.answered >= 20)
            os.kill(before[1], signal.SIGKILL)
            follow(followers, lambda: workers_of(four_workers).get(1, before[1]) != before[1])
            answered, count = knocking.answered, service.count
            follow(followers, lambda: knocking.answered >= answered + 20 and service.count >= count + 20)
    cut_off = [line for line in knocking.wrong if line.startswith("ConnectionResetError") or line.endswith("b''")]
    assert knocking.wrong == cut_off
    assert len(knocking.wrong) <= CUT_OFF_MOST
    assert [follower.gaps() for follower in followers] == [[]] * len(followers)
    # The others have noticed nothing.
    assert Counter(follower.endings for follower in followers) == {0: len(followers) - lost, 1: lost}
    assert [follower.refused for follower in followers] == [0] * len(followers)
    after = workers_of(four_workers)
    assert sorted(after) == [0, 1, 2, 3]
    assert [slot for slot in after if after[slot] != before[slot]] == [1]


def test_a_worker_that_is_stuck_is_replaced_and_its_queue_is_served_meanwhile(
    four_workers: DaemonProcess, shared_redis: RedisServer
) -> None:
    four_workers.expected_errors |= {
        "a worker is stuck; it is killed",
        "a worker has died; another takes its place",
    }
    before = workers_of(four_workers)
    with _followed(four_workers, shared_redis) as (followers, _):
        os.kill(before[2], signal.SIGSTOP)
        with Knocking(("127.0.0.1", four_workers.port)) as knocking:
            follow(followers, lambda: "a worker does not answer; the others accept for it" in _events(four_workers))
            # Those that wait in the queue of the one that is stuck, too.
            follow(followers, lambda: knocking.answered > 200 or workers_of(four_workers).get(2) != before[2])
            follow(followers, lambda: workers_of(four_workers).get(2, before[2]) != before[2])
    assert knocking.wrong == []
    assert [follower.gaps() for follower in followers] == [[]] * len(followers)
    assert not is_there(before[2])


def test_a_worker_that_is_told_to_leave_says_goodbye_and_is_replaced(
    four_workers: DaemonProcess, shared_redis: RedisServer
) -> None:
    before = workers_of(four_workers)
    with _followed(four_workers, shared_redis) as (followers, _):
        asked = connections_of(four_workers, before[0])
        with Knocking(("127.0.0.1", four_workers.port)) as knocking:
            os.kill(before[0], signal.SIGTERM)
            follow(followers, lambda: workers_of(four_workers).get(0, before[0]) != before[0])
    assert knocking.wrong == []
    assert Counter(len(follower.told) for follower in followers) == {0: len(followers) - asked, 1: asked}


def test_two_daemons_of_several_workers_are_one_and_all_are_told_goodbye(
    four_workers: DaemonProcess, shared_redis: RedisServer, tmp_path: Path
) -> None:
    flags = ("--log-format", "json", "--workers", "2", "--daemon-node", "other", *COMMON)
    other = DaemonProcess(shared_redis.url, tmp_path / "other.log", flags)
    other.start()
    try:
        wait_until(lambda: len(four_workers.stats()["nodes"]) == 6)
        here, there = (open_websockets(daemon.port, 10, "both:1") for daemon in (four_workers, other))
        shared_redis.publish("both:1", b'{"n":1}')
        pump([*here, *there], lambda: all(peer.parse()[2:] == [b'{"n":1}'] for peer in [*here, *there]))
        wait_until(
            lambda: [daemon.stats()["websocket"]["totalConnections"] for daemon in (four_workers, other)] == [20, 20]
        )
        pids = [other.process.pid, *workers_of(other).values()]
        other.process.send_signal(signal.SIGTERM)
        pump(there, lambda: all(peer.parse() and peer.close_code for peer in there))
        for peer in there:
            peer.send_close(1012)
        assert other.stop() == 0
        assert [peer.close_code for peer in there] == [1012] * 10
        told = [message for peer in there for message in peer.events("disconnected")]
        assert len(told) == 10
        assert all(0 <= message["reconnectInMs"] <= 200 for message in told)
        assert not any(map(is_there, pids))
        assert [peer.ended for peer in here] == [False] * 10
        assert errors_of(other) == []
    finally:
        other.stop()
        close_all()


def test_fewer_workers_take_over_and_nobody_is_refused(
    four_workers: DaemonProcess, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """The last test of this file: the daemon is gone then."""
    flags = ("--log-format", "json", "--workers", "2", "--takeover", *COMMON)
    new = DaemonProcess(shared_redis.url, tmp_path / "new.log", flags, listen=f"127.0.0.1:{four_workers.port}")
    with _followed(four_workers, shared_redis) as (followers, _):
        with Knocking(("127.0.0.1", four_workers.port)) as knocking:
            starting = Thread(target=new.start, daemon=True)
            starting.start()
            try:
                follow(followers, lambda: four_workers.process.poll() is not None, 2 * BOUND_SECONDS)
            finally:
                starting.join()
    try:
        assert knocking.wrong == []
        assert [follower.gaps() for follower in followers] == [[]] * len(followers)
        assert [(follower.endings, follower.refused) for follower in followers] == [(1, 0)] * len(followers)
        assert sorted(workers_of(new)) == [0, 1]
    finally:
        assert new.stop() == 0
    assert errors_of(new) == []


@contextmanager
def _followed(daemon: DaemonProcess, server: RedisServer) -> Iterator[tuple[Sequence[Follower], Service]]:
    """40 clients that come back, while events are published; each must have every event in the end."""
    wait_until(lambda: sorted(workers_of(daemon)) == [0, 1, 2, 3])
    service = Service(server, CHANNELS, 50.0)
    kinds = (ReturningWebSocket, ReturningStream)
    followers = [kinds[index % 2](CHANNELS[index // 2 % 2 :], service.truths, daemon.port) for index in range(40)]

    def faults() -> list[str]:
        return [fault for follower in followers for fault in follower.faults(is_end=True)]

    try:
        open_followers(followers)
        yield followers, service
        follow(followers, lambda: all(follower.is_live for follower in followers))
        service.end()
        follow(followers, lambda: not faults(), why=lambda: faults()[:5])
    finally:
        service.end()
        close_all()


def _events(daemon: DaemonProcess) -> list[str]:
    return [json.loads(line)["event"] for line in daemon.log().splitlines()]
