"""What the stats show, whole, from parts that say what the test wants."""

from __future__ import annotations

import re
from typing import Any

from attrs import define, evolve

from broker.census import Census
from broker.client import ClientStatistics
from broker.clientele import Clientele, ClienteleStatistics
from broker.hub import HubStatistics, Outage, UpstreamStatistics
from tests.rules.test_hub import hub_on

SSE = ClientStatistics("sse_1", "u1", 1_700_000_000.0, 7, 1_700_000_001.25, 0, ("a:1",), True)
WEBSOCKET = ClientStatistics("ws_1", None, 1_700_000_000.0, 0, None, 0, ("a:1", "b"), False)
UPSTREAM = UpstreamStatistics(
    True, 2, 10, {"not_json": 1}, 1, Outage(1_700_000_000.0, 1_700_000_002.5), None, {"a": {"not_json": 1}}
)


@define(eq=False)
class FakeParts:
    """Hub, upstream and clientele in one."""

    told: UpstreamStatistics = UPSTREAM

    @property
    def upstream(self) -> Any:
        return _Upstream(self.told)

    def statistics(self) -> HubStatistics:
        return HubStatistics(2, 3, 1, 9, 12, 345, {"trimmed": 2}, {"catch_up": 3}, 4, 5)

    def names(self) -> list[str]:
        return ["a:1", "b"]


@define(eq=False)
class _Upstream:
    told: UpstreamStatistics

    def statistics(self) -> UpstreamStatistics:
        return self.told


@define(eq=False)
class FakeClientele:
    asked: list[tuple[str, int]]

    def statistics(self) -> ClienteleStatistics:
        return ClienteleStatistics({"sse": 1, "websocket": 2}, {"sse": 7}, {"left": 4}, {})

    def listed(self, transport: str, most: int) -> list[ClientStatistics]:
        self.asked.append((transport, most))
        return [SSE] if transport == "sse" else [WEBSOCKET]


def stats(told: UpstreamStatistics = UPSTREAM) -> dict[str, Any]:
    clientele: Any = FakeClientele([])
    hub: Any = FakeParts(told)
    found = dict(
        Census(hub, clientele, {"publishing": lambda: {"requests": 2}, "connections": lambda: {"open": 5}}).stats(42)
    )
    assert clientele.asked == [("sse", 42), ("websocket", 42)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("timestamp"))
    return found


def test_the_whole_of_it() -> None:
    assert stats() == {
        "status": "healthy",
        "sse": {
            "totalConnections": 1,
            "totalEvents": 7,
            "clients": [
                {
                    "id": "sse_1",
                    "userId": "u1",
                    "connectedAt": "2023-11-14T22:13:20.000Z",
                    "eventCount": 7,
                    "lastEventTime": "2023-11-14T22:13:21.250Z",
                }
            ],
        },
        "websocket": {
            "totalConnections": 2,
            "totalEvents": 0,
            "clients": [
                {
                    "id": "ws_1",
                    "userId": None,
                    "connectedAt": "2023-11-14T22:13:20.000Z",
                    "subscribedChannels": ("a:1", "b"),
                    "isAlive": False,
                }
            ],
        },
        "channels": {
            "isConnected": True,
            "activeChannels": 2,
            "totalSubscriptions": 3,
            "redisSubscriptions": 2,
            "channels": ["a:1", "b"],
        },
        "redis": {
            "messages": 10,
            "refusedMessages": {"not_json": 1},
            "refusedByType": {"a": {"not_json": 1}},
            "outages": 1,
            "awaySince": None,
            "lastOutage": {"begunAt": "2023-11-14T22:13:20.000Z", "endedAt": "2023-11-14T22:13:22.500Z"},
        },
        "delivery": {
            "messages": 9,
            "deliveries": 12,
            "bytes": 345,
            "gaps": {"trimmed": 2},
            "slow": {"now": 1, "fellBehind": {"catch_up": 3}, "skipped": 4, "dropped": 5},
            "endings": {"left": 4},
        },
        "publishing": {"requests": 2},
        "connections": {"open": 5},
    }


def test_without_redis_it_is_degraded_since_a_time() -> None:
    found = stats(evolve(UPSTREAM, connected=False, away_since=1_700_000_000.0, last_outage=None))
    assert (found["status"], found["channels"]["isConnected"]) == ("degraded", False)
    assert found["redis"]["awaySince"] == "2023-11-14T22:13:20.000Z"
    assert found["redis"]["lastOutage"] is None


def test_an_empty_house() -> None:
    hub: Any = hub_on(_Upstream(UPSTREAM))
    found = Census(hub, Clientele(), {}).stats(100)
    assert (found["sse"]["clients"], found["websocket"]["totalConnections"]) == ([], 0)
    assert found["delivery"]["endings"] == {}
