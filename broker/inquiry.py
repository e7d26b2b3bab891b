"""An inquiry: what an HTTP request asks to have evaluated, or which evaluation it wants to watch.

    GET  /api/stream/council-score?videoUrl=&transcript=&features=<json>
    GET  /api/stream/evaluate-creative?creativeId=&content=&type=
    POST to both, with the same parameters as a JSON object
    GET  either, /<id>: watch an evaluation from its beginning
    GET  with Last-Event-ID `<id>:<offset>`: go on behind that event

Synchronous; no I/O. Source: the wire contract, "Base: SSE".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import frozen

from broker.request import RequestRefused

COUNCIL_SCORE = "council_score"
CREATIVE_EVALUATION = "creative_evaluation"
KINDS = (COUNCIL_SCORE, CREATIVE_EVALUATION)
PATHS = {"/api/stream/council-score": COUNCIL_SCORE, "/api/stream/evaluate-creative": CREATIVE_EVALUATION}

_REQUIRED = {COUNCIL_SCORE: ("videoUrl", "transcript"), CREATIVE_EVALUATION: ("creativeId", "content")}
_CREATIVE_TYPES = ("creative", "technical", "performance")
_ID = re.compile(r"[0-9a-f]{32}")
_EVENT_ID = re.compile(rf"({_ID.pattern}):([0-9]{{1,15}})")
_SHOWN_CHARACTERS = 80
_USER_ID_CHARACTERS = 1024


class InquiryRefused(Exception):
    """Parameters that cannot be evaluated. `str()` says which, and what to send."""


@frozen
class Inquiry:
    """A new evaluation. `parameters` are checked, named as on the wire."""

    kind: str
    parameters: Mapping[str, Any]
    user_id: str | None


@frozen
class Watch:
    """An evaluation that was asked for before, behind `offset`. `resumed`: by a reconnect."""

    kind: str
    id: str
    offset: int
    resumed: bool


def watch_of(path: str, last_event_id: str | None) -> Watch | None:
    """The evaluation that a request names by its path or its Last-Event-ID; None where it asks for a new one.

    Raises:
        RequestRefused: an id that is none, or a path that is not served.
    """
    kind, rest = _endpoint(path)
    named = _EVENT_ID.fullmatch(last_event_id) if last_event_id else None
    if last_event_id and not named:
        raise RequestRefused(
            400, f"Last-Event-ID {_shown(last_event_id)} is none of this endpoint's", "Leave it out to start anew."
        )
    if rest and not _ID.fullmatch(rest):
        raise RequestRefused(404, f"{_shown(rest)} is no evaluation's id", "Use the evaluationId of `connected`.")
    if named and rest and named[1] != rest:
        raise RequestRefused(400, "Last-Event-ID is of another evaluation", "Leave it out to watch from the beginning.")
    if named:
        return Watch(kind, named[1], int(named[2]), True)
    return Watch(kind, rest, 0, False) if rest else None


def inquiry_from_query(path: str, query: Sequence[tuple[str, str]]) -> Inquiry:
    """A new evaluation by GET.

    Raises:
        InquiryRefused: parameters that are missing or wrong.
    """
    kind, _ = _endpoint(path)
    given: dict[str, Any] = dict(query)
    user_id = given.pop("userId", None)
    features = given.get("features")
    if features == "":
        del given["features"]
    elif features is not None:
        try:
            given["features"] = msgspec.json.decode(features)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise InquiryRefused(f"features is not JSON: {error}") from None
    return Inquiry(kind, _checked(kind, given), _checked_user(user_id))


def inquiry_from_body(path: str, body: bytes) -> Inquiry:
    """A new evaluation by POST.

    Raises:
        InquiryRefused: not a JSON object, or parameters that are missing or wrong.
    """
    kind, _ = _endpoint(path)
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InquiryRefused(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise InquiryRefused("the body is not a JSON object")
    user_id = given.pop("userId", None)
    return Inquiry(kind, _checked(kind, given), _checked_user(user_id))


def example_of(path: str) -> str:
    """A body that the endpoint takes."""
    kind, _ = _endpoint(path)
    return "a JSON object such as {" + ", ".join(f'"{name}": "..."' for name in _REQUIRED[kind]) + "}"


def _endpoint(path: str) -> tuple[str, str]:
    for prefix, kind in PATHS.items():
        if path == prefix:
            return kind, ""
        if path.startswith(prefix + "/"):
            return kind, path[len(prefix) + 1 :]
    raise RequestRefused(404, f"no stream at {_shown(path)}", "Evaluations: " + ", ".join(PATHS) + ".")


def _checked(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters that the kind knows; others are left out."""
    required = _REQUIRED[kind]
    missing = [name for name in required if given.get(name) in (None, "")]
    if missing:
        raise InquiryRefused("Missing required parameters: " + ", ".join(missing))
    parameters: dict[str, Any] = {}
    for name in required:
        if not isinstance(given[name], str):
            raise InquiryRefused(f"{name} is not a string")
        parameters[name] = given[name]
    if kind == COUNCIL_SCORE:
        features = given.get("features")
        if features is not None:
            if not isinstance(features, dict):
                raise InquiryRefused("features is not a JSON object")
            parameters["features"] = features
    else:
        type = "creative" if given.get("type") in (None, "") else given["type"]
        if type not in _CREATIVE_TYPES:
            raise InquiryRefused(f"type {_shown(type)} is none of {', '.join(_CREATIVE_TYPES)}")
        parameters["type"] = type
    return parameters


def _checked_user(user_id: object) -> str | None:
    if user_id is not None and not isinstance(user_id, str):
        raise InquiryRefused("userId is not a string")
    # It is kept for as long as the client stays, and shown in the stats; in a URL the head's limit bounds it.
    if user_id is not None and len(user_id) > _USER_ID_CHARACTERS:
        raise InquiryRefused(f"userId has {len(user_id)} characters; at most {_USER_ID_CHARACTERS}")
    return user_id or None


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else type(value).__name__
    return ascii(text[:_SHOWN_CHARACTERS])
