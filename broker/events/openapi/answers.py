"""The schemas of what is answered with JSON. Laws: fields may be added, so that none forbids more.

Source: `docs/protocol.md`, "HTTP"; `docs/nodes.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMAS = "#/components/schemas/"

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}
_STAMP = {"type": "string", "format": "date-time"}
_OBJECT = {"type": "object"}
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_NAMES = {"type": "array", "items": _TEXT}


def shape(description: str = "", **fields: Any) -> dict[str, Any]:
    """An object with these fields, all there."""
    document: dict[str, Any] = {"type": "object", "properties": fields, "required": list(fields)}
    return {**document, "description": description} if description else document


def or_none(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _list(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


_CLIENT = shape(
    id=_TEXT,
    node=_TEXT,
    transport={"enum": ["sse", "websocket"]},
    userId=or_none(_TEXT),
    connectedAt=_STAMP,
    eventCount=_COUNT,
    lastEventTime=or_none(_STAMP),
    queuedBytes=_COUNT,
    backlogBytes=_COUNT,
    channelCount=_COUNT,
    subscribedChannels=_NAMES,
    isAlive=_FLAG,
)
_NODES = _list({"$ref": f"{SCHEMAS}Node"})
_TRANSPORT = shape(totalConnections=_COUNT, totalEvents=_COUNT, clients=_list(_OBJECT))

ANSWERS: Mapping[str, Any] = {
    "Refusal": shape("Every error.", error=_TEXT, detail=_TEXT, hint=_TEXT),
    "Health": shape("The process is alive.", status={"const": "healthy"}, timestamp=_STAMP, version=_TEXT),
    "Alive": shape("The event loop answers.", status={"const": "alive"}, timestamp=_STAMP),
    "Ready": shape("Whether it should get clients.", status={"const": "ready"}, redis=_TEXT, timestamp=_STAMP),
    "NotReady": shape(
        "Why it should get no clients.", status={"const": "not ready"}, reasons=_NAMES, redis=_TEXT, timestamp=_STAMP
    ),
    "Node": shape(
        "One daemon, as it says of itself.",
        id=_TEXT,
        version=_TEXT,
        startedAt=_STAMP,
        address=_TEXT,
        clients=_COUNT,
        channels=_COUNT,
        state={"enum": ["starting", "serving", "stopping"]},
        isRecorder=_FLAG,
        answered=_FLAG,
        why=or_none(_TEXT),
    ),
    "Stats": shape(
        "The figures of all daemons at this Redis, or of one. docs/protocol.md names every field.",
        status={"enum": ["healthy", "degraded"]},
        timestamp=_STAMP,
        sse=_TRANSPORT,
        websocket=_TRANSPORT,
        channels=shape(
            isConnected=_FLAG,
            activeChannels=_COUNT,
            totalSubscriptions=_COUNT,
            redisSubscriptions=_COUNT,
            channels=_NAMES,
        ),
        redis=shape(messages=_COUNT, refusedMessages=_COUNTS, refusedByType=_OBJECT, outages=_COUNT),
        delivery=shape(messages=_COUNT, deliveries=_COUNT, bytes=_COUNT, gaps=_COUNTS, slow=_OBJECT, endings=_COUNTS),
        history=_OBJECT,
        publishing=shape(requests=_COUNT, events=_COUNT, repeated=_COUNT, refused=_COUNTS),
        auth=shape(isOn=_FLAG, refused=_COUNTS, revoked=_COUNTS, keys=_OBJECT),
        limits=_COUNTS,
        control=_COUNTS,
        evaluations=shape(started=_COUNTS, refusedPending=_COUNTS),
        connections=shape(open=_COUNT, max=_COUNT, accepted=_COUNT, refusedByLimit=_COUNTS, failed=_COUNT),
        outboxes=_COUNTS,
        nodes=_NODES,
    ),
    "Clients": shape("The first clients.", timestamp=_STAMP, total=_COUNT, clients=_list(_CLIENT), nodes=_NODES),
    "Channels": shape(
        "The first channels.",
        timestamp=_STAMP,
        total=_COUNT,
        channels=_list(shape(name=_TEXT, subscribers=_COUNT, messages=_COUNT, rate=_NUMBER)),
        nodes=_NODES,
    ),
    "Explanation": shape(
        "Whether who asks may, and which rule says so.",
        allowed=_FLAG,
        action={"enum": ["subscribe", "publish"]},
        channel=_TEXT,
        rule=_TEXT,
        why=_TEXT,
        owner=or_none(_TEXT),
        identity=shape(kind=_TEXT, name=or_none(_TEXT), userId=or_none(_TEXT), expiresAt=or_none(_STAMP)),
    ),
    "Told": shape("How many daemons were told.", daemons=_COUNT),
    "Facts": shape(
        "What this daemon is, for the console.",
        version=_TEXT,
        dev=_FLAG,
        demoChannels=_NAMES,
        auth={"enum": ["on", "off"]},
        events=_OBJECT,
    ),
}
"""By name."""
