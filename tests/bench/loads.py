"""What the daemon needs for a connection and a delivery on channels without history, and how many it carries."""

from __future__ import annotations

import time

from attrs import frozen

from tests.bench.place import Place
from tests.bench.publishing import Pace, Publishing, payload_of, plain
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds


@frozen
class Load:
    """One load: `clients` over `channels`, `messages` at a pace."""

    name: str
    transport: str
    clients: int
    messages: int
    pace: Pace
    channels: int = 1


def table(place: Place, clients: int) -> int:
    """Print a row for each load. Returns how many deliveries were missing, doubled or out of order."""
    print(
        f"{'load':28} {'transport':10} {'clients':>7} {'CPU/connect':>12} {'CPU/delivery':>13}"
        f" {'deliveries/s':>13} {'wrong':>6}"
    )
    paced, burst = Pace(rate=30), Pace(window=64)
    loads = [
        Load("paced, 30 messages/s", "websocket", clients, 150, paced),
        Load("paced, 30 messages/s", "sse", clients, 150, paced),
        Load("burst, 64 in flight", "websocket", clients, 1000, burst),
        Load("burst, 64 in flight", "sse", clients, 1000, burst),
        Load("one client, 256 in flight", "websocket", 1, 100_000, Pace(window=256)),
        Load("a channel each, 5000/s", "websocket", clients, 30_000, Pace(rate=5000), clients),
    ]
    return sum(_run(load, place) for load in loads)


def _run(load: Load, place: Place) -> int:
    def channel_of(index: int) -> str:
        return f"bench:{index % load.channels}"

    subscribers = Subscribers(place.daemon.port, load.transport, channel_of, load.channels)
    before = cpu_seconds(place.daemon_pid)
    subscribers.open(load.clients)
    connected = cpu_seconds(place.daemon_pid)
    commands = [plain(channel_of(number), payload_of(number)) for number in range(load.messages)]
    publishing = Publishing(place.redis.port)
    seconds = publishing.run(commands, load.pace, subscribers, load.clients / load.channels)
    spent = cpu_seconds(place.daemon_pid) - connected
    expected = load.messages * load.clients // load.channels
    wrong = subscribers.wrong + abs(expected - subscribers.received)
    print(
        f"{load.name:28} {load.transport:10} {load.clients:7} {(connected - before) / load.clients * 1e6:9.0f} us"
        f" {spent / max(1, subscribers.received) * 1e6:10.2f} us {subscribers.received / seconds:13.0f} {wrong:6}",
        flush=True,
    )
    publishing.close()
    subscribers.close()
    time.sleep(1.0)  # the disconnects are not the next load's cost
    return wrong
