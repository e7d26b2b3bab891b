"""What slow clients cost the others: a thousand that read, without and with a hundred that read 1 KB a second.

All are on a channel with history whose policy is `catch_up`: those without on a daemon of their own. The slow
ones are slow before it is measured: events come until each is behind by more than is kept in memory, and then
each reads another part of what waits for it, so that what is measured is what goes on for hours: now this one,
now that one is given more of the history. Rounds without and with them take turns, and medians are compared.
In the end they read all there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles

from attrs import define, field

from tests.bench.figure import Figure
from tests.bench.place import LONG, Place, another_daemon
from tests.bench.publishing import PAYLOAD_BYTES, Pace, Publishing, payload_of, stamped
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds, resident_bytes

RATE = 30
SECONDS = 2
ROUNDS = 7
BYTES_PER_SECOND = 1024
FILL_BYTES = 4096
FILL_AT_ONCE = 10
FILL_MOST = 4000
BEHIND_BYTES = 1 << 20
SHARES_BYTES = 1 << 19
SIP_BYTES = 4096
RECOVERY_SECONDS = 30.0


@define(eq=False)
class _Side:
    """A daemon, its healthy clients on one channel, and what each round came to.

    Args:
        costs: CPU of the daemon for a delivery to a healthy client, in seconds.
        p99s: what 99 in 100 of these deliveries take at most, from before the event is published, in seconds. Few
            events are in a round: the one that took longest decides.
        clients: until 99 in 100 clients have an event, in seconds: the median over the events of a round.
    """

    place: Place
    channel: str
    count: int
    publishing: Publishing
    healthy: Subscribers = field(init=False)
    costs: list[float] = field(factory=list)
    p99s: list[float] = field(factory=list)
    clients: list[float] = field(factory=list)
    number: int = 0

    def __attrs_post_init__(self) -> None:
        self.healthy = Subscribers(self.place.daemon.port, "websocket", lambda _: self.channel)
        self.healthy.open(self.count)

    def measure(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        latencies: dict[int, list[float]] = {}
        self.healthy.latencies = latencies
        cpu, received = cpu_seconds(self.place.daemon_pid), self.healthy.received
        self.publish(RATE * SECONDS, Pace(rate=RATE), PAYLOAD_BYTES, meanwhile)
        spent = cpu_seconds(self.place.daemon_pid) - cpu
        self.costs.append(spent / max(1, self.healthy.received - received))
        self.p99s.append(_p99([each for times in latencies.values() for each in times]))
        self.clients.append(median(map(_p99, latencies.values())))
        self.healthy.latencies = None

    def publish(self, count: int, pace: Pace, size: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        commands = [stamped(self.channel, payload_of(self.number + index, size)) for index in range(count)]
        self.publishing.run(commands, pace, self.healthy, self.count, first=self.number, meanwhile=meanwhile)
        self.number += count

    def close(self) -> int:
        """Returns how many events the healthy ones had wrong."""
        wrong = self.healthy.wrong + abs(self.number * self.count - self.healthy.received)
        self.healthy.close()
        return wrong


@define(eq=False)
class _Slow:
    """The slow clients on one side."""

    side: _Side
    count: int
    clients: Subscribers = field(init=False)
    first: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.first = self.side.number
        port, channel = self.side.place.daemon.port, self.side.channel
        self.clients = Subscribers(port, "websocket", lambda _: channel, first=self.first, is_narrow=True)
        self.clients.open(self.count)
        self._make_late()

    def sipping(self) -> Callable[[], None]:
        """What is to be called again and again: each reads once a second, spread over it."""
        begun, done = time.monotonic(), 0

        def sip() -> None:
            nonlocal done
            due = int((time.monotonic() - begun) * self.count)
            for turn in range(done, due):
                index = turn % self.count
                self.clients.sip(range(index, index + 1), BYTES_PER_SECOND)
            done = due

        return sip

    def recover(self) -> float:
        """They read as fast as they can. Returns the seconds until all have everything."""
        begun = time.monotonic()
        while self.clients.least < self.side.number - 1 and time.monotonic() - begun < RECOVERY_SECONDS:
            self.clients.poll(0.005)
        return time.monotonic() - begun

    def close(self) -> int:
        """Returns how many events they had wrong."""
        wrong = self.clients.wrong + abs((self.side.number - self.first) * self.count - self.clients.received)
        self.clients.close()
        return wrong

    def not_as_wanted(self) -> int:
        """How many were ended, or are not slow."""
        stats = self.side.place.daemon.stats()
        ended = self.side.count + self.count - stats["websocket"]["totalConnections"]
        return int(ended + self.count - stats["delivery"]["slow"]["now"])

    def _make_late(self) -> None:
        for _ in range(0, FILL_MOST, FILL_AT_ONCE):
            self.side.publish(FILL_AT_ONCE, Pace(window=FILL_AT_ONCE), FILL_BYTES)
            if self.not_as_wanted() == 0:
                break
        else:
            raise RuntimeError("the slow clients are not slow enough")
        self.side.publish(BEHIND_BYTES // FILL_BYTES, Pace(window=FILL_AT_ONCE), FILL_BYTES)
        for share in range(0, SHARES_BYTES, SIP_BYTES):
            self.clients.sip(range(share * self.count // SHARES_BYTES, self.count), SIP_BYTES)


def slow_clients(place: Place, count: int, slow_count: int) -> list[Figure]:
    """CPU for a delivery to the healthy ones, how late it is, and what becomes of the slow ones."""
    publishing = Publishing(place.redis.port)
    with another_daemon(place) as lonely:
        without = _Side(lonely, f"{LONG}:without", count, publishing)
        with_slow = _Side(place, f"{LONG}:with", count, publishing)
        before = resident_bytes(place.daemon_pid)
        slow = _Slow(with_slow, slow_count)
        late, reads = resident_bytes(place.daemon_pid), _reads(place)
        for _ in range(ROUNDS):
            without.measure()
            with_slow.measure(slow.sipping())
        after, refills = resident_bytes(place.daemon_pid), _reads(place) - reads
        not_as_wanted = slow.not_as_wanted()
        recovery = slow.recover()
        wrong = slow.close() + with_slow.close() + without.close()
    publishing.close()
    time.sleep(1.0)  # the disconnects are not the next part's cost
    cost, cost_with = median(without.costs), median(with_slow.costs)
    p99, p99_with = median(without.p99s), median(with_slow.p99s)
    clients, clients_with = median(without.clients), median(with_slow.clients)
    who = f"with {slow_count} slow clients / without"
    return [
        Figure(f"{count} clients, {RATE} messages/s: CPU a delivery without slow ones", cost * 1e6, "us", wrong=wrong),
        Figure(f"CPU a delivery to the others, {who}", cost_with / cost, most=1.2),
        Figure("99 in 100 deliveries take at most, without slow ones", p99 * 1e3, "ms"),
        Figure(f"the same to the others, {who}", p99_with / p99, most=1.2),
        Figure("until 99 in 100 clients have an event, without slow ones", clients * 1e3, "ms"),
        Figure(f"the same for the others, {who}", clients_with / clients, most=1.2),
        Figure("memory of a slow client", (after - before) / slow_count / 1024, "KB"),
        Figure(f"the same, grown in {ROUNDS * SECONDS} s of its reading", (after - late) / slow_count / 1024, "KB"),
        Figure("reads of history for the slow ones meanwhile", refills),
        Figure("until the slow ones have everything, once they read", recovery, "s"),
        Figure("slow clients that were ended, or are not slow", not_as_wanted, most=0),
    ]


def _p99(times: Sequence[float]) -> float:
    return quantiles(times, n=100)[98]


def _reads(place: Place) -> int:
    return int(place.daemon.stats()["history"]["reads"])
