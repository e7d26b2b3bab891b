"""What browsers load: the client's modules, and the console.

    GET /client/<file>          modules of `broker/browser/`, for everybody, also for pages of other origins
    GET /                       the console
    GET /console/<file>         its style and its modules
    GET /console/facts.json     what this daemon is, for the console

Who gets the console: without authentication whoever is on the daemon's machine, with `--dev` everybody. With
authentication everybody gets it, as a sign-in: there is no data in it, and what it shows comes from the admin calls.
`console.http` turns it off.

Every file is asked for anew (`no-cache`) and answered 304 while it is the same: a page never runs modules of two
versions of the daemon.

Source: W3C CSP 3; RFC 9110, 13.1.2; HTML, "Run a worker" (a worker goes by the policy of its own file).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from quart import Response, request
from quart_trio import QuartTrio

from broker import __version__
from broker.demo import DEMO_CHANNELS
from broker.events.registry import EVENT_TYPES
from broker.events.rules import fields_of
from broker.events.schema import event_schema
from broker.request import RequestRefused
from broker.web.assets import CLIENT_ROOT, Asset, Assets
from broker.web.services import Services

_MODULE_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        # A module that runs as a worker loads others from here, and connects to where the page's daemon is.
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src *; frame-ancestors 'none'",
        "Cache-Control": "no-cache",
    }
)
_CONSOLE_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Cache-Control": "no-cache",
    }
)


def add_routes(app: QuartTrio, services: Services) -> None:
    """Add the pages to the app."""
    modules, console = Assets(without="console"), Assets("console")

    @app.get(f"{CLIENT_ROOT}/<path:name>")
    async def module(name: str) -> Response:
        asset = modules.get(name) if name.endswith((".js", ".d.ts")) else None
        if asset is None:
            raise _nothing("The client is /client/index.js, its hooks for React are /client/react.js.")
        return _answer(asset, _MODULE_HEADERS)

    @app.get("/")
    async def page() -> Response:
        _check_console(services)
        return _console_answer(console.get("index.html"))

    @app.get("/console/<name>")
    async def file(name: str) -> Response:
        _check_console(services)
        # Its links are those of `/`.
        return _console_answer(None if name == "index.html" else console.get(name))

    @app.get("/console/facts.json")
    async def facts() -> Response:
        _check_console(services)
        found = {
            "version": __version__,
            "dev": services.is_dev,
            "demoChannels": DEMO_CHANNELS if services.is_dev else (),
            "auth": "on" if services.gate.is_on else "off",
            "events": _events(),
        }
        return Response(msgspec.json.encode(found), content_type="application/json")


def _check_console(services: Services) -> None:
    """Raises RequestRefused where the console is not for whoever asks: 403, or 404 where it is off."""
    if services.console_http == "off":
        raise _nothing("The console is off; set console.http to auto for it.")
    if not (services.gate.is_on or services.is_dev):
        request.scope["state"]["asked"].origin.check(services.origins.allowed)


def _console_answer(asset: Asset | None) -> Response:
    if asset is None:
        raise _nothing("The console is at /.")
    return _answer(asset, _CONSOLE_HEADERS)


def _answer(asset: Asset, headers: Mapping[str, str]) -> Response:
    """The file as the request takes it; 304 where the browser has it."""
    is_gzipped = request.accept_encodings.quality("gzip") > 0
    etag = asset.gzipped_etag if is_gzipped else asset.etag
    if request.if_none_match.contains_weak(etag):
        response = Response(b"", 304)
        response.headers.pop("Content-Type", None)
    else:
        response = Response(asset.gzipped if is_gzipped else asset.body, content_type=asset.content_type)
        if is_gzipped:
            response.headers["Content-Encoding"] = "gzip"
    response.set_etag(etag)
    response.headers["Vary"] = "Accept-Encoding"
    response.headers.update(headers)
    return response


def _nothing(hint: str) -> RequestRefused:
    return RequestRefused(404, f"nothing is served at {ascii(request.path[:200])[1:-1]}", hint)


def _events() -> dict[str, Any]:
    """What services publish: for each type its channel, and the field that is the channel's id."""
    found = {}
    for name, event_type in EVENT_TYPES.items():
        if event_type.channel_type is not None:
            ids = {entry.attribute: entry.wire for entry in fields_of(event_type)}
            id = None if event_type.channel_id is None else ids[event_type.channel_id]
            found[name] = {"channelType": event_type.channel_type, "channelId": id, "schema": event_schema(name)}
    return found
