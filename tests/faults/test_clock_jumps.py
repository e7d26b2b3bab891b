"""Row 20: the daemon's wall clock goes a day forward, two days back, and a day forward again, under load.

There are clients of every kind, with tokens and without; the clock of Redis, and everybody else's, stays right. What
the daemon's clock shows its heartbeats tell. The jumps are of whole days: the rest of the time between two heartbeats
is what passed.
"""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise

import httpx
from attrs import Factory, define

from tests.access.visitor import SECRET, authorization, bearer, token
from tests.actors.audience import audience, catch_up, listening
from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower
from tests.actors.peers import Peer, SsePeer, WebSocketPeer, pump, wait_until
from tests.actors.raw_client import RawClient, head
from tests.actors.service import Service
from tests.actors.tampered import Tampered
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.promise.oracle import STAMPED, Truth

HOUR, DAY = 3600.0, 86_400.0
BEAT_SECONDS, DRAIN_SECONDS, HEAD_SECONDS, IDLE_SECONDS = 0.3, 1.0, 1.0, 0.7
KEPT, PLAIN = ("kept:1", "kept:2"), "plain:1"
FLAGS = (
    *("--type", "kept.history_length=10000", "--type", "kept.history_seconds=600"),
    *("--rules-anonymous-subscribe", "*", "--rules-user-subscribe", "*"),
    *("--websocket-ping-seconds", str(BEAT_SECONDS), "--sse-keep-alive-seconds", str(BEAT_SECONDS)),
    *("--redis-ping-seconds", str(BEAT_SECONDS), "--daemon-drain-seconds", str(DRAIN_SECONDS)),
    *("--listen-head-seconds", str(HEAD_SECONDS), "--listen-idle-seconds", str(IDLE_SECONDS)),
)
_BEAT = re.compile(rb'"serverTime":"([^"]+)Z"|: keep-alive ([^\n]+)Z')
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
    timers = Timers(daemon.port, beats)
    timers.across(lambda: None)
    with listening(others):
        for _ in range(stage.pick(5, 1)):
            seen = timers.across(lambda: tampered.jump(DAY), lambda: all(map(has_ended, leaving)))
            if leaving:
                stage.at_most("a token's end seen after", seen, stage.pick(1.0, 5.0), "s")
                wrong += [f"{each}: dropped, and not told why" for each in leaving if not is_told(each)]
                for each in leaving:
                    each.sock.close()
                leaving.clear()
            checks = [(week, 200), (hour, 401), (now, 401), (tomorrow, 200)]
            wrong += [f"a day ahead: {each}" for each in judged(daemon, checks)]
            timers.across(lambda: tampered.jump(-2 * DAY))
            # Made in what is the future now; to take them would be to let them outlive their revocation.
            wrong += [f"a day behind: {each}" for each in judged(daemon, [(week, 401), (now, 401), (tomorrow, 401)])]
            timers.across(lambda: tampered.jump(DAY))
            wrong += [f"again: {each}" for each in judged(daemon, [(week, 200), (now, 200), (tomorrow, 401)])]
    service.end()
    stage.faults += catch_up(others) + wrong
    stage.exactly("tokens judged by another time", len(wrong), 0)
    timers.measure(stage, jumps=stage.pick(15, 3))
    dropped = sum(each.endings for each in others) + sum(map(has_ended, staying)) + sum(each.ended for each in beats)
    stage.exactly("others that were dropped", dropped, 0)
    stage.at_least("events published", service.published, 100)
    stage.exactly("clients with lost, doubled or misplaced events", sum(bool(e.faults(is_end=True)) for e in others), 0)
    stage.exactly("gaps told", sum(len(each.gaps()) for each in others), 0)
    stats = daemon.stats_as(token("ops", broker_admin=True))
    stage.exactly("outages of Redis", stats["redis"]["outages"], 0)
    drained = drain_in_another_day(daemon, tampered, others)
    # A WebSocket that does not answer has all of its time.
    stage.at_least("drain, a day later in its middle", drained, DRAIN_SECONDS, "s")
    stage.at_most("drain, a day later in its middle", drained, DRAIN_SECONDS + stage.pick(2.0, 8.0), "s")
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


