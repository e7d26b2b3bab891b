"""What machines ask again and again: is it alive, should it get clients, and its figures.

    GET /livez      200 while the event loop answers
    GET /readyz     200 while it should get clients; else 503, and why
    GET /metrics    figures for Prometheus

The first two are for everybody, and have no figures in them. Who may read the figures is `metrics.http`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import msgspec
from quart import Response, request
from quart_trio import QuartTrio

from broker.request import RequestRefused
from broker.timestamp import timestamp
from broker.web.services import Services

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def add_routes(app: QuartTrio, services: Services) -> None:
    """Add the calls to the app."""
    # It takes a moment to load: not while the first who asks waits for it, and everybody with them.
    import_module("prometheus_client")

    @app.get("/livez")
    async def livez() -> Response:
        return _json(200, {"status": "alive"})

    @app.get("/readyz")
    async def readyz() -> Response:
        reasons = services.readiness.reasons()
        body: dict[str, Any] = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        return _json(503 if reasons else 200, {**body, "redis": services.readiness.redis})

    @app.get("/metrics")
    async def metrics() -> Response:
        if services.metrics_http == "off":
            raise RequestRefused(403, "metrics are off", "Set metrics.http to auto or open.")
        if services.metrics_http == "auto":
            await services.check_admin(request.scope["state"]["asked"], changes=False)
        return Response(await services.metrics(), content_type=CONTENT_TYPE)


def _json(status: int, body: Mapping[str, Any]) -> Response:
    whole = {**body, "timestamp": timestamp(time.time())}
    return Response(msgspec.json.encode(whole), status, content_type="application/json")
