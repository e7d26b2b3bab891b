"""The web app: what is asked now and then, and answered with JSON.

    GET /health                 is the process alive
    GET /livez, /readyz, /metrics                   `probes`
    GET /api/realtime/stats, clients, channels      `overview`
    POST /api/publish           events for Redis
    /api/realtime/...           `administration`
    GET /, /console/..., /client/...                `pages`

The parts of the daemon that it knows are its `Services`. Every error is JSON with `error`, `detail` and `hint`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from broker import __version__
from broker.headers import SECURITY_HEADERS
from broker.request import RequestRefused, error_body
from broker.timestamp import timestamp
from broker.web import administration, overview, pages, probes
from broker.web.services import Asked, Services


def create_app(services: Services) -> QuartTrio:
    """The app."""
    origins = services.origins
    app = QuartTrio("broker", static_folder=None)
    # The visit bounds every answer already, by `listen.write_seconds`.
    app.config["RESPONSE_TIMEOUT"] = None
    # `//elsewhere/x` is no path of ours, and no reason to send anyone anywhere.
    app.url_map.merge_slashes = False

    @app.get("/health")
    async def health() -> Response:
        return _json({"status": "healthy", "timestamp": timestamp(time.time()), "version": __version__})

    @app.post("/api/publish")
    async def publish() -> Response:
        body = await request.get_data()
        assert isinstance(body, bytes)
        identity = await services.identify(_asked())
        key = request.headers.get("Idempotency-Key")
        count, repeated = await services.publishing.publish(identity, _asked().origin, body, key)
        response = _json({"published": count})
        if repeated:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    administration.add_routes(app, services)
    overview.add_routes(app, services)
    pages.add_routes(app, services)
    probes.add_routes(app, services)

    @app.errorhandler(RequestRefused)
    async def declined(refused: RequestRefused) -> Response:
        response = _error(refused.status, refused.detail, refused.hint)
        response.headers.update(refused.headers)
        return response

    @app.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> Response:
        status = error.code or 500
        response = _error(status, _DETAILS.get(status, lambda: error.description or error.name)(), _hint(status))
        allow = error.get_response().headers.get("Allow")
        if allow:
            response.headers["Allow"] = allow
        return response

    @app.errorhandler(Exception)
    async def failed(error: Exception) -> Response:
        app.logger.error("request failed", exc_info=error)
        return _error(500, "the daemon failed to answer this request", "It is in the daemon's log.")

    @app.after_request
    async def allow_origins(response: Response) -> Response:
        page = request.headers.get("Origin")
        if request.method == "OPTIONS":
            response.headers.update(origins.preflight_headers(page, response.headers.get("Allow", "GET")))
        elif "Access-Control-Allow-Origin" not in response.headers:
            response.headers.update(origins.cors_headers(page))
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return app


_DETAILS: Mapping[int, Callable[[], str]] = {
    404: lambda: f"nothing is served at {ascii(request.path[:200])[1:-1]}",
    405: lambda: f"{request.method} is not allowed at {ascii(request.path[:200])[1:-1]}",
}


def _asked() -> Asked:
    asked = request.scope["state"]["asked"]
    assert isinstance(asked, Asked)
    return asked


def _hint(status: int) -> str:
    if status == 404:
        return (
            "Served here: / (the console), /client/index.js, /ws, /api/stream, /health, /livez, /readyz, /metrics, "
            "/api/publish, and below /api/realtime: stats, clients, channels, explain, disconnect and revoke."
        )
    if status == 405:
        return "Use a method that the Allow header names."
    return "Send a request that RFC 9110 allows."


def _json(value: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")


def _error(status: int, detail: str, hint: str) -> Response:
    return Response(error_body(status, detail, hint), status, content_type="application/json")
