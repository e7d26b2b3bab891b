"""A node that freezes, dies or leaves, and a Redis that goes: what the others know, and what becomes of the seats.

The tests share two daemons and run in this order; each leaves them as the next needs them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.access.visitor import token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.nodes.crowd import BOUND_SECONDS, crowd, look, nodes_of

Pair = tuple[DaemonProcess, DaemonProcess]
ANN = token("ann", seconds=36000)  # made when tests are collected, long before they run


def is_let_in(daemon: DaemonProcess) -> bool:
    with crowd([daemon], 1, ANN) as found:
        return bool(found)


@contextmanager
def seated(daemon: DaemonProcess, count: int) -> Iterator[None]:
    """So many connections of ann's at one daemon, once those of before have gone everywhere."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        with crowd([daemon], count, ANN) as inside:
            if len(inside) == count:
                yield
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def names_known(daemon: DaemonProcess) -> set[str]:
    return {name for name, node in nodes_of(daemon).items() if node["answered"]}


def test_a_frozen_node_is_named_and_its_seats_go_with_its_lease(pair: Pair, shared_redis: RedisServer) -> None:
    one, other = pair
    with seated(other, 3), shared_redis.client() as client:
        # It says with each renewal what it is.
        wait_until(lambda: all(b'"serving"' in record for record in client.hvals("broker:nodes:records")))
        assert not is_let_in(one)
        other.process.send_signal(signal.SIGSTOP)
        try:
            asked_at = time.monotonic()
            nodes = nodes_of(one)
            assert time.monotonic() - asked_at < 2.0
            assert {name: (node["answered"], node["why"], node["state"]) for name, node in nodes.items()} == {
                "one": (True, None, "serving"),
                "other": (False, "no answer within 1 s", "serving"),
            }
            status, refusal = look(one, "stats", f"node={nodes['other']['id']}")
            if status == 503:  # else its lease has run out meanwhile
                assert refusal["detail"] == f"node {nodes['other']['id']} did not answer within 1 s"
            wait_until(lambda: set(nodes_of(one)) == {"one"})
            with crowd([one], 3, ANN) as found:
                assert len(found) == 3  # as if nobody else was there
        finally:
            other.process.send_signal(signal.SIGCONT)
        wait_until(lambda: names_known(one) == names_known(other) == {"one", "other"})
        # What it had it has told anew.
        wait_until(lambda: not is_let_in(one))


def test_without_redis_each_decides_and_answers_alone(pair: Pair, shared_redis: RedisServer) -> None:
    one, other = pair
    with seated(one, 2):
        wait_until(lambda: not _has_room_for_two(other))
        shared_redis.kill()
        wait_until(lambda: nodes_of(one)["other"]["why"] == "not asked, as Redis is away")
        stats = look(one, "stats")
        assert (stats["status"], stats["websocket"]["totalConnections"]) == ("degraded", 2)
        own, absent = stats["nodes"]
        assert own["answered"] is True
        assert own["why"].startswith("the other nodes are not asked, as Redis is away: ")
        assert (absent["id"].partition(":")[0], absent["answered"], absent["state"]) == ("other", False, None)
        status, refusal = look(one, "stats", f"node={absent['id']}")
        assert (status, f"there is no node {absent['id']}, as Redis is away" in refusal["detail"]) == (404, True)
        # It is decided here, and at once.
        wait_until(lambda: nodes_of(other)["one"]["why"] == "not asked, as Redis is away")
        asked_at = time.monotonic()
        with crowd([other], 4, ANN) as found:
            assert len(found) == 3
        assert time.monotonic() - asked_at < 1.0
        shared_redis.start()
        wait_until(lambda: names_known(one) == names_known(other) == {"one", "other"})
        # Redis had forgotten everything: the two are told anew, and so there is room for one.
        wait_until(lambda: not _has_room_for_two(other))
        assert _has_room_for_one(other)


def test_a_node_that_is_killed_takes_its_seats_along(pair: Pair, shared_redis: RedisServer) -> None:
    one, other = pair
    wait_until(lambda: _has_room_for_one(one))
    with seated(other, 3):
        killed_at = time.monotonic()
        other.process.kill()
        if not is_let_in(one):
            wait_until(lambda: is_let_in(one))
            assert time.monotonic() - killed_at < 1.0 + 1.0  # the lease, and some
    wait_until(lambda: set(nodes_of(one)) == {"one"})
    with shared_redis.client() as client:
        wait_until(lambda: client.zcard("broker:nodes") == 1)
        assert client.hlen("broker:nodes:records") == 1
        # Who is alone keeps nothing there for long.
        wait_until(lambda: client.keys("broker:users:*") == [])


def test_a_node_that_leaves_is_gone_at_once(pair: Pair, shared_redis: RedisServer) -> None:
    one, _ = pair
    with shared_redis.client() as client:
        assert client.zcard("broker:nodes") == 1
        assert one.stop() == 0
        assert client.exists("broker:nodes", "broker:nodes:records") == 0


def _has_room_for_two(daemon: DaemonProcess) -> bool:
    with crowd([daemon], 2, ANN) as found:
        return len(found) == 2


def _has_room_for_one(daemon: DaemonProcess) -> bool:
    time.sleep(0.15)  # the seats of who left are told within 0.1 s
    return is_let_in(daemon)
