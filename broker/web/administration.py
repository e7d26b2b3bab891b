"""The calls for who runs the daemon: end connections, revoke tokens; and why somebody may or may not.

POST /api/realtime/disconnect   {"user": ...} or {"client": ...} or {"channel": ...}
POST /api/realtime/revoke       {"tokenId": ...} or {"user": ...}, "seconds"?
GET  /api/realtime/explain      ?action=subscribe|publish&channel=...: which rule decides for whoever asks
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import msgspec
from quart import Response, request
from quart_trio import QuartTrio

from broker.auth.explanation import explanation
from broker.auth.revocation import SUBJECT, TOKEN
from broker.auth.rules import PUBLISH, SUBSCRIBE
from broker.channel import Channel
from broker.control import TARGETS
from broker.errors import ChannelError, UpstreamError
from broker.request import RequestRefused
from broker.submission import USER_ID
from broker.web.services import Services

_SECONDS_MAX = 366 * 86400.0
_REVOCABLE = {"tokenId": TOKEN, "user": SUBJECT}

T = TypeVar("T")


def add_routes(app: QuartTrio, services: Services) -> None:
    """Add the calls to the app."""

    @app.post("/api/realtime/disconnect")
    async def disconnect() -> Response:
        await services.check_admin(request.scope["state"]["asked"], changes=True)
        asked = await _body()
        target, name = _one_of(asked, TARGETS)
        if target == "channel":
            name = _channel(name).name
        return _json({"daemons": await _told(services.control.disconnect(target, name))})

    @app.post("/api/realtime/revoke")
    async def revoke() -> Response:
        await services.check_admin(request.scope["state"]["asked"], changes=True)
        asked = await _body()
        target, id = _one_of(asked, tuple(_REVOCABLE))
        seconds = asked.get("seconds")
        if seconds is not None and not (type(seconds) in (int, float) and 1 <= seconds <= _SECONDS_MAX):
            raise _bad(f"seconds must be a number from 1 to {_SECONDS_MAX:g}")
        return _json({"daemons": await _told(services.control.revoke(_REVOCABLE[target], id, seconds))})

    @app.get("/api/realtime/explain")
    async def explain() -> Response:
        identity = await services.identify(request.scope["state"]["asked"])
        action = request.args.get("action", SUBSCRIBE)
        if action not in (SUBSCRIBE, PUBLISH):
            raise _bad("action must be subscribe or publish")
        channel = _channel(request.args.get("channel", ""))
        return _json(explanation(services.rules, identity, action, channel))


async def _body() -> Mapping[str, Any]:
    body = await request.get_data()
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise _bad("the body is not a JSON object")
    return found


def _one_of(asked: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, str]:
    """The one that is there of several names, and its value."""
    unknown = asked.keys() - {*names, "seconds"}
    found = [name for name in names if asked.get(name) is not None]
    if len(found) != 1 or unknown:
        raise _bad(f"name one of {', '.join(names)}" + (f", not {min(unknown)[:40]!a}" if unknown else ""))
    value = asked[found[0]]
    if not isinstance(value, str) or not USER_ID.fullmatch(value):
        raise _bad(f"{found[0]} must be a text of 1 to 256 characters without control characters")
    return found[0], value


def _channel(name: str) -> Channel:
    try:
        return Channel.from_name(name)
    except ChannelError as bad:
        raise _bad(str(bad)) from None


async def _told(telling: Awaitable[T]) -> T:
    try:
        return await telling
    except UpstreamError as error:
        raise RequestRefused(
            503, f"not every daemon was told: {error}", "Try again in a moment.", {"Retry-After": "1"}
        ) from None


def _bad(what: str) -> RequestRefused:
    return RequestRefused(400, what, "docs/security.md has examples.")


def _json(value: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")