@define(eq=False)
class Timers:
    """What the daemon does after a time, looked at across a jump of its wall clock.

    Args:
        beats: a WebSocket that has heartbeats, and a stream that has comments.
    """

    port: int
    beats: Sequence[Peer]
    waits: list[float] = Factory(list)
    heads: list[float] = Factory(list)
    rests: list[float] = Factory(list)

    def across(self, jump: Callable[[], object], until: Callable[[], bool] = lambda: True) -> float:
        """Say half a request head, rest behind an answer, have the clock jump; go on until both have been ended, there
        were three heartbeats of each kind, and `until` holds. Returns the seconds until that did; infinity if never.
        """
        began = time.monotonic()
        half = Peer(self.port, b"GET /health HTTP/1.1\r\nHost: local")
        resting = Peer(self.port, head(b"GET /health HTTP/1.1"))
        pump((resting,), lambda: resting.raw.startswith(b"HTTP/1.1 200 "))
        jump()
        jumped = time.monotonic()
        seen, at, left = [_count(each) for each in self.beats], [jumped for _ in self.beats], [3 for _ in self.beats]
        ended, held = [math.inf, math.inf], math.inf

        def look() -> bool:
            nonlocal held
            now = time.monotonic()
            for index, each in enumerate(self.beats):
                if (count := _count(each)) > seen[index]:
                    self.waits.append(now - at[index])
                    at[index], seen[index], left[index] = now, count, left[index] - 1
            ended[:] = [
                min(known, now - began) if peer.ended else known for known, peer in zip(ended, peers, strict=True)
            ]
            if held == math.inf and until():
                held = now - jumped
            return max(left) <= 0 and max(*ended, held) < math.inf

        peers = (half, resting)
        with suppress(AssertionError):  # what did not come is a figure
            pump((*self.beats, *peers), look, 10.0)
        if max(left) > 0:
            self.waits.append(math.inf)
        self.heads.append(ended[0] if half.raw.startswith(b"HTTP/1.1 408 ") else math.inf)
        self.rests.append(ended[1])
        for peer in peers:
            peer.close()
        return held

    def measure(self, stage: Stage, *, jumps: int) -> None:
        """Tell the stage how long everything took, and by heartbeats of how many jumps the clock showed."""
        stamps = [[_seconds(found) for found in _BEAT.findall(each.raw)] for each in self.beats]
        between = [after - before for each in stamps for before, after in pairwise(each)]
        passed = [(each + DAY / 2) % DAY - DAY / 2 for each in between]
        shown = sum(abs(each) > HOUR for each in between)
        stage.exactly("jumps in the heartbeats of both clients", shown, jumps * len(self.beats))
        room = stage.pick(0.7, 5.0)  # small, it is played beside many others
        for what, given, took, early in (
            (f"heartbeats, every {BEAT_SECONDS:g} s,", BEAT_SECONDS, passed, stage.pick(0.05, 0.15)),
            (f"half a head, of {HEAD_SECONDS:g} s, ended", HEAD_SECONDS, self.heads, 0.0),
            (f"a connection at rest, of {IDLE_SECONDS:g} s, ended", IDLE_SECONDS, self.rests, 0.0),
        ):
            stage.at_least(f"{what} at the earliest after", min(took, default=0.0), given - early, "s")
            stage.at_most(f"{what} at the latest after", max(took, default=math.inf), given + room, "s")
        stage.at_most("waited for a heartbeat", max(self.waits), BEAT_SECONDS + room, "s")


def _count(peer: Peer) -> int:
    return peer.raw.count(b'"heartbeat"') + peer.raw.count(b": keep-alive")


def _seconds(found: tuple[bytes, bytes]) -> float:
    """Of a heartbeat, by the daemon's clock."""
    return datetime.fromisoformat((found[0] or found[1]).decode()).timestamp()


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
