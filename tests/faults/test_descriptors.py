"""Row 12: 500 clients come to a daemon that may have 200 descriptors open, and Redis dies meanwhile.

It is limited once from its start, and once later. Those who were there before the crowd have every event, also those
behind Redis' restart; the others knock again and again.
"""

from __future__ import annotations

import json
import re
import resource
import time
import urllib.request
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from attrs import define, field

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, follow, open_followers
from tests.actors.peers import Peer, pump
from tests.actors.raw_client import upgrade
from tests.actors.redis_server import RedisServer
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until
from tests.promise.oracle import STAMPED, Truth
from tests.promise.publishing import StampingPublisher

CHANNEL = "kept:1"
FLAGS = ("--type", "kept.history_length=1000", "--type", "kept.history_seconds=600")
DESCRIPTORS = 200
EVENTS = 50
SERVED, REFUSED = b"HTTP/1.1 101 ", b"HTTP/1.1 503 "
COMPLAINT = "as many connections as allowed; answering 503"
EMFILE = "Too many open files"
# What is said of Redis' death and return, at every level: a few lines each time.
OF_REDIS = ("Redis", "PUBLISH", "the recorder cannot begin", "which other nodes")
LINES_OF_AN_OUTAGE = 20


def play(stage: Stage) -> None:
    redis = stage.redis("--save", "", "--appendonly", "yes")
    clients = stage.pick(500, 300)
    under = ("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh")
    limited = _House(redis, stage.daemon(redis.url, *FLAGS, under=under))
    limited.crowd(clients, stage.pick(8.0, 0.3))
    limited.daemon.stop()
    late = _House(redis, stage.daemon(redis.url, *FLAGS))
    resource.prlimit(late.daemon.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    late.crowd(clients, stage.pick(8.0, 0.3))
    houses = limited, late
    stage.exactly("clients that were neither served nor answered 503", sum(each.unheard for each in houses), 0)
    stage.at_least("clients served", min(each.served for each in houses), 1)
    stage.at_least("answers of 503", min(each.refused for each in houses), clients)
    # The daemon may count more: who looks whether all is well is refused as well.
    others = sum(max(0, each.refused - each.refused_by_cap) for each in houses)
    stage.exactly("answers of 503 that the daemon's own cap did not give", others, 0)
    stage.exactly("times that the daemon was out of descriptors", sum(each.exhausted for each in houses), 0)
    stage.exactly("times that Redis was away", sum(each.outages for each in houses), len(houses))
    back = max(each.back_seconds for each in houses)
    stage.at_most("delivering again after Redis' restart, within", back, stage.pick(2.0, 10.0), "s")
    stage.exactly("events lost, doubled or out of order", sum(each.wrong for each in houses), 0)
    stage.exactly("gaps", sum(each.gaps for each in houses), 0)
    stage.exactly("connections broken of those beside", sum(each.broken for each in houses), 0)
    stage.at_least("log lines about the crowd", min(each.complaints for each in houses), 1)
    stage.at_most("most log lines in a second, beside those about Redis", max(e.lines_a_second for e in houses), 1)
    of_redis = max(each.lines_of_redis for each in houses)
    stage.at_most("log lines about Redis' death and return", of_redis, LINES_OF_AN_OUTAGE)
    stage.exactly("answers of 503 that lack a reason or a time to come back", sum(each.mute for each in houses), 0)
    normal = max(each.normal_seconds for each in houses)
    # On a busy machine the daemon waits for its turn as well.
    stage.at_most("normal after they left, within", normal, stage.pick(1.0, 5.0), "s")


@define(eq=False)
class _House:
    """A daemon, with a WebSocket and a stream that are there before the crowd; and what came of it.

    Args:
        unheard: who of the crowd got another answer than 101 or 503, or none.
        mute: answers of 503 that lack a reason, or `Retry-After`.
        refused_by_cap: as the daemon counts them.
        exhausted: log lines about a descriptor that could not be had, by the door or by anything else.
        complaints: log lines about the crowd.
        lines_a_second: from the first knock until they have left, of every level, those about Redis left out, in the
            second that has most of them.
    """

    redis: RedisServer
    daemon: DaemonProcess
    truths: Truths = field(init=False, factory=lambda: {CHANNEL: Truth({STAMPED: 0})})
    beside: Sequence[Follower] = field(init=False)
    served: int = field(init=False, default=0)
    refused: int = field(init=False, default=0)
    unheard: int = field(init=False, default=0)
    mute: int = field(init=False, default=0)
    refused_by_cap: int = field(init=False, default=0)
    exhausted: int = field(init=False, default=0)
    outages: int = field(init=False, default=0)
    wrong: int = field(init=False, default=0)
    gaps: int = field(init=False, default=0)
    broken: int = field(init=False, default=0)
    complaints: int = field(init=False, default=0)
    lines_a_second: int = field(init=False, default=0)
    lines_of_redis: int = field(init=False, default=0)
    back_seconds: float = field(init=False, default=0.0)
    normal_seconds: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self.beside = [kind((CHANNEL,), self.truths, self.daemon.port) for kind in (V1Follower, SseFollower)]
        open_followers(self.beside)

    def crowd(self, clients: int, away_seconds: float) -> None:
        """They come, knock for as long as Redis is away, and leave."""
        self._publish()
        said_before = len(self.daemon.log())
        inside = self._knock(clients)
        self.redis.kill()
        killed_at = time.monotonic()
        while True:
            inside += self._knock(clients - len(inside))
            if time.monotonic() > killed_at + away_seconds:
                break
        self.redis.start()
        self.back_seconds = self._publish()
        for peer in inside:
            peer.close()
        self.normal_seconds = seconds_until(self._is_normal)
        said = self.daemon.log()[said_before:]
        self._publish()
        stats = self.daemon.stats()
        self.outages, self.refused_by_cap = stats["redis"]["outages"], stats["connections"]["refusedBusy"]
        self.wrong = len(self._faults())
        self.gaps = sum(len(each.gaps()) for each in self.beside)
        self.broken = sum(each.endings for each in self.beside)
        entries = [json.loads(line) for line in said.splitlines()]
        others = [entry for entry in entries if not any(word in entry["event"] for word in OF_REDIS)]
        self.exhausted = said.count(EMFILE)
        self.complaints = sum(entry["event"] == COMPLAINT for entry in others)
        self.lines_a_second = _most_in_a_second(others)
        self.lines_of_redis = len(entries) - len(others)
        for each in self.beside:
            each.cut()

    def _knock(self, count: int) -> list[Peer]:
        """So many come at once. Returns who was served; who was refused has left, as clients do."""
        peers = [Peer(self.daemon.port, upgrade()) for _ in range(count)]

        def all_have_been_answered() -> bool:
            for peer in peers:
                if peer.ended:
                    peer.close()
            return all(peer.ended or peer.raw.startswith(SERVED) for peer in peers)

        pump(peers, all_have_been_answered)
        inside = [peer for peer in peers if peer.raw.startswith(SERVED)]
        refused = [bytes(peer.raw) for peer in peers if peer.raw.startswith(REFUSED)]
        self.served += len(inside)
        self.refused += len(refused)
        self.mute += sum(not _says_why(answer) for answer in refused)
        self.unheard += count - len(inside) - len(refused)
        return inside

    def _publish(self) -> float:
        """Some events. Returns how long it took until all that are beside had them."""
        publisher = StampingPublisher.at(self.redis)
        published = self.truths[CHANNEL].published
        first = published[STAMPED] + 1
        published[STAMPED] += EVENTS
        events = [{"c": CHANNEL, "by": STAMPED, "n": number} for number in range(first, first + EVENTS)]
        publisher.publish(CHANNEL, [json.dumps(event).encode() for event in events])
        publisher.close()
        return follow(self.beside, lambda: not self._faults(), why=self._faults)

    def _faults(self) -> list[str]:
        return [fault for each in self.beside for fault in each.faults(is_end=True)]

    def _is_normal(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.daemon.url}/health", timeout=5) as answer:
                is_served = answer.status == 200
        except OSError:
            return False
        return is_served and self.daemon.stats()["websocket"]["totalConnections"] == 1


def _says_why(answer: bytes) -> bool:
    """Whether a refusal has its three fields, and says when to come back."""
    lines, _, body = answer.partition(b"\r\n\r\n")
    later = re.search(rb"\r\nRetry-After: (\d+)", lines)
    try:
        said = json.loads(body)
    except ValueError:
        return False
    return later is not None and int(later[1]) > 0 and list(said) == ["error", "detail", "hint"] and all(said.values())


def _most_in_a_second(entries: Sequence[dict[str, Any]]) -> int:
    """How many lines are in the second that has most of them; the log's clock is not the daemon's."""
    told_at = [datetime.fromisoformat(entry["timestamp"]).timestamp() for entry in entries]
    return max((sum(begin <= at < begin + 0.99 for at in told_at) for begin in told_at), default=0)


ROW = Row(
    12,
    "Without descriptors the daemon refuses who is too many, and serves who is there",
    "a limit of 200 descriptors, set before the start or later; 500 clients that come back; Redis killed and restarted "
    "meanwhile",
    "its own cap answers 503 first, so that no descriptor is lacking; the Redis link lives; at most one log line a "
    "second; normal within 1 s after they leave",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
