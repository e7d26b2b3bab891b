"""The messages that are no events of the registry: what clients send, and answers that are not published.

Laws: each schema takes what the daemon takes. Source: the wire contract, "Channels", "Base: WebSocket",
"Base: SSE", "Base: HTTP"; `docs/protocol.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

_SCHEMAS = "#/components/schemas/"
_PART = "[A-Za-z0-9_.@=+~-]{1,128}"
_CHANNEL = {"$ref": f"{_SCHEMAS}Channel"}
_STAMP = {"type": "string", "format": "date-time"}
_TEXT = {"type": "string"}


@frozen
class PlainMessage:
    """One message: what it is called on the wire, its schema, its bindings."""

    name: str
    schema: Mapping[str, Any]
    bindings: Mapping[str, Any] | None = None


def _object(description: str, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "description": description, "properties": properties, "required": list(required)}


def _command(type: str, description: str, fields: Mapping[str, Any]) -> PlainMessage:
    return PlainMessage(type, _object(description, {"type": {"const": type}, **fields}))


_EVENT = {"type": "object", "description": "The event; it is published as it was sent."}
_NONE = {"type": "null", "description": "Not both: an event goes to a channel or to a user."}
_ITEM = {
    "description": "One event and where it goes.",
    "oneOf": [
        _object("To a channel.", {"channel": _CHANNEL, "event": _EVENT}, {"user": _NONE}),
        _object(
            "To every connection that a user has now, subscribed or not. It is not kept.",
            {
                "user": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 256,
                    "not": {"pattern": "[\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]"},
                    "description": "The user, as in the `sub` of its token.",
                },
                "event": _EVENT,
            },
            {"channel": _NONE},
        ),
    ],
}

SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "ChannelName": {
        "type": "string",
        "pattern": f"^{_PART}(:{_PART}){{0,2}}$",
        "description": "type, type:id or type:id:userId.",
    },
    "Channel": {
        "description": "A channel: its name, or its parts.",
        "oneOf": [
            {"$ref": f"{_SCHEMAS}ChannelName"},
            _object(
                "The parts of a channel's name.",
                {"type": {"type": "string", "pattern": f"^{_PART}$"}},
                {name: {"type": ["string", "null"], "pattern": f"^{_PART}$"} for name in ("id", "userId")},
            ),
        ],
    },
    "SubmissionItem": _ITEM,
}
"""Schemas that the messages share."""

MESSAGES: Mapping[str, PlainMessage] = {
    "Subscribe": _command("subscribe", "Have the events of a channel sent.", {"channel": _CHANNEL}),
    "Unsubscribe": _command(
        "unsubscribe",
        "End a subscription. A channel of a type alone ends every subscription of that type.",
        {"channel": _CHANNEL},
    ),
    "Authenticate": _command(
        "authenticate",
        "Say who the client is, or renew a token that will be over soon.",
        {"token": {**_TEXT, "minLength": 1, "description": "A token (JWT)."}},
    ),
    "Publish": _command(
        "publish", "Publish an event to a channel, where a rule allows it.", {"channel": _CHANNEL, "event": _EVENT}
    ),
    "Ping": _command("ping", "Ask whether the daemon is there.", {}),
    "Pong": _command("pong", "The answer to `ping`.", {"timestamp": _STAMP}),
    "ServerShutdown": _command(
        "server_shutdown",
        "The last event of a stream when the daemon stops; a `retry` line before it says when to come back.",
        {"message": _TEXT, "timestamp": _STAMP},
    ),
    "EvaluationConnected": PlainMessage(
        "connected",
        {
            "description": "The first event of an evaluation's stream.",
            "allOf": [
                {"$ref": f"{_SCHEMAS}Connected"},
                {
                    "type": "object",
                    "properties": {"evaluationId": {**_TEXT, "description": "By it others may watch."}},
                    "required": ["evaluationId"],
                },
            ],
        },
    ),
    "Submission": PlainMessage(
        "submission",
        {
            "description": "One event, or a list of them; at most publish.events_max (1000).",
            "oneOf": [
                {"$ref": f"{_SCHEMAS}SubmissionItem"},
                {"type": "array", "items": {"$ref": f"{_SCHEMAS}SubmissionItem"}, "minItems": 1},
            ],
        },
        {
            "http": {
                "headers": {
                    "type": "object",
                    "properties": {
                        "Idempotency-Key": {
                            "type": "string",
                            "pattern": "^[!-~]{1,255}$",
                            "description": "A repeat with the same key publishes nothing again.",
                        }
                    },
                },
                "bindingVersion": "0.3.0",
            }
        },
    ),
    "SubmissionTaken": PlainMessage(
        "submission_taken",
        _object("How many events Redis took.", {"published": {"type": "integer", "minimum": 0}}),
        {"http": {"statusCode": 200, "bindingVersion": "0.3.0"}},
    ),
    # Of several statuses, 400 to 503: so none is named.
    "Refusal": PlainMessage(
        "refusal",
        _object(
            "Nothing was published; or, with 502 and 503, what `detail` says.",
            {"error": _TEXT, "detail": _TEXT, "hint": _TEXT},
        ),
    ),
}
"""By the name of their schema."""
