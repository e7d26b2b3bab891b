"""Clients that read too slowly, on channels whose types say how they are served: nobody is cut off for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import Peer, open_streams, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer

StartDaemon = Callable[..., DaemonProcess]
PAD = b"x" * 4000
EVENTS = 2000  # 8 MB: more than the kernel takes for a client that does not read


def publish(redis_server: RedisServer, channel: str, healthy: Peer, begin: int = 0, count: int = EVENTS) -> None:
    for start in range(begin, begin + count, 100):
        batch = [b'{"n":%d,"pad":"%b"}' % (number, PAD) for number in range(start, start + 100)]
        redis_server.publish(channel, *batch)
        pump([healthy], lambda end=batch[-1]: healthy.raw.endswith(end))


def numbers(peer: Peer) -> list[int]:
    return [int(found) for found in re.findall(rb'\{"n":(\d+),', bytes(peer.raw))]


def last(peer: Peer) -> int | None:
    """The number of the last event; cheap, to be asked again and again."""
    found = re.findall(rb'\{"n":(\d+),', bytes(peer.raw[-6000:]))
    return int(found[-1]) if found else None


def slow(daemon: DaemonProcess, channel: str) -> tuple[list[Peer], Peer]:
    """A WebSocket and a stream that do not read, and a client that does."""
    stalled: list[Peer] = [
        *open_websockets(daemon.port, 1, channel, receive_buffer=4096),
        *open_streams(daemon.port, 1, channel, receive_buffer=4096),
    ]
    (healthy,) = open_websockets(daemon.port, 1, channel)
    return stalled, healthy


def test_who_is_served_from_history_gets_everything_once(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, *options("history_length=100000"))  # the policy is auto
    stalled, healthy = slow(daemon, "note:1")
    publish(redis_server, "note:1", healthy)
    stats = daemon.stats()["delivery"]
    assert (stats["slow"]["now"], stats["slow"]["fellBehind"]) == (2, {"catch_up": 2})
    pump(stalled, lambda: all(last(peer) == EVENTS - 1 for peer in stalled), 30)
    publish(redis_server, "note:1", healthy, EVENTS, 100)
    pump(stalled, lambda: all(last(peer) == EVENTS + 99 for peer in stalled))
    for peer in (*stalled, healthy):
        assert numbers(peer) == list(range(EVENTS + 100))
        assert b'"type":"gap"' not in peer.raw
    stats = daemon.stats()["delivery"]
    assert (stats["slow"]["now"], stats["endings"], stats["gaps"]) == (0, {}, {})


def test_what_history_has_no_more_is_told(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, *options("history_length=50"))
    stalled, healthy = slow(daemon, "note:1")
    publish(redis_server, "note:1", healthy)
    pump(stalled, lambda: all(last(peer) == EVENTS - 1 for peer in stalled), 30)
    for peer in stalled:
        gaps = [json.loads(found) for found in re.findall(rb'\{"type":"gap"[^}]*\}', bytes(peer.raw))]
        assert {gap["reason"] for gap in gaps} == {"trimmed"}
        missing = sum(int(gap["to"].split(":")[1]) - int(gap["from"].split(":")[1]) for gap in gaps)
        assert len(numbers(peer)) == EVENTS - missing
        assert numbers(peer) == sorted(set(numbers(peer)))
    assert daemon.stats()["delivery"]["endings"] == {}


def test_of_a_gauge_only_the_newest_waits(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--type", "note.slow_clients=latest")
    stalled, healthy = slow(daemon, "note:1")
    publish(redis_server, "note:1", healthy)
    pump(stalled, lambda: all(last(peer) == EVENTS - 1 for peer in stalled), 30)
    stats = daemon.stats()["delivery"]
    assert (stats["slow"]["now"], stats["endings"], stats["gaps"]) == (0, {}, {})
    # What the kernel took when it came, and the newest.
    assert stats["slow"]["skipped"] == sum(EVENTS - len(numbers(peer)) for peer in stalled)
    assert all(numbers(peer) == sorted(set(numbers(peer))) for peer in stalled)
    assert stats["slow"]["skipped"] > EVENTS / 2


def test_the_oldest_are_dropped_and_how_many_is_told(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--type", "note.slow_clients=drop_oldest")
    stalled, healthy = slow(daemon, "note:1")
    publish(redis_server, "note:1", healthy)
    pump(stalled, lambda: all(last(peer) == EVENTS - 1 for peer in stalled), 30)
    for peer in stalled:
        (gap,) = (json.loads(found) for found in re.findall(rb'\{"type":"gap"[^}]*\}', bytes(peer.raw)))
        assert (gap["reason"], gap["channel"]) == ("overflow", "note:1")
        assert len(numbers(peer)) == EVENTS - gap["count"]
    stats = daemon.stats()["delivery"]
    assert (stats["slow"]["now"], stats["endings"], stats["gaps"]) == (0, {}, {"overflow": 2})


def test_who_takes_nothing_at_all_is_ended_after_a_while(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, *options("history_length=100"), "--clients-patience-seconds", "1")
    _, healthy = slow(daemon, "note:1")
    publish(redis_server, "note:1", healthy)
    wait_until(lambda: daemon.stats()["delivery"]["endings"] == {"outbox_stale": 2}, 10)
    pump([healthy], lambda: True)
    assert not healthy.ended


def options(*texts: str) -> list[str]:
    """Flags for the type `note`, which keeps history."""
    return [flag for text in ("history_seconds=60", *texts) for flag in ("--type", f"note.{text}")]
