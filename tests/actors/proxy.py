"""A proxy of TCP connections that a test cuts, and that refuses new ones while it is shut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define, field


@define(eq=False)
class Proxy:
    """Made by `proxy_to`. `visits` counts the connections that were let through."""

    port: int = 0
    visits: int = 0
    _is_shut: bool = False
    _scopes: set[trio.CancelScope] = field(factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close every connection, in the middle of whatever is on its way."""
        for scope in self._scopes:
            scope.cancel()

    def shut(self) -> None:
        """Cut, and let nobody in until `open`."""
        self._is_shut = True
        self.cut()

    def open(self) -> None:
        self._is_shut = False

    async def carry(self, target: int, client: trio.SocketStream) -> None:
        if self._is_shut:
            client.socket.close()
            return
        self.visits += 1
        server = await trio.open_tcp_stream("127.0.0.1", target)
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, client, server, scope)
                    nursery.start_soon(self._pass_on, server, client, scope)
            finally:
                self._scopes.discard(scope)
                client.socket.close()
                server.socket.close()

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port of this machine, to another."""
    proxy = Proxy()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(proxy.carry, port), 0, host="127.0.0.1"))
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
