"""What a second worker brings, on as many cores as there are: deliveries a second, and CPU for each.

The load generator shares the cores with the daemon. So that it takes little of them, it reads what has come only
now and then, much at a time, and counts bytes instead of looking at each message; that every message comes, once
and in order, is for the other parts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, frozen

from tests.actors.daemon_process import DaemonProcess
from tests.bench.figure import Figure
from tests.bench.place import Place
from tests.bench.publishing import Pace, Publishing, payload_of, plain
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds
from tests.workers.crew import children_of

_READ_SECONDS = 0.01
_ROUNDS = 3
# A frame of 200 bytes has four bytes in front.
_FRAME_BYTES = 204


@define(eq=False)
class CountingSubscribers(Subscribers):
    """WebSockets that count bytes."""

    _bytes: int = 0

    def poll(self, seconds: float) -> None:
        if self._ready == len(self._all):
            time.sleep(_READ_SECONDS)
            seconds = 0.0
        super().poll(seconds)

    def _take(self, subscriber, data) -> None:  # type: ignore[no-untyped-def]
        if not subscriber.ready:
            super()._take(subscriber, data)
            return
        self._bytes += len(data)
        self.received = self._bytes // _FRAME_BYTES


@frozen
class Throughput:
    """Of one run.

    Args:
        daemon, redis, load: CPU seconds a delivery: of all workers together, of Redis, and of this process.
        wrong: deliveries that were missing or too many.
    """

    a_second: float
    daemon: float
    redis: float
    load: float
    wrong: int


@contextmanager
def daemon_of(place: Place, workers: int) -> Iterator[DaemonProcess]:
    """A fresh one, in interpreters of its own."""
    flags = (
        *("--workers", str(workers), "--clients-outbox-max-age-seconds", "60"),
        # Nothing but events, which are counted by their size.
        *("--websocket-ping-seconds", "300", "--websocket-silence-seconds", "600"),
    )
    daemon = DaemonProcess(place.redis.url, place.folder / f"workers-{workers}.log", flags, is_forked=False)
    try:
        daemon.start()
        yield daemon
    finally:
        if hasattr(daemon, "process"):
            daemon.stop()


def cpu_of(daemon: DaemonProcess) -> float:
    """CPU seconds of a daemon and of its workers."""
    pid = daemon.process.pid
    return cpu_seconds(pid) + sum(map(cpu_seconds, children_of(pid)))


def throughput(
    place: Place, daemon: DaemonProcess, clients: int, channels: int, messages: int, window: int
) -> Throughput:
    """`messages` over `channels`, with `window` of them in flight."""

    def channel_of(index: int) -> str:
        return f"spread:{index % channels}"

    subscribers = CountingSubscribers(daemon.port, "websocket", channel_of)
    subscribers.open(clients)
    publishing = Publishing(place.redis.port)
    commands = [plain(channel_of(number), payload_of(number)) for number in range(messages)]
    before, redis_before, own_before = cpu_of(daemon), cpu_seconds(place.redis_pid), time.process_time()
    seconds = publishing.run(commands, Pace(window=window), subscribers, clients / channels)
    used, redis_used = cpu_of(daemon) - before, cpu_seconds(place.redis_pid) - redis_before
    own = time.process_time() - own_before
    expected = messages * clients // channels
    received = max(1, subscribers.received)
    publishing.close()
    subscribers.close()
    time.sleep(0.5)  # the disconnects are not the next run's cost
    wrong = abs(expected - subscribers.received)
    return Throughput(received / seconds, used / received, redis_used / received, own / received, wrong)


def two_workers(place: Place, clients: int) -> list[Figure]:
    """Two workers against one, in turns: all clients on one channel, and each on a channel of its own."""
    figures: list[Figure] = []
    loads = {
        f"burst to {clients} WebSockets on one channel": (None, clients, 1, 16_000, 1024),
        f"a channel for each of {clients} WebSockets": (1.2, clients, clients, 200_000, 20 * clients),
    }
    with daemon_of(place, 1) as one, daemon_of(place, 2) as two:
        for name, (least, *load) in loads.items():
            runs: dict[int, list[Throughput]] = {1: [], 2: []}
            for _ in range(_ROUNDS):
                runs[1].append(throughput(place, one, *load))
                runs[2].append(throughput(place, two, *load))
            best = {workers: max(runs[workers], key=lambda run: run.a_second) for workers in runs}
            wrong = sum(run.wrong for each in runs.values() for run in each)
            figures += [
                Figure(f"{name}, 1 worker: deliveries", best[1].a_second, "/s", wrong=wrong),
                Figure("2 workers: deliveries", best[2].a_second, "/s"),
                Figure("2 workers / 1 worker, deliveries a second", best[2].a_second / best[1].a_second, least=least),
                Figure("1 worker: CPU of the daemon for a delivery", best[1].daemon * 1e6, "us"),
                Figure("2 workers: the same, of both", best[2].daemon * 1e6, "us"),
                Figure("2 workers: Redis' CPU for a delivery", best[2].redis * 1e6, "us"),
                Figure("2 workers: CPU of this load generator for a delivery", best[2].load * 1e6, "us"),
            ]
    return figures
