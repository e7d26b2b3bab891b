"""What TLS costs (1.3, a certificate with an ECDSA key): CPU for a connection and a delivery, and memory, beside none.

In turns, on fresh daemons: memory that was used before would look free.
"""

from __future__ import annotations

import time
from statistics import median

from tests.actors.daemon_process import DaemonProcess
from tests.bench.figure import Figure
from tests.bench.place import Place, another_daemon
from tests.bench.publishing import Pace, Publishing, payload_of, plain
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds, resident_bytes
from tests.tls.certificates import Authority

ROUNDS = 4
MESSAGES = 60
_CHANNEL = "bench:tls"
_PACE = Pace(rate=30)


def tls(place: Place, transport: str, clients: int) -> list[Figure]:
    """What `clients` clients more cost with TLS and without, and what a delivery to them does."""
    authority = Authority(place.folder)
    sealed = DaemonProcess(place.redis.url, place.folder / "tls.log", environ=authority.issue().environ)
    sealed.start()
    try:
        with another_daemon(place) as open_place:
            sides = [
                (open_place.daemon, Subscribers(open_place.daemon.port, transport, lambda _: _CHANNEL)),
                (
                    sealed,
                    Subscribers(sealed.port, transport, lambda _: _CHANNEL, context=authority.client_context()),
                ),
            ]
            connects, memory = _connect(sides, clients)
            deliveries = _deliver(place, sides)
    finally:
        sealed.stop()
    wrong = sum(subscribers.wrong for _, subscribers in sides)
    for _, subscribers in sides:
        wrong += abs(subscribers.received - MESSAGES * ROUNDS * clients)
        subscribers.close()
    return [
        Figure(f"CPU for a connection over TLS, {transport}", connects[1], "us"),
        Figure(f"how much more that is than without, {transport}", connects[1] - connects[0], "us"),
        Figure(f"memory of a connection over TLS, {transport}", memory[1], "KB"),
        Figure(f"how much more that is than without, {transport}", memory[1] - memory[0], "KB"),
        Figure(f"CPU for a delivery over TLS, {transport}", deliveries[1], "us"),
        Figure(f"over TLS / without, {transport}", deliveries[1] / deliveries[0], wrong=wrong),
    ]


def _connect(sides: list[tuple[DaemonProcess, Subscribers]], clients: int) -> tuple[list[float], list[float]]:
    """Microseconds of CPU, and kilobytes, for a connection to each side."""
    costs: list[list[float]] = [[], []]
    kilobytes: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for (daemon, subscribers), cost, size in zip(sides, costs, kilobytes, strict=True):
            pid = daemon.process.pid
            cpu, resident = cpu_seconds(pid), resident_bytes(pid)
            subscribers.open(clients)
            cost.append((cpu_seconds(pid) - cpu) / clients * 1e6)
            size.append((resident_bytes(pid) - resident) / clients / 1024)
    # The first round of a daemon warms it up.
    return [median(cost[1:]) for cost in costs], [median(size[1:]) for size in kilobytes]


def _deliver(place: Place, sides: list[tuple[DaemonProcess, Subscribers]]) -> list[float]:
    """Microseconds of CPU for a delivery on each side; both are subscribed, and each is measured while both receive."""
    publishing = Publishing(place.redis.port)
    before = [cpu_seconds(daemon.process.pid) for daemon, _ in sides]
    commands = [plain(_CHANNEL, payload_of(number)) for number in range(MESSAGES)]
    first, second = (subscribers for _, subscribers in sides)
    publishing.run(commands, _PACE, first, len(first._all))
    deadline = time.monotonic() + 10.0
    while second.received < first.received and time.monotonic() < deadline:
        second.poll(0.01)
    publishing.close()
    return [
        (cpu_seconds(daemon.process.pid) - cpu) / max(1, subscribers.received) * 1e6
        for (daemon, subscribers), cpu in zip(sides, before, strict=True)
    ]
