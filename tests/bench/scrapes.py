"""What it costs the clients that somebody reads `/metrics` every second: ten thousand of them, a hundred on a channel.

Rounds without and with the scrapes take turns on one daemon, and medians are compared. Whoever scrapes is a process of
its own, as Prometheus is. The other clients each have a channel of their own in the second part: what is counted for
each channel shows there.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles

from attrs import evolve

from tests.actors.daemon_process import DaemonProcess
from tests.bench.figure import Figure
from tests.bench.place import Place
from tests.bench.publishing import Pace, Publishing, payload_of, plain
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds

ROUNDS = 7
SECONDS = 4
RATE = 50
PER_CHANNEL = 100
SCRAPES = 20
_SCRAPE = """
import sys, time, urllib.request
while True:
    begun = time.monotonic()
    urllib.request.urlopen(sys.argv[1]).read()
    time.sleep(max(0.0, 1.0 - (time.monotonic() - begun)))
"""


def scrapes(place: Place, clients: int) -> list[Figure]:
    """How late deliveries are with a scrape every second beside without, and CPU for a scrape."""
    # These clients answer no ping, and ten thousand heartbeats at once are what would be measured.
    patient = ("--websocket-silence-seconds", "7200", "--websocket-ping-seconds", "3600")
    daemon = DaemonProcess(place.redis.url, place.folder / "scraped.log", patient)
    daemon.start()
    try:
        return _scrapes(evolve(place, daemon=daemon), clients)
    finally:
        daemon.stop()


def _scrapes(place: Place, clients: int) -> list[Figure]:
    channels = max(1, clients // PER_CHANNEL)
    url = f"{place.daemon.url}/metrics"
    subscribers = Subscribers(place.daemon.port, "websocket", lambda index: f"bench:{index % channels}", channels)
    subscribers.open(clients // channels * channels, seconds=120.0)
    publishing = Publishing(place.redis.port)
    number = 0

    def round() -> float:
        nonlocal number
        latencies: dict[int, list[float]] = {}
        subscribers.latencies = latencies
        names = [f"bench:{index % channels}" for index in range(number, number + RATE * SECONDS)]
        commands = [plain(name, payload_of(number + index)) for index, name in enumerate(names)]
        publishing.run(commands, Pace(rate=RATE), subscribers, clients // channels, first=number)
        number += len(commands)
        subscribers.latencies = None
        return quantiles([each for times in latencies.values() for each in times], n=100)[98]

    round()
    without, with_scrapes = [], []
    for _ in range(ROUNDS):
        without.append(round())
        with _scraped(url):
            with_scrapes.append(round())
    shared = _cpu_of_a_scrape(place, url)
    wrong = subscribers.wrong + abs(number * (clients // channels) - subscribers.received)
    publishing.close()
    subscribers.close()
    time.sleep(2.0)  # the disconnects are not the next part's cost
    with _own_channels(place, clients):
        own = _cpu_of_a_scrape(place, url)
    p99 = median(without)
    return [
        Figure(f"{clients} clients: 99 in 100 deliveries take at most, not scraped", p99 * 1e3, "ms", wrong=wrong),
        Figure("the same, scraped every second / not", median(with_scrapes) / p99, most=1.1),
        Figure(f"CPU for a scrape, {channels} channels", shared * 1e3, "ms", most=10.0),
        Figure(f"CPU for a scrape, {clients} channels", own * 1e3, "ms", most=10.0),
    ]


@contextmanager
def _scraped(url: str) -> Iterator[None]:
    scraper = subprocess.Popen([sys.executable, "-c", _SCRAPE, url])
    try:
        yield
    finally:
        assert scraper.poll() is None, "it could not be scraped"
        scraper.kill()
        scraper.wait()


@contextmanager
def _own_channels(place: Place, clients: int) -> Iterator[None]:
    subscribers = Subscribers(place.daemon.port, "websocket", lambda index: f"bench:own_{index}")
    subscribers.open(clients, seconds=120.0)
    yield
    subscribers.close()


def _cpu_of_a_scrape(place: Place, url: str) -> float:
    """Request and answer included; the clients are quiet."""
    urllib.request.urlopen(url).read()
    before = cpu_seconds(place.daemon_pid)
    for _ in range(SCRAPES):
        urllib.request.urlopen(url).read()
    return (cpu_seconds(place.daemon_pid) - before) / SCRAPES
