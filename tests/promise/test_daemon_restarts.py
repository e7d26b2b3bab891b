"""A daemon is stopped, and killed, and started again: EventSource clients that nobody here wrote resume."""

from __future__ import annotations

import signal
from collections.abc import Callable
from threading import Thread

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.event_sources import EventSourceClient, HttpxEventSource, NodeEventSource
from tests.actors.followers import SseFollower, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.returning import Service

CHANNELS = ("kept:1", "kept:2")
RATE = 100.0  # events a second on each channel
RECONNECT_SECONDS = 0.3
FLAGS = (
    *("--type", "kept.history_length=10000", "--type", "kept.history_seconds=600"),
    *("--daemon-reconnect-seconds", str(RECONNECT_SECONDS)),
)
Open = Callable[[str], EventSourceClient]


def restart(daemon: DaemonProcess, number: int) -> None:
    """On the same port."""
    daemon.listen = f"127.0.0.1:{daemon.port}"
    daemon.stop(number)
    daemon.start()


@pytest.fixture(params=["httpx", "node"])
def open_event_source(request: pytest.FixtureRequest) -> Open:
    if request.param == "httpx":
        return HttpxEventSource
    if not NodeEventSource.is_there():
        pytest.skip("no EventSource of npm: tests/browser/node_modules has none (tests/browser/install)")
    return NodeEventSource


def test_an_event_source_resumes_with_no_event_missing(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], open_event_source: Open
) -> None:
    daemon = start_daemon(redis_server.url, *FLAGS)
    one = open_event_source(f"{daemon.url}/api/stream?channel={CHANNELS[0]}")
    all = open_event_source(f"{daemon.url}/api/stream?channel={CHANNELS[0]}&channel={CHANNELS[1]}")
    clients = [one, all]
    for client in clients:
        client.open()
    try:
        wait_until(lambda: [client.greetings for client in clients] == [1, 1])
        service = Service(redis_server, CHANNELS, RATE)
        for times, number in enumerate([signal.SIGTERM, signal.SIGKILL], 2):
            count = service.count + 30
            wait_until(lambda count=count: min(len(client.heard) for client in clients) >= count)
            restart(daemon, number)
            wait_until(lambda times=times: [client.greetings for client in clients] == [times] * 2)
        count = service.end()
        wait_until(lambda: [len(client.heard) for client in clients] == [count, 2 * count])
    finally:
        for client in clients:
            client.close()
    for client in clients:
        assert client.gaps == []
        for channel in {event["c"] for event in client.heard}:
            numbers = [event["n"] for event in client.heard if event["c"] == channel]
            assert numbers == list(range(1, count + 1))


def test_clients_of_every_kind_go_on_where_they_were(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, *FLAGS)
    service = Service(redis_server, CHANNELS, RATE)
    truths = service.truths
    followers = [
        kind(names, truths, daemon.port)
        for kind in (WebSocketFollower, V1Follower, SseFollower)
        for names in (CHANNELS[:1], CHANNELS)
        for _ in range(3)
    ]
    open_followers(followers)
    for number in (signal.SIGTERM, signal.SIGKILL):
        count = service.count + 30
        follow(followers, lambda count=count: service.count >= count)
        endings = sum(follower.endings for follower in followers)
        restarting = Thread(target=restart, args=(daemon, number), daemon=True)
        restarting.start()
        follow(
            followers,
            lambda endings=endings, restarting=restarting: (
                not restarting.is_alive()
                and sum(follower.endings for follower in followers) == endings + len(followers)
                and all(follower.is_live for follower in followers)
            ),
        )
    service.end()

    def faults() -> list[str]:
        return [fault for follower in followers for fault in follower.faults(is_end=True)]

    follow(followers, lambda: not faults(), why=faults)
    assert [follower.gaps() for follower in followers] == [[]] * len(followers)
