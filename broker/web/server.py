"""The web server: one request at a time to the Quart app, through hypercorn.

The door has read the whole request, under its limits, and writes it anew: hypercorn sees one
well-formed request, no upgrade, and the end of its input once the app has answered. So a kept-alive
connection comes back to the door after each answer, and the next request may be a stream.

hypercorn shields its writes without a deadline; `Exchange.send_all` has its own.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define, field

from broker.auth.identity import ANONYMOUS
from broker.config.sections import Console, Metrics
from broker.request import Request, RequestRefused, unauthorized
from broker.visit import Visit, VisitorLeft
from broker.web.services import Asked, Services

_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
_NEVER_SECONDS = 7 * 24 * 3600


@define(eq=False)
class Exchange:
    """What hypercorn takes for its socket stream: one request in, one answer out.

    Args:
        request: the request's bytes, whole.
        state: what the app finds in its scope.
    """

    _visit: Visit
    _request: bytes
    state: dict[str, Any]
    answered: trio.Event = field(factory=trio.Event)
    broken: bool = False
    closed: bool = False

    @property
    def socket(self) -> socket.socket:
        return self._visit.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._request:
            data, self._request = self._request, b""
            await trio.lowlevel.checkpoint()
            return data
        await self.answered.wait()
        return b""

    async def send_all(self, data: bytes) -> None:
        try:
            await self._visit.write(data)
        except VisitorLeft:
            self.broken = True
            raise trio.BrokenResourceError from None

    async def send_eof(self) -> None:
        """The connection outlives the answer."""

    async def aclose(self) -> None:
        if not self.answered.is_set():
            self.closed = True
            self.answered.set()
        await trio.lowlevel.checkpoint()


@define(eq=False)
class WebServer:
    """Serves every request that is neither a WebSocket nor a stream.

    Quart and hypercorn take half a second to import, so they are loaded once the doors are open.
    """

    _services: Services
    _answer: Callable[[Exchange], Awaitable[None]] | None = None

    def adapt(self, metrics: Metrics, console: Console) -> None:
        """Go by other settings from here on."""
        self._services.metrics_http, self._services.console_http = metrics.http, console.http

    async def serve(self, visit: Visit, request: Request) -> bool:
        """Answer one request. Returns whether the connection can carry another.

        Raises:
            RequestRefused: it has no right to send a body, or its path begins with two slashes.
        """
        if request.path.startswith("//"):
            # Quart would take it for the path behind: a proxy that forbids that one must not be walked round.
            raise RequestRefused(404, "nothing is served at a path of two slashes", "Begin the path with one slash.")
        asked = Asked(request, visit)
        if request.method in _WITH_BODY:
            await self._admit(asked)
        body = await visit.read_body(request)
        exchange = Exchange(visit, request.whole_bytes(body), {"asked": asked})
        await self.load()(exchange)
        keeps = request.keeps_alive and not (exchange.broken or exchange.closed)
        if not keeps and not exchange.broken:
            await visit.linger()
        return keeps

    async def _admit(self, asked: Asked) -> None:
        """Look who it is before the body is read: who has no right to send one shall not fill memory with it.

        Raises:
            RequestRefused: 401.
        """
        try:
            identity = await self._services.identify(asked)
            if identity.kind == ANONYMOUS:
                raise unauthorized("this needs a token or an API key")
        except RequestRefused as refused:
            refused.headers.update(self._services.origins.cors_headers(asked.request.text(b"origin")))
            raise

    def load(self) -> Callable[[Exchange], Awaitable[None]]:
        """What answers the request of a exchange. Blocks the first time."""
        if self._answer is None:
            self._answer = _load(self._services)
        return self._answer


def _load(services: Services) -> Callable[[Exchange], Awaitable[None]]:
    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import LifespanState

    from broker.web.app import create_app

    config = Config()
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    # The door keeps the time between requests.
    config.keep_alive_timeout = _NEVER_SECONDS
    context = WorkerContext(None)
    asgi = ASGIWrapper(create_app(services))

    async def answer(exchange: Exchange) -> None:
        async def app(*arguments: Any) -> None:
            await asgi(*arguments)
            exchange.answered.set()

        await TCPServer(app, config, context, LifespanState(exchange.state), exchange).run()  # type: ignore[arg-type]

    return answer
