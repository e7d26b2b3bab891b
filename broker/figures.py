"""The figures of the daemon's parts, as the stats show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from broker.clientele import Clientele
from broker.door import Door
from broker.ending import FRAME_TOO_BIG, OUTBOX_FULL, OUTBOX_TOTAL, TOO_MANY_COMMANDS
from broker.errorcode import TOO_MANY_SUBSCRIPTIONS
from broker.looplag import LoopLag
from broker.reception import Reception
from broker.seats import CONNECTIONS_PER_USER, STREAMS_PER_USER
from broker.timestamp import timestamp
from broker.tls import Certificate
from broker.turnstile import CONNECTIONS, CONNECTS
from broker.web.http2 import Http2
from broker.websocket import WebSocketDoor


def connections_of(door: Door, reception: Reception) -> dict[str, Any]:
    """The door's counts as the stats show them."""
    counts, received = door.statistics(), reception.statistics()
    return {
        "open": counts.connections,
        "max": door.max_connections,
        "accepted": counts.accepted,
        "refusedBusy": counts.refused_busy,
        "refusedByLimit": received.refused_by_limit,
        "refusedPages": received.refused_pages,
        "withoutProxyHeader": counts.without_proxy_header,
        "failed": counts.failed,
    }


def limits_of(door: Door, reception: Reception, clientele: Clientele, websockets: WebSocketDoor) -> Mapping[str, int]:
    """How often each limit was reached, by the name of its setting."""
    endings, statuses = clientele.endings, reception.statistics().refused_by_status
    return {
        "max_connections": door.statistics().refused_busy,
        **dict.fromkeys((CONNECTIONS, CONNECTS, CONNECTIONS_PER_USER, STREAMS_PER_USER), 0),
        **reception.statistics().refused_by_limit,
        **clientele.seats.limits_hit,
        "subscriptions_max": websockets.errors[TOO_MANY_SUBSCRIPTIONS],
        "commands_per_second": endings.get(TOO_MANY_COMMANDS.name, 0),
        "message_max_bytes": endings.get(FRAME_TOO_BIG.name, 0),
        "outbox_max_bytes": endings.get(OUTBOX_FULL.name, 0),
        "outbox_total_bytes": endings.get(OUTBOX_TOTAL.name, 0),
        "head_max_bytes": statuses.get("431", 0),
        "body_max_bytes": statuses.get("413", 0),
        "head_or_body_seconds": statuses.get("408", 0),
    }


def outboxes_of(clientele: Clientele) -> dict[str, int]:
    """What waits for all clients together, as the stats show it."""
    counts = clientele.pool.statistics()
    return {
        "queuedBytes": counts.queued_bytes,
        "peakBytes": counts.peak_bytes,
        "maxBytes": clientele.pool.max_bytes,
        "ended": counts.ended,
    }


def loop_of(lag: LoopLag) -> dict[str, float]:
    """How late the event loop is, now and at most in the last minute, as the stats show it."""
    most = lag.most_seconds(trio.current_time())
    return {"lagSeconds": round(lag.last_seconds, 6), "lagMaxSeconds": round(most, 6)}


def tls_of(certificate: Certificate, http2: Http2) -> dict[str, Any]:
    """The certificate in use, and HTTP/2, as the stats show them."""
    pair, counts = certificate.statistics(), http2.statistics()
    return {
        "certificateExpires": timestamp(pair.expires_at),
        "reloads": pair.reloads,
        "failedReloads": pair.failed_reloads,
        "http2Connections": counts.connections,
        "http2Streams": counts.streams,
        "http2StreamsServed": counts.streams_served,
        "http2EndedForFlood": counts.ended_for_flood,
    }
