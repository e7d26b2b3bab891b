"""What floods cost the others: clients that read, while thousands send nothing, trickle, or never read.

Those who never read are on the channel of those who do. All of them come back as soon as they are shown out. The
flood is a process of its own; it and this one share what the daemon leaves of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import quantiles

from attrs import frozen

from tests.actors.flood import SILENT, TRICKLING, UNREAD, flood
from tests.actors.raw_client import descriptors_of
from tests.bench.figure import Figure
from tests.bench.place import Place, another_daemon
from tests.bench.publishing import Pace, Publishing, payload_of, plain
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds, resident_bytes

CHANNEL = "bench:flood"
RATE = 20
PAYLOAD_BYTES = 1000
SECONDS = 30
QUIET_SECONDS = 3
P99_MOST = 0.250
LEAVE_SECONDS = 15.0


@frozen
class Flooded:
    """What came of it.

    Args:
        p99: of the deliveries to those who read, in seconds; `worst` of them is the longest.
        wrong: events that were missing, doubled or out of order.
        shown_out: how often each kind of the flood was.
        cpu: of the daemon while it lasted, in seconds for each.
        left: descriptors of the daemon that are more than before, once all have left; less than 0 where others did too.
        peak_bytes: memory of the daemon at the end of it.
    """

    p99: float
    worst: float
    wrong: int
    shown_out: Mapping[str, int]
    cpu: float
    left: int
    peak_bytes: int


def flooded(daemon_port: int, daemon_pid: int, redis_port: int, *, each: int, good: int, seconds: float) -> Flooded:
    """Publish to `good` clients for so long, while there are `each` of every kind of the flood."""
    publishing = Publishing(redis_port)
    subscribers = Subscribers(daemon_port, "websocket", lambda _: CHANNEL)
    subscribers.open(good)
    before = descriptors_of(daemon_pid)
    subscribers.latencies = {}
    commands = [plain(CHANNEL, payload_of(number, PAYLOAD_BYTES)) for number in range(round(RATE * seconds))]
    with flood(daemon_port, CHANNEL, silent=each, trickling=each, unread=each) as running:
        begun, cpu = time.monotonic(), cpu_seconds(daemon_pid)
        publishing.run(commands, Pace(rate=RATE), subscribers, good)
        used = (cpu_seconds(daemon_pid) - cpu) / (time.monotonic() - begun)
        peak = resident_bytes(daemon_pid)
    deadline = time.monotonic() + LEAVE_SECONDS
    while (left := descriptors_of(daemon_pid) - before) > 0 and time.monotonic() < deadline:
        subscribers.poll(0.05)
    latencies = [latency for found in subscribers.latencies.values() for latency in found]
    wrong = subscribers.wrong + abs(len(commands) * good - subscribers.received)
    publishing.close()
    subscribers.close()
    return Flooded(quantiles(latencies, n=100)[98], max(latencies), wrong, running.shown_out, used, left, peak)


def floods(place: Place, each: int, good: int) -> list[Figure]:
    """How late the deliveries are without a flood and with one, and what is left of it."""
    with another_daemon(place) as fresh:
        pid, redis_port = fresh.daemon_pid, place.redis.port
        quiet = flooded(fresh.daemon.port, pid, redis_port, each=0, good=good, seconds=QUIET_SECONDS)
        found = flooded(fresh.daemon.port, pid, redis_port, each=each, good=good, seconds=SECONDS)
        failed = fresh.daemon.stats()["connections"]["failed"]
    who = f"beside {each} silent, {each} trickling, {each} that never read"
    shown_out = ", ".join(f"{kind} {found.shown_out.get(kind, 0)}" for kind in (SILENT, TRICKLING, UNREAD))
    print(f"{'shown out, who came back: ' + shown_out}")
    return [
        Figure(f"{good} clients alone: 99 in 100 deliveries take at most", quiet.p99 * 1e3, "ms", wrong=quiet.wrong),
        Figure(who, found.p99 * 1e3, "ms", most=P99_MOST * 1e3, wrong=found.wrong),
        Figure("the longest of them", found.worst * 1e3, "ms"),
        Figure("CPU of the daemon meanwhile", found.cpu * 100, "%"),
        Figure("memory of the daemon at the end of it", found.peak_bytes / 1024 / 1024, "MB"),
        Figure("descriptors more than before, when all have left", found.left, most=0),
        Figure("connections that failed unexpectedly", failed, most=0),
    ]
