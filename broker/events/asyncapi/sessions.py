"""What a client and the daemon say to each other, besides events: over WebSocket, and on event streams.

Each path of an event stream is a channel of its own. Source: the wire contract, "Base: WebSocket",
"Base: SSE", "Evaluations".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from broker.events.ai import AiEvaluationStream, CouncilScoreStream
from broker.events.asyncapi.channel import PART, ChannelObject, OperationObject, http_operation
from broker.events.campaign import AbTestResult, CampaignMetrics
from broker.events.event import Event
from broker.events.render import VideoRenderProgress
from broker.events.rules import fields_of

ROOT = "/api/stream"

_TEXT = {"type": "string", "minLength": 1}
_USER_ID = {"userId": {"type": "string", "description": "Who asks; the daemon's stats show it."}}
_LAST = ("Error", "TokenExpired", "ServerShutdown")
_GREETED = ("Connected", "Gap", *_LAST)
_EVALUATED = ("EvaluationRestarted", "Complete", *_LAST)


def websocket_session() -> ChannelObject:
    """The WebSocket itself. Any number of subscriptions are on one."""
    answers = ("Subscribed", "Unsubscribed", "Authenticated", "Published", "Pong")
    said = ("Connected", *answers, "Gap", "Heartbeat", "Error", "Disconnected")
    return ChannelObject(
        "session_websocket",
        "/ws",
        ("websocket",),
        (
            OperationObject("send_subscribe", "send", ("Subscribe",), ("Subscribed", "Error")),
            OperationObject("send_unsubscribe", "send", ("Unsubscribe",), ("Unsubscribed", "Error")),
            OperationObject("send_authenticate", "send", ("Authenticate",), ("Authenticated", "Error")),
            OperationObject("send_publish", "send", ("Publish",), ("Published", "Error")),
            OperationObject("send_ping", "send", ("Ping",), ("Pong",)),
            OperationObject("receive_session_websocket", "receive", said),
        ),
        "One connection: text messages, one JSON object each. The events of the channels that were subscribed to "
        "come over it too, without an envelope.",
        bindings={
            "ws": {
                "method": "GET",
                "query": {"type": "object", "properties": dict(_USER_ID)},
                "bindingVersion": "0.1.0",
            }
        },
    )


def event_streams() -> list[ChannelObject]:
    """Every path that answers with Server-Sent Events."""
    names = {"type": "array", "items": {"$ref": "#/components/schemas/ChannelName"}, "minItems": 1}
    return [
        _stream(
            "session_sse",
            "",
            (*_GREETED, "Complete"),
            "Any channels, `channel` once for each; their events come without an `event` line. `gap`, `error`, "
            "`token_expired` and `complete` are named so in their `event` line; `complete` comes on the paths whose "
            "stream has an end.",
            {
                "channel": {
                    **names,
                    "description": "A channel's name; repeated for more, at most sse.channels_max (32).",
                }
            },
            ("channel",),
        ),
        _one_channel("render-progress", VideoRenderProgress, ends=True),
        _one_channel("campaign-metrics", CampaignMetrics),
        _one_channel("ab-test-results", AbTestResult),
        *_evaluation(
            "council-score",
            CouncilScoreStream,
            {
                "videoUrl": {**_TEXT, "description": "Where the video is."},
                "transcript": {**_TEXT, "description": "What is said in it."},
                "features": {"type": "string", "description": "A JSON object with what else is known of it."},
            },
            ("videoUrl", "transcript"),
        ),
        *_evaluation(
            "evaluate-creative",
            AiEvaluationStream,
            {
                "creativeId": {**_TEXT, "description": "The caller's own name of the creative."},
                "content": {**_TEXT, "description": "The text to evaluate."},
                "type": {"enum": evaluation_types(), "default": "creative", "description": "What to look at."},
            },
            ("creativeId", "content"),
        ),
    ]


def _one_channel(endpoint: str, event_type: type[Event], *, ends: bool = False) -> ChannelObject:
    (wire,) = (field.wire for field in fields_of(event_type) if field.attribute == event_type.channel_id)
    end = " It ends with `complete` behind an event whose stage is `complete`; whoever comes again is answered 204."
    return _stream(
        f"stream_{endpoint.replace('-', '_')}",
        f"/{endpoint}/{{{wire}}}",
        (*_GREETED, event_type.__name__, *(("Complete",) if ends else ())),
        f"The channel {event_type.channel_type}:{{{wire}}}.{end if ends else ''}",
        parameters={wire: {"description": f"{wire} of the events: {PART}."}},
    )


def _evaluation(
    endpoint: str, step: type[Event], query: Mapping[str, Any], required: Sequence[str]
) -> tuple[ChannelObject, ChannelObject]:
    """The path that starts an evaluation, and the one that watches it."""
    name = f"stream_{endpoint.replace('-', '_')}"
    said = ("EvaluationConnected", step.__name__, *_EVALUATED)
    last = {"type": "string", "description": "<evaluationId>:<offset>, the last event that the client has."}
    start = _stream(
        name,
        f"/{endpoint}",
        said,
        "Starts an evaluation and streams its answer, which ends with `complete` or `error`. POST does the same, "
        "with the parameters as a JSON object. An EventSource that reconnects goes on where it was.",
        query,
        required,
    )
    watch = _stream(
        f"{name}_evaluationId",
        f"/{endpoint}/{{evaluationId}}",
        said,
        "Watches an evaluation that was started, from its beginning or behind an event.",
        {"lastEventId": last},
        parameters={"evaluationId": {"description": "The evaluationId of `connected`."}},
    )
    return start, watch


def _stream(
    name: str,
    path: str,
    said: Sequence[str],
    description: str,
    query: Mapping[str, Any] | None = None,
    required: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> ChannelObject:
    bindings = http_operation("GET", {**(query or {}), **_USER_ID}, required)
    operation = OperationObject(f"receive_{name}", "receive", said, bindings=bindings)
    return ChannelObject(name, ROOT + path, ("sse",), (operation,), description, parameters or {})


def evaluation_types() -> list[str]:
    (hint,) = (field.hint for field in fields_of(AiEvaluationStream) if field.attribute == "evaluation_type")
    return list(get_args(hint))
