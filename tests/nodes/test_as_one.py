"""Two daemons at one Redis: what is asked of one of them is answered for both."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from tests.access.visitor import bearer, streaming, talking, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.nodes.crowd import crowd, look, nodes_of

Pair = tuple[DaemonProcess, DaemonProcess]
EVENT = b'{"type":"note","timestamp":"2026-01-01T00:00:00.000Z"}'


@pytest.fixture(autouse=True)
def _nobody_is_left(pair: Pair) -> None:
    """What the test before opened has gone, also from Redis."""
    wait_until(lambda: look(pair[0], "stats")["websocket"]["totalConnections"] == 0)
    time.sleep(0.15)  # the seats of who left are told within 0.1 s


def test_the_stats_of_one_are_those_of_both(pair: Pair) -> None:
    one, other = pair
    ann = bearer(token("ann", subscribe=["note:*"]))
    with (
        talking(one.ws_url, additional_headers=ann) as first,
        talking(other.ws_url, additional_headers=ann) as second,
        streaming(f"{other.url}/api/stream?channel=note:3", bearer(token("bob", subscribe=["note:*"]))) as stream,
    ):
        events = stream.iter_sse()
        next(events)
        first.subscribe("note:1")
        first.subscribe("note:2")
        second.subscribe("note:2")
        found = [look(daemon, "stats") for daemon in pair]
        for stats in found:
            assert stats["websocket"]["totalConnections"] == 2
            assert Counter(client["userId"] for client in stats["websocket"]["clients"]) == {"ann": 2}
            assert stats["sse"]["totalConnections"] == 1
            channels = stats["channels"]
            assert (channels["activeChannels"], channels["totalSubscriptions"]) == (3, 4)
            assert sorted(channels["channels"]) == ["note:1", "note:2", "note:3"]
            assert stats["history"]["isRecorder"] is True
            assert [node["answered"] for node in stats["nodes"]] == [True, True]
        # Who is asked comes first.
        assert [stats["nodes"][0]["address"] for stats in found] == [f"127.0.0.1:{daemon.port}" for daemon in pair]
        ids = [stats["nodes"][0]["id"] for stats in found]
        assert [id.partition(":")[0] for id in ids] == ["one", "other"]
        nodes = nodes_of(one)
        assert {
            name: (node["clients"], node["channels"], node["state"], node["why"]) for name, node in nodes.items()
        } == {
            "one": (1, 2, "serving", None),
            "other": (2, 2, "serving", None),
        }
        assert [nodes["one"]["isRecorder"], nodes["other"]["isRecorder"]].count(True) == 1
        for daemon in pair:
            alone = look(daemon, "stats", f"node={ids[1]}")
            assert (alone["websocket"]["totalConnections"], alone["sse"]["totalConnections"]) == (1, 1)
            assert sorted(alone["channels"]["channels"]) == ["note:2", "note:3"]
            assert [node["id"] for node in alone["nodes"]] == [ids[1]]
        assert len(look(one, "stats", "clients=1")["websocket"]["clients"]) == 1
    status, refusal = look(one, "stats", "node=nobody:1")
    assert (status, refusal["detail"]) == (404, "there is no node nobody:1")
    assert refusal["hint"] == "Ask for one of: " + ", ".join(sorted(ids))


def test_the_clients_of_both_sorted_and_filtered(pair: Pair, shared_redis: RedisServer) -> None:
    one, other = pair
    ann, bob = (bearer(token(name, subscribe=["note:*"])) for name in ("ann", "bob"))
    with (
        talking(one.ws_url, additional_headers=ann) as first,
        talking(other.ws_url, additional_headers=ann) as second,
        streaming(f"{other.url}/api/stream?channel=note:3&channel=note:4", bob) as stream,
    ):
        events = stream.iter_sse()
        next(events)
        first.subscribe("note:1")
        second.subscribe("note:2")
        shared_redis.publish("note:3", EVENT, EVENT)
        shared_redis.publish("note:2", EVENT)
        second.hear("note")
        next(events), next(events)
        for daemon in pair:
            listed = look(daemon, "clients", "sort=events")
            assert (listed["total"], [client["eventCount"] for client in listed["clients"]]) == (3, [2, 1, 0])
            assert [client["node"].partition(":")[0] for client in listed["clients"]] == ["other", "other", "one"]
            slow = listed["clients"][0]
            assert (slow["transport"], slow["userId"], slow["queuedBytes"], slow["backlogBytes"]) == (
                "sse",
                "bob",
                0,
                0,
            )
            assert (slow["channelCount"], slow["subscribedChannels"]) == (2, ["note:3", "note:4"])
            newest = look(daemon, "clients", "sort=connected&limit=2")
            assert (newest["total"], [client["userId"] for client in newest["clients"]]) == (3, ["bob", "ann"])
            assert look(daemon, "clients", "user=ann")["total"] == 2
            (found,) = look(daemon, "clients", "channel=note:1")["clients"]
            assert found["id"] == first.told[0]["clientId"]
            assert look(daemon, "clients", f"node={slow['node']}")["total"] == 2
            assert set(slow) == {
                *("id", "node", "transport", "userId", "connectedAt", "eventCount", "lastEventTime", "queuedBytes"),
                *("backlogBytes", "channelCount", "subscribedChannels", "isAlive"),
            }


def test_the_channels_of_both(pair: Pair, shared_redis: RedisServer) -> None:
    one, other = pair
    ann = bearer(token("ann", subscribe=["note:*"]))
    with (
        talking(one.ws_url, additional_headers=ann) as first,
        talking(other.ws_url, additional_headers=ann) as second,
    ):
        for name in ("note:1", "note:2", "note:30"):
            first.subscribe(name)
        second.subscribe("note:30")
        shared_redis.publish("note:30", *[EVENT] * 20)
        shared_redis.publish("note:2", EVENT)
        for _ in range(20):
            second.hear("note")
        for _ in range(21):
            first.hear("note")
        for daemon in pair:
            listed = look(daemon, "channels")
            rates = [channel.pop("rate") for channel in listed["channels"]]
            assert rates[0] >= 20 / 12
            assert rates == sorted(rates, reverse=True)
            assert (listed["total"], listed["channels"]) == (
                3,
                [
                    {"name": "note:30", "subscribers": 2, "messages": 20},
                    {"name": "note:2", "subscribers": 1, "messages": 1},
                    {"name": "note:1", "subscribers": 1, "messages": 0},
                ],
            )

            def names(query: str, daemon: DaemonProcess = daemon) -> Any:
                return [channel["name"] for channel in look(daemon, "channels", query)["channels"]]

            assert names("sort=subscribers") == ["note:30", "note:1", "note:2"]
            assert names("sort=name&limit=2") == ["note:1", "note:2"]
            assert names("prefix=note:3") == ["note:30"]


@pytest.mark.parametrize(
    ("what", "query", "detail"),
    [
        ("stats", "clients=x", "clients must be a whole number"),
        ("clients", "sort=name", "sort must be one of queued, events, connected"),
        ("clients", "limit=0", "limit must be a whole number"),
        ("channels", "limit=1001", "limit must be a whole number"),
        ("channels", "sort=queued", "sort must be one of rate, subscribers, name"),
    ],
)
def test_what_cannot_be_asked(pair: Pair, what: str, query: str, detail: str) -> None:
    status, refusal = look(pair[0], what, query)
    assert (status, refusal["detail"]) == (400, detail)


def test_of_twenty_at_once_at_both_as_many_get_in_as_may(pair: Pair) -> None:
    text = token("ann", subscribe=["note:*"])
    before = look(pair[0], "stats")["limits"]
    with crowd(pair, 10, text) as inside:
        assert len(inside) == 3
        assert look(pair[0], "stats")["websocket"]["totalConnections"] == 3
    wait_until(lambda: look(pair[0], "stats")["websocket"]["totalConnections"] == 0)
    time.sleep(0.15)
    with crowd(pair, 10, text, "/api/stream?channel=note:1") as inside:
        assert len(inside) == 2
    after = look(pair[0], "stats")["limits"]
    # Which of the two limits a stream is told depends on who was asked for at the same moment.
    names = ("connections_per_user", "streams_per_user")
    assert sum(after[name] - before[name] for name in names) == 17 + 18


def test_who_left_makes_room_elsewhere(pair: Pair) -> None:
    one, other = pair
    text = token("ann", subscribe=["note:*"])
    with crowd([one], 3, text) as inside, talking(other.ws_url) as late:
        assert len(inside) == 3
        late.say("authenticate", token=text)
        assert late.ending() == 4429
        inside[0].close()
        left_at = time.monotonic()

        def is_let_in() -> bool:
            with crowd([other], 1, text) as found:
                return bool(found)

        wait_until(is_let_in)
        assert time.monotonic() - left_at < 1.0
        # It has gone again, and so there is room for one that brings its token later.
        time.sleep(0.2)
        with talking(other.ws_url) as talker:
            assert talker.ask("authenticate", "authenticated", token=text)["type"] == "authenticated"
            with crowd(pair, 2, text) as found:
                assert found == []
