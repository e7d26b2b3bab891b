"""The calls for who looks: the stats, the clients and the channels of all daemons at this Redis, or of one.

GET /api/realtime/stats      ?clients=N&channels=N&node=ID
GET /api/realtime/clients    ?sort=queued|events|connected&limit=N&user=...&channel=...&node=ID
GET /api/realtime/channels   ?sort=rate|subscribers|name&limit=N&prefix=...&node=ID

Each answer has `nodes`: who was asked, and who has answered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio

from broker.nodes.roster import CHANNEL_SORTS, CLIENT_SORTS, ROWS_MAX, channels_of_all, clients_of_all
from broker.nodes.total import total
from broker.request import RequestRefused
from broker.timestamp import timestamp
from broker.web.services import Services

_CLIENTS_LISTED = 100
_CLIENTS_LISTED_MAX = 10_000
_CHANNELS_LISTED_MAX = 10_000
_LIMIT = 100
_LIMIT_MAX = 1000


def add_routes(app: QuartTrio, services: Services) -> None:
    """Add the calls to the app."""

    @app.get("/api/realtime/stats")
    async def stats() -> Response:
        await services.check_admin(request.scope["state"]["asked"], changes=False)
        listed = _number("clients", _CLIENTS_LISTED, 0, _CLIENTS_LISTED_MAX)
        # Without the parameter all names are listed.
        names = _number("channels", 0, 0, _CHANNELS_LISTED_MAX) if "channels" in request.args else None
        # Of several daemons the names of all tell how many there are; none cost nothing.
        asked = 0 if names == 0 else None
        found = await services.survey.ask("stats", {"clients": listed, "channels": asked}, _text("node"))
        if len(found.answers) > 1:
            await trio.lowlevel.checkpoint()
        return _json({**total(found.answers, listed, names), "nodes": found.nodes})

    @app.get("/api/realtime/clients")
    async def clients() -> Response:
        await services.check_admin(request.scope["state"]["asked"], changes=False)
        sort, limit = _sort(CLIENT_SORTS), _number("limit", _LIMIT, 1, _LIMIT_MAX)
        options = {"sort": sort, "limit": limit, "user": _text("user"), "channel": _text("channel")}
        found = await services.survey.ask("clients", options, _text("node"))
        return _listing(await clients_of_all(found.answers, sort, limit), found.nodes)

    @app.get("/api/realtime/channels")
    async def channels() -> Response:
        await services.check_admin(request.scope["state"]["asked"], changes=False)
        sort, limit = _sort(CHANNEL_SORTS), _number("limit", _LIMIT, 1, _LIMIT_MAX)
        node = _text("node")
        # The first of all are not the first of each.
        rows = limit if services.survey.is_alone or node is not None else ROWS_MAX
        options = {"sort": sort, "limit": rows, "prefix": _text("prefix") or ""}
        found = await services.survey.ask("channels", options, node)
        return _listing(await channels_of_all(found.answers, sort, limit), found.nodes)


def _number(name: str, default: int, least: int, most: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not least <= int(text) <= most:
        raise RequestRefused(400, f"{name} must be a whole number", f"Ask for ?{name}={least} to {most}.")
    return int(text)


def _sort(sorts: tuple[str, ...]) -> str:
    sort = request.args.get("sort", sorts[0])
    if sort not in sorts:
        raise RequestRefused(400, f"sort must be one of {', '.join(sorts)}", f"Ask for ?sort={sorts[0]}.")
    return sort


def _text(name: str) -> str | None:
    """What a parameter says; None where it is empty or not there."""
    return request.args.get(name) or None


def _listing(found: Mapping[str, Any], nodes: Any) -> Response:
    return _json({"timestamp": timestamp(time.time()), **found, "nodes": nodes})


def _json(value: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")
