"""What slow clients cost the others: a thousand that read, without and with a hundred that read 1 KB a second.

All are on one channel with history whose policy is `catch_up`. The slow ones are slow before it is measured:
events come until each of them is behind. Rounds without and with them take turns, and medians are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median, quantiles

from attrs import define, field

from tests.bench.figure import Figure
from tests.bench.place import LONG, Place
from tests.bench.publishing import PAYLOAD_BYTES, Pace, Publishing, payload_of, stamped
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds, resident_bytes

CHANNEL = f"{LONG}:slow"
BYTES_PER_SECOND = 1024
RATE = 30
SECONDS = 3
ROUNDS = 4
FILL_BYTES = 4096
FILL_MOST = 4000
FILL_AT_ONCE = 10


@define(eq=False)
class _Sipping:
    """Each of `count` clients reads once a second, spread over it."""

    readers: Subscribers
    count: int
    begun: float = field(factory=time.monotonic)
    done: int = 0

    def __call__(self) -> None:
        due = int((time.monotonic() - self.begun) * self.count)
        for turn in range(self.done, due):
            index = turn % self.count
            self.readers.sip(range(index, index + 1), BYTES_PER_SECOND)
        self.done = due


@define(eq=False)
class _Measure:
    """What the daemon's CPU for a delivery, and the time that 99 in 100 deliveries take at most, were in each round."""

    costs: list[float] = field(factory=list)
    p99s: list[float] = field(factory=list)


@define(eq=False)
class _Bench:
    place: Place
    healthy: Subscribers
    count: int
    slow_count: int
    publishing: Publishing
    without: _Measure = field(factory=_Measure)
    with_slow: _Measure = field(factory=_Measure)
    memory: list[float] = field(factory=list)
    growth: list[float] = field(factory=list)
    number: int = 0
    ended: int = 0
    wrong: int = 0

    def round_without(self) -> None:
        self._measure(self.without, lambda: None)

    def round_with(self) -> None:
        slow = Subscribers(self.place.daemon.port, "websocket", lambda _: CHANNEL, is_narrow=True)
        before = resident_bytes(self.place.daemon_pid)
        slow.open(self.slow_count)
        sipping = _Sipping(slow, self.slow_count)
        self._fill(sipping)
        late = resident_bytes(self.place.daemon_pid)
        self._measure(self.with_slow, sipping)
        after = resident_bytes(self.place.daemon_pid)
        self.memory.append((after - before) / self.slow_count)
        self.growth.append((after - late) / self.slow_count)
        stats = self.place.daemon.stats()
        self.ended += self.count + self.slow_count - stats["websocket"]["totalConnections"]
        self.ended += self.slow_count - stats["delivery"]["slow"]["now"]
        self.wrong += slow.wrong
        slow.close()
        time.sleep(0.5)  # the disconnects are not the next round's cost

    def _measure(self, into: _Measure, meanwhile: Callable[[], None]) -> None:
        latencies = self.healthy.latencies = []
        before = cpu_seconds(self.place.daemon_pid)
        received = self.healthy.received
        self._publish(RATE * SECONDS, Pace(rate=RATE), meanwhile, PAYLOAD_BYTES)
        spent = cpu_seconds(self.place.daemon_pid) - before
        into.costs.append(spent / max(1, self.healthy.received - received))
        into.p99s.append(quantiles(latencies, n=100)[98])

    def _fill(self, sipping: _Sipping) -> None:
        """Publish until every slow client is behind."""
        for _ in range(0, FILL_MOST, FILL_AT_ONCE):
            if self.place.daemon.stats()["delivery"]["slow"]["now"] == self.slow_count:
                return
            self._publish(FILL_AT_ONCE, Pace(window=FILL_AT_ONCE), sipping, FILL_BYTES)
        raise RuntimeError("the slow clients are not slow enough")

    def _publish(self, count: int, pace: Pace, meanwhile: Callable[[], None], size: int) -> None:
        commands = [stamped(CHANNEL, payload_of(self.number + index, size)) for index in range(count)]
        self.publishing.run(commands, pace, self.healthy, self.count, first=self.number, meanwhile=meanwhile)
        self.number += count


def slow_clients(place: Place, count: int, slow_count: int) -> list[Figure]:
    """CPU for a delivery to the healthy ones, how late it is, and what becomes of the slow ones."""
    healthy = Subscribers(place.daemon.port, "websocket", lambda _: CHANNEL)
    healthy.open(count)
    publishing = Publishing(place.redis.port)
    bench = _Bench(place, healthy, count, slow_count, publishing)
    for _ in range(ROUNDS):
        bench.round_without()
        bench.round_with()
    wrong = bench.wrong + healthy.wrong + abs(bench.number * count - healthy.received)
    publishing.close()
    healthy.close()
    time.sleep(1.0)
    cost, cost_with = median(bench.without.costs), median(bench.with_slow.costs)
    p99, p99_with = median(bench.without.p99s), median(bench.with_slow.p99s)
    who = f"with {slow_count} slow clients / without"
    return [
        Figure(f"{count} clients, {RATE} messages/s: CPU a delivery without slow ones", cost * 1e6, "us", wrong=wrong),
        Figure(f"CPU a delivery to the others, {who}", cost_with / cost, most=1.2),
        Figure("99 in 100 deliveries take at most, without slow ones", p99 * 1e3, "ms"),
        Figure(f"the same to the others, {who}", p99_with / p99, most=1.2),
        Figure("memory of a slow client", bench.memory[0] / 1024, "KB"),
        Figure(f"the same, grown in {SECONDS} s", bench.growth[0] / 1024, "KB"),
        Figure("slow clients that were ended, or are not slow", bench.ended, most=0),
    ]
