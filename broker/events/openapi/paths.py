"""Every path of the daemon, and the operations on it. A test holds that no route is missing.

Source: `docs/protocol.md`; `docs/metrics.md`; `docs/nodes.md`; `docs/security.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from broker.events.asyncapi.sessions import evaluation_types
from broker.events.openapi.answers import SCHEMAS, shape
from broker.events.openapi.operation import EVENT_STREAM, JSON, Answer, Operation, in_header, in_path, in_query

_TEXT = {"type": "string"}
_LISTED = {"type": "integer", "minimum": 0, "maximum": 10_000}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
_PART = {"type": "string", "pattern": "^[A-Za-z0-9_.@=+~-]{1,128}$"}
_USER = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "not": {"pattern": "[\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]"},
}


def _last_id(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return (
        in_header("Last-Event-ID", schema, "What EventSource sends as it comes back: the id that it had last."),
        in_query("lastEventId", schema, "The same, for who can set no header. Not read where the header is there."),
    )


_NODE = in_query("node", _TEXT, "The id of one daemon; without, all at this Redis.")
_USER_ID = in_query("userId", _TEXT, "Who asks, where authentication is off; with a token, the token's own.")
_STREAM_EVENT = shape("One event of the stream; the AsyncAPI document has what is in `data`.", data=_TEXT)
_STREAM_EVENT["properties"] |= {
    "id": _TEXT,
    "event": {"enum": ["message", "gap", "error", "complete", "token_expired", "revoked", "disconnected"]},
    "retry": {"type": "integer"},
}
_STREAM = Answer("Events, to the end of the stream or of the connection.", {EVENT_STREAM: _STREAM_EVENT})
_OVER = Answer("The stream is over for this client: it is not to come back.")
_LAST_OF_EVALUATION = {"type": "string", "pattern": "^([0-9a-f]{32}:[0-9]{1,15})?$"}
_EVALUATION = in_path("evaluationId", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "From its `connected`.")


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"{SCHEMAS}{name}"}


def _json(name: str, description: str, headers: Mapping[str, Any] | None = None) -> Answer:
    return Answer(description, {JSON: _ref(name)}, headers or {})


def paths() -> Mapping[str, Mapping[str, Operation]]:
    """The operations by path and method."""
    return {**_PROBES, **_PUBLISHING, **_ADMINISTRATION, **_streams(), **_PAGES}


_PROBES: Mapping[str, Mapping[str, Operation]] = {
    "/health": {"get": Operation("Is the process alive?", {200: _json("Health", "It is.")})},
    "/livez": {"get": Operation("Does the event loop answer?", {200: _json("Alive", "It does.")})},
    "/readyz": {
        "get": Operation(
            "Should it get clients?",
            {
                200: _json("Ready", "It should."),
                503: Answer("Not now.", {JSON: {"anyOf": [_ref("NotReady"), _ref("Refusal")]}}),
            },
        )
    },
    "/metrics": {
        "get": Operation(
            "Figures for Prometheus. metrics.http says who may have them.",
            {200: Answer("The figures.", {"text/plain": _TEXT})},
            asks_who=True,
        )
    },
}

_PUBLISHING: Mapping[str, Mapping[str, Operation]] = {
    "/api/publish": {
        "post": Operation(
            "Publish an event, or a list of them, to channels and users.",
            {
                200: _json(
                    "SubmissionTaken",
                    "Redis took them.",
                    {"Idempotency-Replayed": {"schema": {"const": "true"}, "description": "It was done before."}},
                )
            },
            (422, 502),
            (
                in_header(
                    "Idempotency-Key",
                    {"type": "string", "pattern": "^[!-~]{1,255}$"},
                    "A repeat with the same key publishes nothing again.",
                ),
            ),
            _ref("Submission"),
            asks_who=True,
            tag="publishing",
        )
    }
}


def _named(seconds: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """An object that has one of these names, and perhaps `seconds`."""
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {name: schema, "seconds": seconds},
                "required": [name],
                "additionalProperties": False,
            }
            for name, schema in fields.items()
        ]
    }


_ADMINISTRATION: Mapping[str, Mapping[str, Operation]] = {
    "/api/realtime/stats": {
        "get": Operation(
            "The figures of all daemons, or of one.",
            {200: _json("Stats", "The figures.")},
            (404,),
            (
                in_query("clients", {**_LISTED, "default": 100}, "How many clients of each transport are listed."),
                in_query("channels", _LISTED, "How many names of channels are listed; all, if not given."),
                _NODE,
            ),
            asks_who=True,
            tag="administration",
        )
    },
    "/api/realtime/clients": {
        "get": Operation(
            "Who is connected.",
            {200: _json("Clients", "The first by `sort`.")},
            (404,),
            (
                in_query("sort", {"enum": ["queued", "events", "connected"], "default": "queued"}, "What comes first."),
                in_query("limit", _LIMIT, "How many."),
                in_query("user", _TEXT, "Only this user's."),
                in_query("channel", _TEXT, "Only those on this channel."),
                _NODE,
            ),
            asks_who=True,
            tag="administration",
        )
    },
    "/api/realtime/channels": {
        "get": Operation(
            "Which channels somebody follows.",
            {200: _json("Channels", "The first by `sort`.")},
            (404,),
            (
                in_query("sort", {"enum": ["rate", "subscribers", "name"], "default": "rate"}, "What comes first."),
                in_query("limit", _LIMIT, "How many."),
                in_query("prefix", _TEXT, "Only those whose name begins so."),
                _NODE,
            ),
            asks_who=True,
            tag="administration",
        )
    },
    "/api/realtime/explain": {
        "get": Operation(
            "May who asks subscribe, or publish, and why?",
            {200: _json("Explanation", "The rule that decides.")},
            (401,),
            (
                in_query("action", {"enum": ["subscribe", "publish"], "default": "subscribe"}, "What is to be done."),
                in_query("channel", _ref("ChannelName"), "On which channel.", required=True),
            ),
            tag="administration",
        )
    },
    "/api/realtime/disconnect": {
        "post": Operation(
            "End the connections of a user, of a channel, or one.",
            {200: _json("Told", "Redis took it.")},
            body=_named({"description": "Not looked at."}, user=_USER, client=_USER, channel=_ref("ChannelName")),
            asks_who=True,
            tag="administration",
        )
    },
    "/api/realtime/revoke": {
        "post": Operation(
            "Let a token, or all tokens of a user, count no longer.",
            {200: _json("Told", "Redis took it.")},
            body=_named({"type": ["number", "null"], "minimum": 1, "maximum": 366 * 86400}, user=_USER, tokenId=_USER),
            asks_who=True,
            tag="administration",
        )
    },
}


def _streams() -> Mapping[str, Mapping[str, Operation]]:
    names = {"type": "array", "items": _ref("ChannelName"), "minItems": 1, "maxItems": 32}
    since = {"type": "array", "items": _TEXT}
    found = {
        "/api/stream": _reading(
            "The events of channels.",
            in_query("channel", names, "A channel's name; repeated for more.", required=True),
            in_query("protocol", {"enum": ["broker.v1", ""]}, "broker.v1: each event in an envelope with its channel."),
            in_query("since", since, "<channel>,<position>: where the client was, for each channel."),
        ),
        "/api/stream/render-progress/{jobId}": _reading(
            "A render, to its end.", in_path("jobId", _PART, "The job."), is_finite=True
        ),
        "/api/stream/campaign-metrics/{campaignId}": _reading(
            "The figures of a campaign.", in_path("campaignId", _PART, "The campaign.")
        ),
        "/api/stream/ab-test-results/{testId}": _reading(
            "The results of a test.", in_path("testId", _PART, "The test.")
        ),
    }
    evaluations: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]] = {
        "council-score": (("videoUrl", "transcript"), {"features": {"type": ["object", "null"]}}),
        "evaluate-creative": (("creativeId", "content"), {"type": {"enum": [*evaluation_types(), "", None]}}),
    }
    for name, (required, more) in evaluations.items():
        found[f"/api/stream/{name}"] = _evaluating(name, required, more)
        found[f"/api/stream/{name}/{{evaluationId}}"] = _watching(name)
    return found


def _reading(summary: str, *parameters: Mapping[str, Any], is_finite: bool = False) -> Mapping[str, Operation]:
    answers = {200: _STREAM, 204: _OVER} if is_finite else {200: _STREAM}
    return {
        "get": Operation(
            summary, answers, (404,), (*parameters, _USER_ID, *_last_id(_TEXT)), asks_who=True, tag="streams"
        )
    }


def _evaluating(name: str, required: Sequence[str], more: Mapping[str, Any]) -> Mapping[str, Operation]:
    """A path that starts evaluations. `more`: the schemas of what need not be there."""
    answers, last = {200: _STREAM, 204: _OVER}, _last_id(_LAST_OF_EVALUATION)
    summary = f"Start an evaluation ({name}), and stream its answer."
    # What is wrong with these is an event, `error`: EventSource shows a page nothing else.
    query = [in_query(key, _TEXT, "Needed, and not empty.") for key in required]
    query += [in_query(key, _TEXT, f"As JSON: {json.dumps(schema)}") for key, schema in more.items()]
    text = {"type": "string", "minLength": 1}
    user = {"type": ["string", "null"], "maxLength": 1024}
    body = {
        "type": "object",
        "properties": {**dict.fromkeys(required, text), **more, "userId": user},
        "required": list(required),
    }
    return {
        "get": Operation(summary, answers, (404,), (*query, _USER_ID, *last), asks_who=True, tag="evaluations"),
        "post": Operation(summary, answers, (404,), (last[0],), body, asks_who=True, tag="evaluations"),
    }


def _watching(name: str) -> Mapping[str, Operation]:
    summary = f"Stream the answer of an evaluation ({name}) that was started, from its beginning or behind an event."
    answers, last = {200: _STREAM, 204: _OVER}, _last_id(_LAST_OF_EVALUATION)
    return {
        "get": Operation(summary, answers, (404,), (_EVALUATION, _USER_ID, *last), asks_who=True, tag="evaluations"),
        "post": Operation(summary, answers, (404,), (_EVALUATION, last[0]), asks_who=True, tag="evaluations"),
    }


def _file(summary: str, kinds: Sequence[str], *parameters: Mapping[str, Any]) -> Operation:
    etag = {"ETag": {"required": True, "schema": _TEXT}}
    answers = {200: Answer("The file.", dict.fromkeys(kinds, _TEXT), etag), 304: Answer("It is as the browser has it.")}
    asked = in_header("If-None-Match", _TEXT, "What the browser has.")
    return Operation(summary, answers, (404,), (*parameters, asked), tag="pages")


_PAGES: Mapping[str, Mapping[str, Operation]] = {
    "/": {"get": _file("The console.", ("text/html",))},
    "/console/{name}": {
        "get": _file(
            "A file of the console.",
            ("text/css", "text/javascript"),
            in_path("name", {**_TEXT, "examples": ["console.js"]}, "Its name."),
        )
    },
    "/console/facts.json": {
        "get": Operation(
            "What this daemon is, for the console.", {200: _json("Facts", "The facts.")}, (404,), tag="pages"
        )
    },
    "/client/{name}": {
        "get": _file(
            "A module of the client, or its declarations; the name may have slashes.",
            ("text/javascript", "text/plain"),
            in_path("name", {**_TEXT, "examples": ["index.js"]}, "Its name."),
        )
    },
    "/ws": {
        "get": Operation(
            "Begin a WebSocket; the AsyncAPI document says what is spoken over it.",
            {101: Answer("It is one.")},
            (401, 426),
            (_USER_ID,),
            tag="streams",
        )
    },
}
