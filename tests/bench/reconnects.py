"""A reconnect storm: all clients come back at once, each a hundred events behind, while events go on coming."""

from __future__ import annotations

import time

from attrs import define

from broker.history.keys import Keys
from tests.bench.figure import Figure
from tests.bench.pings import pinging
from tests.bench.place import KEPT, Place
from tests.bench.publishing import Publishing, payload_of, stamped
from tests.bench.subscribers import Subscribers
from tests.bench.usage import cpu_seconds

MISSED = 100
BEFORE = 50
LIVE_EVERY_SECONDS = 0.05
CONNECT_AT_ONCE = 50
GIVE_UP_SECONDS = 60.0


@define(eq=False)
class _Live:
    """Publishes the next event whenever it is due."""

    publishing: Publishing
    channel: str
    number: int
    due_at: float = 0.0

    def publish(self, subscribers: Subscribers) -> None:
        self.publishing.send(stamped(self.channel, payload_of(self.number)), subscribers)
        self.number += 1

    def keep_up(self, subscribers: Subscribers) -> None:
        if time.monotonic() >= self.due_at:
            self.publish(subscribers)
            self.due_at = time.monotonic() + LIVE_EVERY_SECONDS


def reconnects(place: Place, transport: str, clients: int) -> list[Figure]:
    """Seconds until all of them are live again, and what that took."""
    channel = f"{KEPT}:storm{transport}"
    publishing = Publishing(place.redis.port)
    publishing.ask(*(stamped(channel, payload_of(number)) for number in range(BEFORE + MISSED)))
    live = _Live(publishing, channel, BEFORE + MISSED)
    since = _position(place, channel)
    subscribers = Subscribers(place.daemon.port, transport, lambda _: channel, since=since, first=BEFORE)
    history = place.daemon.stats()["history"]
    with pinging(place.daemon.port) as pongs:
        cpu, begun = cpu_seconds(place.daemon_pid), time.monotonic()
        for first in range(0, clients, CONNECT_AT_ONCE):
            subscribers.connect(min(CONNECT_AT_ONCE, clients - first))
            live.keep_up(subscribers)
        while subscribers.ready < clients and time.monotonic() - begun < GIVE_UP_SECONDS:
            subscribers.poll(0.005)
            live.keep_up(subscribers)
        live.publish(subscribers)  # to those who are all subscribed
        while subscribers.least < live.number - 1 and time.monotonic() - begun < GIVE_UP_SECONDS:
            subscribers.poll(0.005)
        seconds, spent = time.monotonic() - begun, cpu_seconds(place.daemon_pid) - cpu
    after = place.daemon.stats()["history"]
    wrong = subscribers.wrong + abs((live.number - BEFORE) * clients - subscribers.received)
    publishing.close()
    subscribers.close()
    time.sleep(1.0)
    who = f"{clients} resume {MISSED} events back, {transport}"
    return [
        Figure(f"{who}: seconds until all are live", seconds, "s", most=5, wrong=wrong),
        Figure(f"{who}: CPU of the daemon for each", spent / clients * 1e6, "us"),
        Figure(f"{who}: reads of history", after["reads"] - history["reads"]),
        Figure(f"{who}: longest pong of another client", pongs.longest_seconds * 1e3, "ms"),
        Figure(f"{who}: median of {pongs.count} pongs", pongs.median_seconds * 1e3, "ms"),
    ]


def _position(place: Place, channel: str) -> str:
    """Of the event before those that are missed."""
    keys = Keys("")
    with place.redis.client() as client:
        epoch = client.get(keys.top(channel)).split()[0].decode()
        entries = client.xrevrange(keys.events(channel), count=MISSED + 1)
    return f"{epoch}:{entries[-1][0].decode().replace('-', ':')}"
