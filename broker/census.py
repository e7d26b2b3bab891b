"""The census: what `/api/realtime/stats` shows, drawn from the statistics of the parts.

No IP address and no token is ever in it. Source: the wire contract, "Base: HTTP".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define

from broker.client import ClientStatistics
from broker.clientele import Clientele
from broker.hub import Hub, Outage
from broker.timestamp import timestamp


@define(eq=False)
class Census:
    """Counts who is here. Costs nothing until it is asked.

    Args:
        others: what other parts count, by the name under which it is shown.
    """

    _hub: Hub
    _clientele: Clientele
    _others: Mapping[str, Callable[[], Mapping[str, Any]]]

    def stats(self, clients_listed: int, channels_listed: int | None = None) -> Mapping[str, Any]:
        """The body of the answer, listing at most `clients_listed` clients of each transport.

        Args:
            channels_listed: at most so many names of channels; None for all.
        """
        upstream = self._hub.upstream.statistics()
        hub = self._hub.statistics()
        clientele = self._clientele.statistics()
        sse = self._clientele.listed("sse", clients_listed)
        websocket = self._clientele.listed("websocket", clients_listed)
        return {
            "status": "healthy" if upstream.connected else "degraded",
            "timestamp": timestamp(time.time()),
            "sse": {
                "totalConnections": clientele.connected.get("sse", 0),
                "totalEvents": clientele.events.get("sse", 0),
                "clients": [_sse_client(client) for client in sse],
            },
            "websocket": {
                "totalConnections": clientele.connected.get("websocket", 0),
                "totalEvents": clientele.events.get("websocket", 0),
                "clients": [_websocket_client(client) for client in websocket],
            },
            "channels": {
                "isConnected": upstream.connected,
                "activeChannels": hub.channels,
                "totalSubscriptions": hub.subscriptions,
                "redisSubscriptions": upstream.redis_subscriptions,
                "channels": [] if channels_listed == 0 else self._hub.names()[:channels_listed],
            },
            "redis": {
                "messages": upstream.messages,
                "refusedMessages": upstream.refused,
                "refusedByType": upstream.refused_by_type,
                "outages": upstream.outages,
                "awaySince": _time(upstream.away_since),
                "lastOutage": _outage(upstream.last_outage),
            },
            "delivery": {
                "messages": hub.messages,
                "deliveries": hub.deliveries,
                "bytes": hub.bytes,
                "gaps": hub.gaps,
                "slow": {
                    "now": hub.late,
                    "fellBehind": hub.fell_behind,
                    "skipped": hub.skipped,
                    "dropped": hub.dropped,
                },
                "endings": clientele.endings,
            },
            **{name: statistics() for name, statistics in self._others.items()},
        }


def _sse_client(client: ClientStatistics) -> dict[str, Any]:
    return {
        "id": client.id,
        "userId": client.user_id,
        "connectedAt": timestamp(client.connected_at),
        "eventCount": client.events,
        "lastEventTime": _time(client.last_event_at),
    }


def _websocket_client(client: ClientStatistics) -> dict[str, Any]:
    return {
        "id": client.id,
        "userId": client.user_id,
        "connectedAt": timestamp(client.connected_at),
        "subscribedChannels": client.channels,
        "isAlive": client.alive,
    }


def _outage(outage: Outage | None) -> dict[str, str] | None:
    if outage is None:
        return None
    return {"begunAt": timestamp(outage.begun_at), "endedAt": timestamp(outage.ended_at)}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
