"""One operation of the document: a method on a path, what it takes, and every answer that it may get.

Laws: what any request may be answered, as it is not read or not let in, is said of every operation; so a status that is
not in the document is not sent. The schema of every refusal is one.

Source: the OpenAPI specification 3.1.1, "Operation Object", "Responses Object"; `docs/endings.md`, "Refusals".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from attrs import field, frozen

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
# A head or a body that cannot be read, a page or a `Host` that may not ask, limits; and a daemon that fails, is full
# or stops.
EVERYWHERE = (400, 403, 408, 413, 429, 431, 500, 503, 505)
BEARER, QUERY = "bearer", "query"
SECURITY_SCHEMES: Mapping[str, Any] = {
    BEARER: {"type": "http", "scheme": "bearer", "description": "A token (JWT) or an API key."},
    QUERY: {"type": "apiKey", "in": "query", "name": "token", "description": "The same, where no header can be set."},
}

_TEXT = {"type": "string"}
_SECONDS = {"required": True, "schema": {"type": "integer", "minimum": 0}, "description": "Seconds."}
_HEADERS: Mapping[int, Mapping[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": _TEXT}},
    426: {"Upgrade": {"required": True, "schema": {"const": "websocket"}}},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": {**_SECONDS, "required": False}},
}
# Those that are a code of the daemon's own; the rest is said by the status.
_ABOUT: Mapping[int, str] = {
    401: "No token where one is needed, or one that does not count.",
    403: "No rule allows it, or the page or the Host may not ask.",
    429: "An address or a user is over a limit.",
    500: "The daemon failed to answer; its log says why.",
    503: "As many connections as allowed, the daemon stops, or Redis does not answer.",
}


@frozen
class Answer:
    """An answer that is no refusal. `schemas` are by content type; without one there is no body."""

    description: str
    schemas: Mapping[str, Any] = field(factory=dict)
    headers: Mapping[str, Any] = field(factory=dict)

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"description": self.description}
        if self.headers:
            document["headers"] = dict(self.headers)
        if self.schemas:
            document["content"] = {kind: {"schema": schema} for kind, schema in self.schemas.items()}
        return document


@frozen
class Operation:
    """One operation.

    Args:
        answers: what may be answered, besides refusals.
        refusals: statuses of refusals, besides those that every operation has.
        asks_who: a token counts, where authentication is on.
        body: the schema of what is sent.
    """

    summary: str
    answers: Mapping[int, Answer]
    refusals: Sequence[int] = ()
    parameters: Sequence[Mapping[str, Any]] = ()
    body: Mapping[str, Any] | None = None
    asks_who: bool = False
    tag: str = "daemon"

    def document(self, id: str) -> dict[str, Any]:
        statuses = {*EVERYWHERE, *self.refusals, *((401,) if self.asks_who else ())} - set(self.answers)
        answers = {str(status): answer.document() for status, answer in self.answers.items()}
        answers |= {str(status): {"$ref": f"#/components/responses/{name_of(status)}"} for status in sorted(statuses)}
        document: dict[str, Any] = {"operationId": id, "summary": self.summary, "tags": [self.tag]}
        if self.parameters:
            document["parameters"] = [dict(parameter) for parameter in self.parameters]
        if self.body is not None:
            document["requestBody"] = {"required": True, "content": {JSON: {"schema": self.body}}}
        if self.asks_who:
            document["security"] = [{BEARER: []}, {QUERY: []}]
        return {**document, "responses": answers}


def refusal(status: int) -> dict[str, Any]:
    """The answer that refuses with a status."""
    document: dict[str, Any] = {"description": _ABOUT.get(status, HTTPStatus(status).phrase)}
    if status in _HEADERS:
        document["headers"] = dict(_HEADERS[status])
    return {**document, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}}}


def name_of(status: int) -> str:
    """What a refusal is called among the components."""
    return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")


def in_query(name: str, schema: Mapping[str, Any], description: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def in_path(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def in_header(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
