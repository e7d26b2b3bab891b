"""Row 2: Redis loses history in three ways; whoever misses something is told so, and nobody else is.

Three scenes on one daemon: events are trimmed while clients are away; Redis comes back with an older state, and gives
offsets out again; Redis comes back with nothing. In each some clients are there, some are away, and some have missed
nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence

from attrs import define, field

from broker.history.keys import Keys
from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.redis_server import RedisServer
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.verdicts import judge
from tests.faults.waits import settle
from tests.promise.oracle import STAMPED, Record, Told, Truth
from tests.promise.publishing import StampingPublisher

BUSY = tuple(f"kept:{number}" for number in range(8))
QUIET = "kept:quiet"
NOT_KEPT = "none:1"
FLAGS = (
    *("--type", "kept.history_length=100000", "--type", "kept.history_seconds=600"),
    *("--type", "none.history_length=0"),
)
KINDS: tuple[type[Follower], ...] = (WebSocketFollower, V1Follower, SseFollower)
RETURNING: tuple[type[Follower], ...] = (V1Follower, SseFollower)
SETTLED_SECONDS = 20.0
TOLD_SECONDS = 4.0


def play(stage: Stage) -> None:
    server = stage.redis()
    daemon = stage.daemon(server.url, *FLAGS)
    story = Story(stage, server, daemon)
    story.begin()
    rounds = stage.pick(4, 1)
    for number in range(rounds):
        story.trim()
        story.come_back_older(f"undone {number}")
        story.come_back_empty()
    # Trimming is told by no one but the gaps; each of the two others kills Redis.
    stage.exactly("times that Redis was away, as the daemon counts", daemon.stats()["redis"]["outages"], 2 * rounds)
    stage.at_least("gaps due", story.due, stage.pick(2500, 250))
    stage.exactly("gaps told", story.told, story.due)
    stage.exactly("gaps told to who missed nothing", story.unasked, 0)
    stage.exactly("gaps into another history than Redis has", story.astray, 0)
    judge(stage, story.followers)
    stage.exactly("clients disconnected", sum(each.endings for each in story.followers), 0)
    # At small size others have the processors too.
    stage.at_most("told after Redis answers", story.slowest, stage.pick(TOLD_SECONDS, 3 * TOLD_SECONDS), "s")


@define(eq=False)
class Story:
    """The scenes, in their order, and what they count.

    Args:
        due: gaps that had to be told.
        told: those of them that were told, each once.
        unasked: gaps of clients that missed nothing, and second ones.
        astray: gaps that do not lead to where Redis has the history now.
        slowest: the longest time until everybody who was there was told.
    """

    stage: Stage
    server: RedisServer
    daemon: DaemonProcess
    truths: Truths = field(init=False)
    present: list[Follower] = field(init=False)
    away: list[Follower] = field(init=False, factory=list)
    followers: list[Follower] = field(init=False, factory=list)
    due: int = field(init=False, default=0)
    told: int = field(init=False, default=0)
    unasked: int = field(init=False, default=0)
    astray: int = field(init=False, default=0)
    slowest: float = field(init=False, default=0.0)
    _seen: dict[int, int] = field(init=False, factory=dict)  # by record: gaps that were counted

    def begin(self) -> None:
        """Many are there and stay; two of each kind that can come back are for each way of being away."""
        self.truths = {channel: Truth({STAMPED: 0}) for channel in (*BUSY, QUIET, NOT_KEPT)}
        port = self.daemon.port
        names = [(channel,) for channel in (*BUSY, QUIET)] * self.stage.pick(4, 1)
        self.present = [kind(each, self.truths, port) for each in names for kind in KINDS]
        self.present += [kind((*BUSY, QUIET), self.truths, port) for kind in RETURNING for _ in range(2)]
        self.present += [kind((NOT_KEPT,), self.truths, port) for kind in KINDS]
        self.followers = list(self.present)
        open_followers(self.followers)
        self.publish((*BUSY, QUIET, NOT_KEPT), 20)
        self.settle()

    def trim(self) -> None:
        """Redis keeps ten of the forty events that some missed; others missed five."""
        long_away = self.arrive()
        self.leave(long_away)
        self.publish(BUSY, 35)
        self.settle()
        briefly_away = self.arrive()
        self.leave(briefly_away)
        self.publish(BUSY, 5)
        with self.server.client() as client:
            for channel in BUSY:
                client.xtrim(Keys("").events(channel), 10, approximate=False)
        self.settle()
        self.come_back(long_away, briefly_away)
        self.count(long_away, "trimmed", BUSY)
        self.count(self.followers, None)

    def come_back_older(self, undone: str) -> None:
        """As it was saved; what was published since is gone, and its offsets are given out again.

        Args:
            undone: the voice of what is published since; nobody has it twice.
        """
        away_before = self.arrive()
        self.leave(away_before)
        self.publish(BUSY, 10)
        with self.server.client() as client:
            client.save()
        self.publish(BUSY, self.stage.dice.randint(5, 50), by=undone)
        self.settle()
        away_after = self.arrive()
        self.leave(away_after)
        # Some of it may still be on its way when Redis dies.
        self.publish(BUSY, self.stage.dice.randint(1, 50), by=undone)
        self.server.kill()
        self.server.start()
        for channel in BUSY:
            # Who has been away since before is told nothing: it missed nothing that Redis knows of.
            del self.truths[channel].published[undone]
        if self.stage.dice.random() < 0.5:
            self.publish(BUSY, 5)  # before the daemon is back
        self.wait_for("rolled_back", self.present, BUSY)
        self.publish((*BUSY, QUIET, NOT_KEPT), 100)
        self.settle()
        self.come_back(away_before, away_after)
        concerned = [each for each in self.with_history() if each not in away_before]
        self.count(concerned, "rolled_back", BUSY)
        self.count(self.present, "redis_away", (NOT_KEPT,))
        self.count(self.followers, None)

    def come_back_empty(self) -> None:
        """Without a file. Who comes only now has missed nothing."""
        away = self.arrive()
        self.leave(away)
        self.publish(BUSY, self.stage.dice.randint(1, 50))
        self.server.kill()
        (self.server.folder / "dump.rdb").unlink()
        self.server.start()
        if self.stage.dice.random() < 0.5:
            self.publish(BUSY, 5)
        self.wait_for("epoch_changed", self.present, (*BUSY, QUIET))
        # Who comes before somebody records again may miss what is published plainly, and is told so.
        follow(self.followers, lambda: self.daemon.own_stats()["history"]["isRecorder"])
        concerned = self.with_history()
        self.arrive()
        self.publish((*BUSY, QUIET, NOT_KEPT), 10)
        self.settle()
        self.come_back(away)
        self.count(concerned, "epoch_changed", (*BUSY, QUIET))
        self.count(self.present, "redis_away", (NOT_KEPT,))
        self.count(self.followers, None)

    # -- how it is done

    def publish(self, channels: Iterable[str], count: int, *, by: str = STAMPED) -> None:
        publisher = StampingPublisher.at(self.server, seed=self.stage.dice.getrandbits(30))
        for channel in channels:
            published = self.truths[channel].published
            begin = published.get(by, 0) + 1
            published[by] = begin + count - 1
            events = [json.dumps({"c": channel, "by": by, "n": begin + index}).encode() for index in range(count)]
            publisher.publish(channel, events)
        publisher.close()

    def arrive(self) -> Sequence[Follower]:
        """Two that can come back, on all channels with history."""
        found = [kind((*BUSY, QUIET), self.truths, self.daemon.port) for kind in RETURNING]
        for follower in found:
            follower.connect()
        follow([*self.followers, *found], lambda: all(each.is_live for each in found))
        self.followers += found
        return found

    def with_history(self) -> Sequence[Follower]:
        """Everybody so far, there or away, but those of the channel without history."""
        return [each for each in self.followers if each.channels != (NOT_KEPT,)]

    def leave(self, followers: Sequence[Follower]) -> None:
        for follower in followers:
            follower.port = None
            follower.cut()
        self.away += followers

    def come_back(self, *followers: Sequence[Follower]) -> None:
        for follower in (each for some in followers for each in some):
            self.away.remove(follower)
            follower.port = self.daemon.port
        self.settle()

    def settle(self) -> None:
        settle([each for each in self.followers if each not in self.away], SETTLED_SECONDS)

    def wait_for(self, reason: str, followers: Sequence[Follower], channels: Sequence[str]) -> None:
        """Until all are told, and at once: not with the next event."""
        waiting = [record for _, record in records_of(followers, channels)]

        def is_over() -> bool:
            while waiting:
                if not any(gap.reason == reason for gap in self._new_gaps(waiting[-1])):
                    return False
                waiting.pop()
            return True

        try:
            self.slowest = max(self.slowest, follow(followers, is_over))
        except AssertionError as error:
            self.stage.faults.append(f"{reason} was not told to everybody: {error}")
            self.slowest = math.inf

    def count(self, followers: Sequence[Follower], reason: str | None, channels: Sequence[str] = ()) -> None:
        """Since the last time all these have had one gap of this reason on these channels; or nobody had any."""
        for channel, record in records_of(followers, channels or tuple(self.truths)):
            gaps = self._new_gaps(record)
            self._seen[id(record)] = len(record.gaps())
            if reason is None:
                self.unasked += len(gaps)
                self.stage.faults += [f"{channel}: told for nothing: {gap}" for gap in gaps]
                continue
            self.due += 1
            right = [gap for gap in gaps if gap.reason == reason]
            self.told += bool(right)
            others = [gap for gap in gaps if gap not in right[:1] and not is_of_new_history(gap)]
            self.unasked += len(others)
            if not right or others:
                self.stage.faults.append(f"{channel}: {reason} was due, told was {gaps}")
            self.astray += sum(not self._leads_here(channel, gap) for gap in right)

    def _new_gaps(self, record: Record) -> list[Told]:
        return record.gaps()[self._seen.get(id(record), 0) :]

    def _leads_here(self, channel: str, gap: Told) -> bool:
        """Whether it ends in the history that Redis has now."""
        with self.server.client() as client:
            top = client.get(Keys("").top(channel))
        if channel == NOT_KEPT:
            return gap.end is None and top is None
        assert isinstance(top, bytes)
        return gap.end is not None and gap.end.partition(":")[0] == top.split()[0].decode()


def is_of_new_history(gap: Told) -> bool:
    """Whether it says that nobody recorded when a history began anew; that follows `epoch_changed` now and then."""
    return gap.reason == "recorder_changed" and gap.begin == gap.end and (gap.end or "").endswith(":0:0")


def records_of(followers: Sequence[Follower], channels: Sequence[str]) -> Sequence[tuple[str, Record]]:
    return [
        (channel, record)
        for follower in followers
        for channel, record in follower.records.items()
        if channel in channels
    ]


ROW = Row(
    2,
    "Lost history is told to every client that misses something, and to nobody else",
    "events trimmed past the position of clients that are away; Redis killed and started with an older state,"
    " which gives offsets out again; killed and started empty",
    "every client concerned gets its gap event and the new epoch; nobody else gets one",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
