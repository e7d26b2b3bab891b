"""Row 6: a tenth of the clients stops reading, on channels of every policy for slow clients; the others notice nothing.

First only those who read are there, then the slow ones as well: the same events at the same rate, so the two can be
compared. In the end the slow ones read again, and have what their policy promises. At that rate bytes grow too old
before too many wait, so a burst to a few clients more tries the bound in bytes.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Self

from attrs import define, field

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, follow, open_followers
from tests.actors.raw_client import resident_bytes
from tests.actors.redis_server import RedisServer
from tests.actors.returning import raise_open_files
from tests.bench.publishing import Publishing, stamped
from tests.bench.subscribers import Subscribers
from tests.faults.own_seconds import OwnSeconds
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.verdicts import judge
from tests.faults.waits import seconds_until
from tests.promise.oracle import STAMPED, Entry, Event, Record, Truth
from tests.promise.publishing import StampingPublisher

KEPT, OLDEST, LATEST, CUT = "kept:1", "feed:1", "gauge:1", "plain:1"
CHANNELS = (KEPT, OLDEST, LATEST, CUT)
BURST = "plain:2"
# Who reads nothing in the 60 s is to be served by its policy, so patience has to be longer, and the kernel has to be
# patient as well. Nobody here answers pings: what becomes of such clients is row 15.
FLAGS = (
    *("--type", "kept.history_length=100000", "--type", "kept.history_seconds=600"),
    *("--type", "kept.slow_clients=catch_up", "--type", "feed.slow_clients=drop_oldest"),
    *("--type", "gauge.slow_clients=latest", "--type", "plain.slow_clients=disconnect"),
    *("--clients-patience-seconds", "120", "--listen-dead-seconds", "0"),
    *("--websocket-silence-seconds", "600"),
)
PAYLOAD_BYTES = 1024
# More than the kernel takes for a client that does not read: behind it something waits in the daemon for each of them.
FILL_TICKS = 128
# Little fits on the way to who does not read.
NARROW = {"receive_buffer": 4096, "segment_bytes": 1400}
# Twice what may wait for one client; it is over before any of it is too old.
BURST_PAYLOADS, BURST_PAYLOAD = 256, b'{"pad":"%b"}' % (b"x" * 8192)
BURST_SECONDS = 8.0
CAUGHT_UP_SECONDS = 15.0
MOST_SECONDS = 60.0


def play(stage: Stage) -> None:
    raise_open_files()
    redis = stage.redis()
    # In its few seconds at small size as many bytes wait only for a lower bound; and a bound in bytes ends with another
    # name than one in seconds.
    flags = stage.pick((), ("--clients-outbox-max-bytes", "131072", "--channels-message-max-bytes", "65536"))
    # By its own command line and not forked: what a fork shares counts as its own memory once it is written to.
    daemon = stage.daemon(redis.url, *FLAGS, *flags, under=("env",))
    base = resident_bytes(daemon.process.pid)
    clients, slow_count = stage.pick((2000, 200), (200, 20))
    load = _Load(redis, daemon.port, clients - slow_count, stage.pick(25, 100))
    with _Endings(daemon):  # so that it is asked as often as later
        before = load.run(stage.pick(30, 1))
    slow = load.open_slow(slow_count)
    connected = _connected(daemon)
    cut = [each for each in slow if CUT in each.channels]
    others = [each for each in slow if CUT not in each.channels]
    with _Endings(daemon) as endings:  # its clock begins before anything waits
        load.fill(FILL_TICKS)
        after = load.run(stage.pick(60, 2))
        seconds_until(lambda: endings.count >= len(cut))  # who is not ended is counted below

    for each in slow:
        each.is_stalled = False
    try:
        follow(cut, lambda: all(each.peer is None for each in cut))
        seconds = follow(others, lambda: not _missing(others), MOST_SECONDS, why=lambda: _missing(others)[:3])
    except AssertionError as error:
        seconds = math.inf
        stage.faults.append(f"the slow ones: {error}")
    grown = _peak_bytes(daemon.process.pid) - base
    delivery = daemon.stats()["delivery"]
    ending = stage.pick("outbox_stale", "outbox_full")
    stage.faults += [fault for each in cut for fault in each.faults()]
    if delivery["endings"].keys() != {ending}:
        stage.faults.append(f"endings were {delivery['endings']}")

    stage.exactly("clients, as the daemon counts them", connected, clients)
    stage.at_least("events published", load.number * len(CHANNELS), stage.pick(8000, 1600))
    stage.exactly("what the readers had lost, doubled or out of order", load.wrong, 0)
    stage.at_most("readers' p99 without slow ones", before * 1000, stage.pick(500, 2000), "ms")
    if stage.is_full:
        stage.at_most("readers' p99 with slow ones, by that without", after / before, 2.0)
    else:  # over a second, beside other tests, one says nothing about the other
        stage.at_most("readers' p99 with slow ones", after * 1000, 2000, "ms")
    # At small size what a daemon needs once for all is shared by few.
    per_client = grown / clients / 1024
    stage.at_most("memory for each client, what waits for it included", per_client, stage.pick(64, 128), "KiB")
    stage.exactly(f"slow ones ended by name ({ending})", delivery["endings"].get(ending, 0), len(cut))
    stage.at_most(
        "the last of them, since the first event that they did not read, after", endings.last_seconds, 15, "s"
    )
    stage.at_least("overflows told", delivery["gaps"].get("overflow", 0), slow_count // len(CHANNELS))
    stage.at_most("the other slow ones caught up within", seconds, CAUGHT_UP_SECONDS, "s")
    judge(stage, others)
    burst(stage, redis, daemon)
    if load.left_out:
        stage.note = f"{load.left_out} s more were played, as others had this machine's processors"
    load.close()


def burst(stage: Stage, redis: RedisServer, daemon: DaemonProcess) -> None:
    """More at once than may wait for one client, to some who read nothing."""
    kinds = (V1Follower, SseFollower) * 5
    asleep = [kind((BURST,), {BURST: Truth()}, daemon.port, **NARROW) for kind in kinds]
    open_followers(asleep)
    before = _ended_as_full(daemon)
    redis.publish(BURST, *[BURST_PAYLOAD] * BURST_PAYLOADS)
    seconds_until(lambda: _ended_as_full(daemon) - before >= len(asleep), BURST_SECONDS)  # who is not is counted here
    stage.exactly("ended by a burst, by name (outbox_full)", _ended_as_full(daemon) - before, len(asleep))
    for each in asleep:
        each.cut()


def _ended_as_full(daemon: DaemonProcess) -> int:
    return int(daemon.stats()["delivery"]["endings"].get("outbox_full", 0))


def _connected(daemon: DaemonProcess) -> int:
    stats = daemon.stats()
    return sum(stats[kind]["totalConnections"] for kind in ("websocket", "sse"))


@define(eq=False)
class _Load:
    """Who reads, who publishes, and who is looked at; all in one loop.

    Args:
        readers: half of them WebSockets, half streams; each has one of the channels.
        ticks_a_second: at each tick an event is published on every channel.
        number: of the last tick.
        left_out: seconds in which others had the processors. They are judged as all others, but for how late it was.
    """

    redis: RedisServer
    port: int
    readers: int
    ticks_a_second: int
    number: int = field(init=False, default=0)
    left_out: int = field(init=False, default=0)
    truths: Truths = field(init=False, factory=lambda: {name: Truth({STAMPED: 0}) for name in CHANNELS})
    _halves: Sequence[Subscribers] = field(init=False)
    _publishing: Publishing = field(init=False)

    def __attrs_post_init__(self) -> None:
        StampingPublisher.at(self.redis).close()  # loads the script
        self._publishing = Publishing(self.redis.port)
        self._halves = [Subscribers(self.port, kind, _channel_of, first=1) for kind in ("websocket", "sse")]
        for half in self._halves:
            half.open(self.readers // 2, 60.0)

    def run(self, seconds: int) -> float:
        """Publish until so many seconds count, until all who read have everything.

        Returns the p99 of the deliveries of these seconds, in seconds. Where the processors are others' for half as
        long again, all seconds count.
        """
        for half in self._halves:
            half.latencies = {}
        own = OwnSeconds(seconds)
        due_at = time.monotonic()
        while not own.is_enough and own.counted + own.left_out < seconds * 1.5:
            first = self.number + 1
            for _ in range(self.ticks_a_second):
                self._publish()
                due_at += 1 / self.ticks_a_second
                while time.monotonic() < due_at:
                    self._poll()
            own.over(range(first, self.number + 1))
        self._await_all()
        self.left_out += own.left_out
        found = [(half.latencies or {})[number] for half in self._halves for number in own.numbers]
        return quantiles([each for times in found for each in times], n=100)[98]

    def fill(self, ticks: int) -> None:
        """So many at once, and until all who read have them."""
        for half in self._halves:
            half.latencies = None
        for _ in range(ticks):
            self._publish()
            self._poll()
        self._await_all()

    def open_slow(self, count: int) -> list[Follower]:
        """Those who are greeted and then read nothing. Little fits on the way to them."""
        slow: list[Follower] = []
        for index in range(count):
            channel, kind = CHANNELS[index % len(CHANNELS)], (V1Follower, SseFollower)[index // len(CHANNELS) % 2]
            each = kind((channel,), self.truths, self.port, **NARROW)
            if channel == LATEST:
                each.records[channel] = _Newest(self.truths[channel])
            slow.append(each)
        open_followers(slow)
        for each in slow:
            each.port, each.is_stalled = None, True
        return slow

    @property
    def wrong(self) -> int:
        """What the readers did not get as it was published."""
        received = sum(half.received for half in self._halves)
        return sum(half.wrong for half in self._halves) + abs(self.number * self.readers - received)

    def close(self) -> None:
        self._publishing.close()
        for half in self._halves:
            half.close()

    def _publish(self) -> None:
        self.number += 1
        commands = []
        for channel in CHANNELS:
            self.truths[channel].published[STAMPED] = self.number
            event = f'{{"c":"{channel}","by":"{STAMPED}","n":{self.number},"pad":"'.encode()
            commands.append(stamped(channel, event.ljust(PAYLOAD_BYTES - 2, b"x") + b'"}'))
        now = time.monotonic()
        for half in self._halves:
            half.published(self.number, 1, now)
        self._publishing.send(b"".join(commands), self._halves[0])

    def _await_all(self) -> None:
        deadline = time.monotonic() + 15
        while min(half.least for half in self._halves) < self.number and time.monotonic() < deadline:
            self._poll()

    def _poll(self) -> None:
        for half in self._halves:
            half.poll(0.001)


@define(eq=False)
class _Endings:
    """Asks the daemon again and again how many it has ended, and notes when the last one was. Use it in a `with`."""

    _daemon: DaemonProcess
    count: int = field(init=False, default=0)
    last_seconds: float = field(init=False, default=0.0)
    _over: threading.Event = field(init=False, factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._over.wait(0.25):
            count = sum(self._daemon.stats()["delivery"]["endings"].values())
            if count != self.count:
                self.count, self.last_seconds = count, time.monotonic() - began


@define(eq=False)
class _Newest(Record):
    """Of a gauge only the newest counts, and what is left out is not told. What comes must be newer each time."""

    _last: int = 0

    def note(self, entry: Entry) -> None:
        self.entries.append(entry)
        if isinstance(entry, Event):
            number = entry.heard[1]
            if number <= self._last:
                self.faults.append(f"{number} after {self._last}")
            self._last = number

    def faults_at_end(self) -> list[str]:
        newest = self.truth.published[STAMPED]
        return self.faults if self._last == newest else [*self.faults, f"{self._last} and not {newest} is the newest"]


def _channel_of(index: int) -> str:
    return CHANNELS[index % len(CHANNELS)]


def _missing(followers: Sequence[Follower]) -> list[str]:
    return [fault for each in followers for fault in each.faults(is_end=True)]


def _peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


ROW = Row(
    6,
    "Slow readers hurt nobody",
    "2000 connections of which 200 never read, 100 messages/s of 1 KiB, 60 s; over four channels, one for each "
    "policy, so that a connection gets 25/s; who does not read is given 120 s of patience, and 600 s without a pong, "
    "where 60 s are the default of both; then 2 MiB at once to ten more that do not read. How late events were counts "
    "in the seconds in which a virtual machine's host leaves it nine tenths of its processors",
    "memory <= base + 64 KiB for each; the readers' p99 <= 2 x p99 without the slow ones; each slow one ended within "
    "15 s with its named reason, or caught up, by its policy",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
