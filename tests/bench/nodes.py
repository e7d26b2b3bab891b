"""What a load needs: how many workers, and when Redis is the limit. `python -m tests.bench.nodes --help`.

What a message, a delivery and a client cost is measured on this machine, on real daemons and a real Redis. From that
follows, by arithmetic (docs/scaling.md has it in words), what each of N workers, on any number of machines, has to
do; and for one load that fits here it is measured too, beside what the arithmetic says.

Costs are measured with messages that come evenly. Bursts cost less, so what is printed is an upper bound; with one
exception: above `_MESSAGES_A_SECOND` the costs are those at that rate, and more messages a second cost less each.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from tests.actors.daemon_process import DaemonProcess
from tests.bench.place import Place, opened
from tests.bench.publishing import Pace, Publishing, payload_of, plain
from tests.bench.usage import cpu_seconds, resident_bytes
from tests.bench.workers import CountingSubscribers, cpu_of, daemon_of
from tests.workers.crew import children_of

# Of a core; above it, what comes unevenly waits.
SHARE_MOST = 0.7
_SECONDS = 4.0
_CLIENTS = 1000
# As many as this machine makes with room to spare.
_DELIVERIES_A_SECOND = 40_000
_MESSAGES_A_SECOND = 1000
_WORKERS_MOST = 4096


@frozen
class Load:
    """What is asked of all nodes together."""

    clients: int
    channels: int
    rate: float

    @property
    def fan_out(self) -> float:
        """Clients on a channel."""
        return self.clients / self.channels


@frozen
class Costs:
    """In CPU seconds, and bytes.

    Args:
        message: for a worker, of a message on a channel that it has clients on.
        publish, reach: for Redis, of a message; and of each worker that it goes to.
        base_bytes, client_bytes: memory of a worker, and of each of its clients.
    """

    message: float
    delivery: float
    connect: float
    publish: float
    reach: float
    base_bytes: float
    client_bytes: float


@frozen
class Need:
    """Of one number of workers: CPU as a share of a core, and memory of each."""

    workers: int
    worker: float
    redis: float
    bytes: float
    reconnect_seconds: float


def need(load: Load, costs: Costs, workers: int) -> Need:
    """What each of so many workers needs, with the clients spread evenly."""
    # Whether a worker has a client on a channel at all: only then does Redis send it the message.
    has = 1 - (1 - 1 / workers) ** load.fan_out
    clients = load.clients / workers
    return Need(
        workers,
        load.rate * (has * costs.message + load.fan_out / workers * costs.delivery),
        load.rate * (costs.publish + workers * has * costs.reach),
        costs.base_bytes + clients * costs.client_bytes,
        clients * costs.connect,
    )


@frozen
class Run:
    """What was used for each message: by the daemon, and by Redis."""

    daemon: float
    redis: float
    connect: float
    client_bytes: float


def run(place: Place, daemon: DaemonProcess, load: Load) -> Run:
    """A load at its pace."""

    def channel_of(index: int) -> str:
        return f"spread:{index % load.channels}"

    subscribers = CountingSubscribers(daemon.port, "websocket", channel_of)
    memory, before = _resident(daemon), cpu_of(daemon)
    subscribers.open(load.clients)
    connect = (cpu_of(daemon) - before) / load.clients
    client_bytes = (_resident(daemon) - memory) / load.clients
    publishing = Publishing(place.redis.port)
    messages = round(load.rate * _SECONDS)
    commands = [plain(channel_of(number), payload_of(number)) for number in range(messages)]
    before, redis = cpu_of(daemon), cpu_seconds(place.redis_pid)
    publishing.run(commands, Pace(rate=load.rate), subscribers, load.fan_out)
    found = Run(
        (cpu_of(daemon) - before) / messages,
        (cpu_seconds(place.redis_pid) - redis) / messages,
        connect,
        client_bytes,
    )
    if subscribers.received != messages * load.clients // load.channels:
        raise RuntimeError(f"{subscribers.received} deliveries came, not {messages * load.clients // load.channels}")
    publishing.close()
    subscribers.close()
    time.sleep(1.0)
    return found


def measure(place: Place, rate: float) -> Costs:
    """The costs, at such a rate or the highest that this machine makes easily.

    One load has a client on each channel and one has many; the difference is what the deliveries cost. The second is
    run with one worker and with two, both with clients on every channel; the difference is what a worker costs Redis.
    """
    rate = min(rate, _MESSAGES_A_SECOND)
    few, many = Load(100, 100, rate), Load(_CLIENTS, _CLIENTS // _fan_out(rate), rate)
    with daemon_of(place, 1) as one:
        alone = run(place, one, few)
        base_bytes = _resident(one)  # with everything loaded
        crowd = run(place, one, many)
    with daemon_of(place, 2) as two:
        spread = run(place, two, many)
    delivery = max(0.0, (crowd.daemon - alone.daemon) / (many.fan_out - 1))
    reach = max(0.0, spread.redis - crowd.redis)
    return Costs(
        max(0.0, alone.daemon - delivery),
        delivery,
        crowd.connect,
        max(0.0, crowd.redis - reach),
        reach,
        base_bytes,
        crowd.client_bytes,
    )


def rehearsal(rate: float) -> Load:
    """A load that fits here, at the rate of the measured ones; what a message costs depends on how many come."""
    rate = min(rate, _MESSAGES_A_SECOND)
    return Load(_CLIENTS, _CLIENTS // max(1, _fan_out(rate) // 2), rate)


def _fan_out(rate: float) -> int:
    return max(2, min(_CLIENTS // 4, int(_DELIVERIES_A_SECOND / rate)))


def check(place: Place, costs: Costs, load: Load) -> tuple[Need, Need]:
    """What two workers need by the arithmetic, and what two real ones do."""
    with daemon_of(place, 2) as two:
        run(place, two, Load(10, 10, 100))  # what is done once is done
        found = run(place, two, load)
    said = need(load, costs, 2)
    return said, Need(2, found.daemon * load.rate / 2, found.redis * load.rate, 0.0, 0.0)


def _resident(daemon: DaemonProcess) -> int:
    """Memory of the process that has the clients, or of all that do."""
    workers = [pid for pid in children_of(daemon.process.pid) if "worker" in Path(f"/proc/{pid}/cmdline").read_text()]
    return sum(map(resident_bytes, workers)) if workers else resident_bytes(daemon.process.pid)


def _table(load: Load, costs: Costs, chosen: Sequence[int]) -> None:
    print(f"\n{'workers':>8} {'clients each':>13} {'CPU of each':>12} {'memory each':>12} {'CPU of Redis':>13}  limit")
    for workers in chosen or _doubling(load, costs):
        each = need(load, costs, workers)
        limits = [name for name, share in (("worker", each.worker), ("Redis", each.redis)) if share > SHARE_MOST]
        print(
            f"{workers:8} {load.clients / workers:13.0f} {each.worker:11.0%}  {each.bytes / 2**20:8.0f} MB"
            f" {each.redis:12.0%}   {', '.join(limits) or 'fits'}"
        )


def _doubling(load: Load, costs: Costs) -> list[int]:
    """1, 2, 4 and so on, until each worker has room; more of them help nobody then, nor where Redis is the limit."""
    found = [1]
    while found[-1] < _WORKERS_MOST:
        last = need(load, costs, found[-1])
        if last.worker <= SHARE_MOST or last.redis > 1:
            break
        found.append(2 * found[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nodes", description=__doc__)
    parser.add_argument("--clients", type=int, default=20_000, help="WebSockets of all workers together")
    parser.add_argument("--channels", type=int, default=200, help="channels, each with as many clients as the others")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second, over all channels")
    parser.add_argument("--workers", type=int, action="append", help="how many; without it, 1, 2, 4 until it fits")
    arguments = parser.parse_args()
    load = Load(arguments.clients, arguments.channels, arguments.rate)
    if not 0 < load.channels <= load.clients or load.rate <= 0:
        parser.error("there are at most as many channels as clients, and at least one; the rate is above 0")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="broker-nodes-") as folder, opened(Path(folder)) as place:
        costs = measure(place, load.rate)
        print("measured here")
        print(f"  a message, for a worker     {costs.message * 1e6:8.1f} us")
        print(f"  a delivery                  {costs.delivery * 1e6:8.2f} us")
        print(f"  a connection                {costs.connect * 1e6:8.0f} us")
        print(f"  a message, for Redis        {costs.publish * 1e6:8.1f} us")
        print(f"  and for each worker more    {costs.reach * 1e6:8.1f} us")
        print(f"  memory of a worker          {costs.base_bytes / 2**20:8.0f} MB")
        print(f"  and for each client         {costs.client_bytes / 1024:8.1f} KB")
        small = rehearsal(load.rate)
        said, found = check(place, costs, small)
        print(f"\n{small.clients} clients on {small.channels} channels, {small.rate:.0f} messages/s, 2 workers")
        print(f"  by the arithmetic           {said.worker:8.1%} of a core each, Redis {said.redis:.1%}")
        print(f"  measured                    {found.worker:8.1%} of a core each, Redis {found.redis:.1%}")
        print(f"\nasked: {load.clients} clients on {load.channels} channels, {load.rate:g} messages/s,", end=" ")
        print(f"{load.rate * load.fan_out:.0f} deliveries/s")
        _table(load, costs, arguments.workers or ())
    return 0


if __name__ == "__main__":
    sys.exit(main())
