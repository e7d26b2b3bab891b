"""Redis goes away in every way it can, and comes back: nobody is disconnected, and everybody is told the truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import websockets.sync.client

from broker.config.sections import Redis
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import Peer, WebSocketPeer, open_streams, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer

StartDaemon = Callable[..., DaemonProcess]
CHANNEL = "feed:42"
# Promised; it holds for the defaults.
BACK_WITHIN_SECONDS = 2.0
QUICK_PINGS = ["--redis-ping-seconds", "0.3", "--redis-ping-timeout-seconds", "0.5", "--redis-connect-seconds", "1"]


def log_of(daemon: DaemonProcess, event: str) -> list[dict[str, Any]]:
    entries = map(json.loads, daemon.log().splitlines())
    return [entry for entry in entries if entry["event"] == event]


def is_connected(daemon: DaemonProcess) -> bool:
    return bool(daemon.stats()["channels"]["isConnected"])


def commands(redis_server: RedisServer, name: str) -> int:
    """How often a command was run in Redis."""
    with redis_server.client() as client:
        found: dict[str, Any] = client.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})
        return int(found["calls"])


def seconds_until_delivery(redis_server: RedisServer, peers: list[Peer]) -> float:
    """Publish again and again until everyone has one."""
    began = time.monotonic()
    marks = [len(peer.raw) for peer in peers]
    number = 0

    def delivered() -> bool:
        nonlocal number
        number += 1
        redis_server.publish(CHANNEL, b'{"again":%d}' % number)
        return all(peer.raw.find(b'{"again":', mark) > 0 for peer, mark in zip(peers, marks, strict=True))

    pump(peers, delivered)
    return time.monotonic() - began


def test_redis_killed_and_started_again(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    peers: list[Peer] = [*open_websockets(daemon.port, 3, CHANNEL), *open_streams(daemon.port, 3, CHANNEL)]
    healthy = daemon.stats()
    assert (healthy["status"], healthy["redis"]["outages"]) == ("healthy", 0)
    assert healthy["redis"]["awaySince"] is None
    assert healthy["redis"]["lastOutage"] is None
    redis_server.kill()
    wait_until(lambda: not is_connected(daemon), 2)
    stats = daemon.stats()
    assert stats["status"] == "degraded"
    assert stats["channels"]["redisSubscriptions"] == 0
    assert stats["channels"]["totalSubscriptions"] == 6
    assert stats["redis"]["awaySince"] is not None
    # Somebody new comes while it is away.
    with websockets.sync.client.connect(daemon.ws_url) as ws:
        assert json.loads(ws.recv(5))["type"] == "connected"
        ws.send('{"type":"subscribe","channel":"feed:new"}')
        told = json.loads(ws.recv(5))
        assert (told["type"], told["code"]) == ("error", "upstream_unavailable")
        assert "feed:new" in told["message"]
        redis_server.start()
        assert seconds_until_delivery(redis_server, peers) < BACK_WITHIN_SECONDS
        subscribed = json.loads(ws.recv(5))
        assert (subscribed["type"], subscribed["name"]) == ("subscribed", "feed:new")
        redis_server.publish("feed:new", b'{"n":1}')
        assert ws.recv(5) == '{"n":1}'
    assert not any(peer.ended for peer in peers)
    stats = daemon.stats()
    assert (stats["status"], stats["redis"]["outages"], stats["redis"]["awaySince"]) == ("healthy", 1, None)
    assert stats["redis"]["lastOutage"]["begunAt"] < stats["redis"]["lastOutage"]["endedAt"]
    assert len(log_of(daemon, "Redis connection lost")) == 1
    assert len(log_of(daemon, "Redis is back; what was published meanwhile was missed")) == 1


def test_five_thousand_channels_come_back_in_a_few_commands(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    peers = [WebSocketPeer(daemon.port) for _ in range(5)]
    for number, peer in enumerate(peers):
        peer.subscribe(*(f"feed:{number}.{index}" for index in range(1000)))
    pump(peers, lambda: all(len(peer.events("subscribed")) == 1000 for peer in peers))
    # However many clients ask at once, they share a few round trips.
    assert commands(redis_server, "subscribe") <= 250
    redis_server.kill()
    wait_until(lambda: not is_connected(daemon), 2)
    redis_server.start()
    began = time.monotonic()
    while not (channels := daemon.stats()["channels"])["isConnected"]:
        assert time.monotonic() - began < BACK_WITHIN_SECONDS
    # Healthy means that all of them are there, not only Redis.
    assert channels["redisSubscriptions"] == 5000
    assert commands(redis_server, "subscribe") <= 12
    redis_server.publish("feed:4.999", b'{"last":true}')
    pump(peers, lambda: peers[4].raw.endswith(b'{"last":true}'))


def test_a_quiet_redis_is_kept_and_a_frozen_one_noticed(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    defaults = Redis()
    assert defaults.ping_seconds + defaults.ping_timeout_seconds < 10
    daemon = start_daemon(redis_server.url, *QUICK_PINGS)
    peers: list[Peer] = [*open_websockets(daemon.port, 1, CHANNEL), *open_streams(daemon.port, 1, CHANNEL)]
    wait_until(lambda: commands(redis_server, "ping") > 4)
    assert daemon.stats()["redis"]["outages"] == 0
    redis_server.freeze()
    began = time.monotonic()
    wait_until(lambda: not is_connected(daemon), 10)
    assert time.monotonic() - began < 2.5
    redis_server.thaw()
    # An attempt to connect may be under way.
    assert seconds_until_delivery(redis_server, peers) < 1 + BACK_WITHIN_SECONDS
    wait_until(lambda: is_connected(daemon), 2)
    assert daemon.stats()["redis"]["outages"] == 1
    assert "did not answer PING" in log_of(daemon, "Redis connection lost")[0]["why"]


def test_a_connection_that_redis_kills(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    peers: list[Peer] = list(open_websockets(daemon.port, 1, CHANNEL))
    for times in (1, 2, 3):
        with redis_server.client() as client:
            # The link's, and that of the recorder unless it is not back from the last time.
            assert client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") in (1, 2)
        wait_until(lambda times=times: daemon.stats()["redis"]["outages"] == times)
        assert seconds_until_delivery(redis_server, peers) < BACK_WITHIN_SECONDS
        wait_until(lambda: is_connected(daemon))
    assert not peers[0].ended


def test_the_daemon_starts_before_redis(tmp_path: Path, start_daemon: StartDaemon) -> None:
    redis_server = RedisServer(tmp_path)
    try:
        daemon = start_daemon(redis_server.url)
        banner = daemon.rest_of_banner()
        assert f"{redis_server.url}, NOT REACHABLE YET; the daemon keeps trying" in banner
        (entry,) = log_of(daemon, "waiting for Redis")
        assert entry["redis"] == redis_server.url
        assert "Connection refused" in entry["why"]
        assert daemon.stats()["status"] == "degraded"
        with websockets.sync.client.connect(daemon.ws_url) as ws:
            ws.recv(5)
            ws.send('{"type":"subscribe","channel":"feed:42"}')
            assert json.loads(ws.recv(5))["code"] == "upstream_unavailable"
            redis_server.start()
            assert json.loads(ws.recv(5))["type"] == "subscribed"
            redis_server.publish(CHANNEL, b'{"n":1}')
            assert ws.recv(5) == '{"n":1}'
        stats = daemon.stats()
        assert (stats["status"], stats["redis"]["outages"]) == ("healthy", 0)
        assert len(log_of(daemon, "waiting for Redis")) == 1
    finally:
        redis_server.kill()


def start_limited(redis_server: RedisServer, start_daemon: StartDaemon) -> DaemonProcess:
    """A daemon whose user may listen to `allowed:*` and nothing else."""
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">hunter2", "+@all", "resetchannels", "&allowed:*")
    daemon = start_daemon(redis_server.url.replace("redis://", "redis://limited:hunter2@"))
    daemon.expected_errors.add("Redis does not let plain PUBLISHes be recorded")
    return daemon


def test_a_channel_that_redis_refuses_is_told_and_the_others_are_served(
    redis_server: RedisServer, start_daemon: StartDaemon
) -> None:
    daemon = start_limited(redis_server, start_daemon)
    (peer,) = open_websockets(daemon.port, 1)
    names = ["allowed:1", "forbidden:1", "allowed:2", "forbidden:2", "allowed:3"]
    # In one write, so that they go to Redis in one command.
    peer.subscribe(*names)
    pump([peer], lambda: len(peer.parse()) == 6)
    assert sorted(event["name"] for event in peer.events("subscribed")) == ["allowed:1", "allowed:2", "allowed:3"]
    errors = peer.events("error")
    assert [error["code"] for error in errors] == ["upstream_refused", "upstream_refused"]
    assert [name for name in names if any(name in error["message"] for error in errors)] == [
        "forbidden:1",
        "forbidden:2",
    ]
    redis_server.publish("allowed:3", b'{"n":3}')
    pump([peer], lambda: peer.raw.endswith(b'{"n":3}'))
    stats = daemon.stats()
    assert stats["channels"]["channels"] == ["allowed:1", "allowed:2", "allowed:3"]
    assert stats["websocket"]["clients"][0]["subscribedChannels"] == ["allowed:1", "allowed:2", "allowed:3"]
    assert (stats["status"], stats["redis"]["outages"]) == ("healthy", 0)
    # Refused once more, and allowed once Redis allows it.
    peer.subscribe("forbidden:1")
    pump([peer], lambda: len(peer.events("error")) == 3)
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "&forbidden:*")
    peer.subscribe("forbidden:1")
    pump([peer], lambda: len(peer.events("subscribed")) == 4)
    assert "hunter2" not in daemon.log()


def test_a_stream_on_a_refused_channel_ends_with_an_error_event(
    redis_server: RedisServer, start_daemon: StartDaemon
) -> None:
    daemon = start_limited(redis_server, start_daemon)
    url = f"{daemon.url}/api/stream?channel=allowed:1&channel=forbidden:1"
    with httpx.Client(trust_env=False) as http, httpx_sse.connect_sse(http, "GET", url) as source:
        events = list(source.iter_sse())  # httpx raises where the body is cut
    assert [event.event for event in events] == ["error"]
    assert "Redis refused channel forbidden:1" in json.loads(events[0].data)["error"]
    wait_until(lambda: daemon.stats()["delivery"]["endings"] == {"upstream_refused": 1})
    assert daemon.stats()["channels"]["channels"] == []


def test_many_refused_channels_are_one_line_in_the_log(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_limited(redis_server, start_daemon)
    (peer,) = open_websockets(daemon.port, 1)
    peer.subscribe(*(f"forbidden:{number}" for number in range(600)))
    pump([peer], lambda: len(peer.events("error")) == 600)
    assert len(log_of(daemon, "Redis refused a channel")) == 1


def test_a_client_that_comes_and_goes_causes_no_traffic(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--redis-unsubscribe-after-seconds", "0.5")
    (peer,) = open_websockets(daemon.port, 1)
    for turn in range(1, 201):
        peer.subscribe(CHANNEL)
        peer.unsubscribe(CHANNEL)
        if turn % 20 == 0:
            pump([peer], lambda turn=turn: len(peer.events("unsubscribed")) == turn)
    # One for the channels on which daemons talk, one for this channel, and one of the recorder.
    assert commands(redis_server, "subscribe") <= 3
    assert commands(redis_server, "unsubscribe") <= 1
    wait_until(lambda: commands(redis_server, "unsubscribe") == 1)
    wait_until(lambda: daemon.stats()["channels"]["redisSubscriptions"] == 0)
    with redis_server.client() as client:
        # Those on which daemons talk to each other stay.
        control, node, recorder, users = sorted(client.pubsub_channels())
        assert (control, node[:12], users) == (b"broker:control", b"broker:node:", b"broker:users")
        assert recorder == b"broker:recorder"


def test_a_prefix_and_a_protocol_in_the_url_are_not_seen(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(f"{redis_server.url}?protocol=3", "--redis-channel-prefix", "app:")
    (peer,) = open_websockets(daemon.port, 1, CHANNEL)
    redis_server.publish(CHANNEL, b'{"wrong":true}')
    redis_server.publish(f"app:{CHANNEL}", b'{"right":true}')
    pump([peer], lambda: peer.raw.endswith(b'{"right":true}'))
    assert peer.parse()[2:] == [b'{"right":true}']
    assert daemon.stats()["channels"]["channels"] == [CHANNEL]
