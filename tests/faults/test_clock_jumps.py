"""Row 20: the daemon's wall clock goes a day forward, two days back, and a day forward again, under load.

There are clients of every kind, with tokens and without; the clock of Redis, and everybody else's, stays right.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from tests.access.visitor import SECRET, authorization, bearer, token
from tests.actors.audience import audience, catch_up, listening
from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower
from tests.actors.peers import Peer, SsePeer, WebSocketPeer, pump, wait_until
from tests.actors.raw_client import RawClient
from tests.actors.service import Service
from tests.actors.tampered import Tampered
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until
from tests.promise.oracle import STAMPED, Truth

HOUR, DAY = 3600.0, 86_400.0
BEAT_SECONDS, DRAIN_SECONDS = 0.3, 1.0
KEPT, PLAIN = ("kept:1", "kept:2"), "plain:1"
FLAGS = (
    *("--type", "kept.history_length=10000", "--type", "kept.history_seconds=600"),
    *("--rules-anonymous-subscribe", "*", "--rules-user-subscribe", "*"),
    *("--websocket-ping-seconds", str(BEAT_SECONDS), "--sse-keep-alive-seconds", str(BEAT_SECONDS)),
    *("--redis-ping-seconds", str(BEAT_SECONDS), "--daemon-drain-seconds", str(DRAIN_SECONDS)),
)
PATH = f"/api/stream?channel={PLAIN}"


def play(stage: Stage) -> None:
    redis = stage.redis()
    tampered = Tampered(stage.folder / "tamper")
    daemon = stage.daemon(redis.url, *FLAGS, environ={"BROKER_AUTH_SECRET": SECRET}, under=tampered.under)
    truths = {channel: Truth({STAMPED: 0}) for channel in (*KEPT, PLAIN)}
    others = audience(truths, daemon.port, resumable=KEPT)
    service = Service(redis, truths, rate=stage.pick(300, 100), seed=stage.dice.getrandbits(30))
    service.start()

    week = token("long", seconds=7 * DAY)
    staying = [
        RawClient.websocket(daemon.port, b"/ws", authorization(week)),
        RawClient.stream(daemon.port, PATH, authorization(week)),
    ]
    hour = token("short", seconds=HOUR)
    leaving = [
        RawClient.websocket(daemon.port, b"/ws", authorization(hour)),
        RawClient.stream(daemon.port, PATH, authorization(hour)),
    ]
    now, tomorrow = token("now"), token("tomorrow", nbf=time.time() + DAY / 2, seconds=2 * DAY)
    beats: list[Peer] = [WebSocketPeer(daemon.port), SsePeer(daemon.port, PLAIN)]
    checks = [(week, 200), (hour, 200), (now, 200), (tomorrow, 401)]
    wrong = [f"before: {each}" for each in judged(daemon, checks)]
    jumps, waits = 0, [longest_wait(beats)]
    with listening(others):
        for _ in range(stage.pick(5, 1)):
            tampered.jump(DAY)
            if leaving:
                seen = seconds_until(lambda: all(map(has_ended, leaving)))
                stage.at_most("a token's end seen after", seen, stage.pick(1.0, 5.0), "s")
                wrong += [f"{each}: dropped, and not told why" for each in leaving if not is_told(each)]
                for each in leaving:
                    each.sock.close()
                leaving.clear()
            waits.append(longest_wait(beats))
            checks = [(week, 200), (hour, 401), (now, 401), (tomorrow, 200)]
            wrong += [f"a day ahead: {each}" for each in judged(daemon, checks)]
            tampered.jump(-2 * DAY)
            waits.append(longest_wait(beats))
            # Made in what is the future now; to take them would be to let them outlive their revocation.
            wrong += [f"a day behind: {each}" for each in judged(daemon, [(week, 401), (now, 401), (tomorrow, 401)])]
            tampered.jump(DAY)
            waits.append(longest_wait(beats))
            wrong += [f"again: {each}" for each in judged(daemon, [(week, 200), (now, 200), (tomorrow, 401)])]
            jumps += 3
    service.end()
    stage.faults += catch_up(others) + wrong
    stage.exactly("jumps", jumps, stage.pick(15, 3))
    stage.exactly("tokens judged by another time", len(wrong), 0)
    most = BEAT_SECONDS + stage.pick(0.7, 2.0)  # small, it is played beside many others
    stage.at_most(f"heartbeats, every {BEAT_SECONDS:g} s, at most apart", max(waits), most, "s")
    dropped = sum(each.endings for each in others) + sum(map(has_ended, staying)) + sum(each.ended for each in beats)
    stage.exactly("others that were dropped", dropped, 0)
    stage.at_least("events published", service.published, 100)
    stage.exactly("clients with lost, doubled or misplaced events", sum(bool(e.faults(is_end=True)) for e in others), 0)
    stage.exactly("gaps told", sum(len(each.gaps()) for each in others), 0)
    stats = daemon.stats_as(token("ops", broker_admin=True))
    stage.exactly("outages of Redis", stats["redis"]["outages"], 0)
    drained = drain_in_another_day(daemon, tampered, others)
    stage.at_most("drain, a day later in its middle", drained, DRAIN_SECONDS + 2.0, "s")
    for each in (*staying, *beats):
        each.close() if isinstance(each, Peer) else each.sock.close()


def has_ended(client: RawClient) -> bool:
    """Read what is there; whether it was closed, or its end was said."""
    client.sock.setblocking(False)
    try:
        while data := client.sock.recv(65536):
            client._buffer += data
    except BlockingIOError:
        return is_told(client)
    return True


def is_told(client: RawClient) -> bool:
    """Whether it was told that its token is over: by code 4402, or by the event of that name."""
    return b"\x11\x32token expired" in client._buffer or b"event: token_expired" in client._buffer


def judged(daemon: DaemonProcess, checks: Sequence[tuple[str, int]]) -> list[str]:
    """Ask with each token. Returns those that were not answered as they should be."""
    found = []
    for text, status in checks:
        with httpx.stream("GET", daemon.url + PATH, headers=bearer(text), timeout=5) as answer:
            if answer.status_code != status:
                found.append(f"{text.partition('.')[0]}: {answer.status_code}, not {status}")
    return found


def longest_wait(beats: Sequence[Any], most: int = 3) -> float:
    """The longest that a WebSocket had to wait for its heartbeat, or a stream for its comment."""
    seen = [_count(each) for each in beats]
    at = [time.monotonic() for _ in beats]
    longest, left = 0.0, [most for _ in beats]

    def look() -> bool:
        nonlocal longest
        for index, each in enumerate(beats):
            count = _count(each)
            if count > seen[index]:
                longest = max(longest, time.monotonic() - at[index])
                at[index], seen[index], left[index] = time.monotonic(), count, left[index] - 1
        return max(left) <= 0

    pump(beats, look)
    return longest


def _count(peer: Peer) -> int:
    return peer.raw.count(b'"heartbeat"') + peer.raw.count(b": keep-alive")


def drain_in_another_day(daemon: DaemonProcess, tampered: Tampered, others: Sequence[Follower]) -> float:
    """Stop it, while a WebSocket is there that does not answer. Returns the seconds that it took."""
    for each in others:
        each.port = None
        each.cut()
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: '"event": "stopping"' in daemon.log())
    tampered.jump(DAY)
    assert daemon.process.wait(30) == 0
    return time.monotonic() - began


ROW = Row(
    20,
    "A wall clock that jumps moves no timer and drops nobody; tokens go by it",
    "the wall clock a day forward and back under load, with clients of every kind, with tokens and without",
    "timers unmoved, token checks follow, nobody dropped",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
