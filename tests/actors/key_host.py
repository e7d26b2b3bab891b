"""A host of a JWK set: a real HTTP server that answers as its script says, well and badly."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from attrs import define, field

Script = Callable[["KeyHost", trio.abc.Stream], Awaitable[None]]


def answer(body: bytes, status: int = 200, *headers: str) -> Script:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}", *headers]

    async def script(host: KeyHost, stream: trio.abc.Stream) -> None:
        await stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return script


def raw(data: bytes) -> Script:
    """Bytes, and then the end."""

    async def script(host: KeyHost, stream: trio.abc.Stream) -> None:
        await stream.send_all(data)

    return script


async def hang(host: KeyHost, stream: trio.abc.Stream) -> None:
    """No answer, ever."""
    await trio.sleep_forever()


async def trickle(host: KeyHost, stream: trio.abc.Stream) -> None:
    """A byte now and then, so that no timeout of a read holds."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.01)


async def flood(host: KeyHost, stream: trio.abc.Stream) -> None:
    """An answer without an end."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await stream.send_all(b" " * 65536)


@define(eq=False)
class KeyHost:
    """The host; `script` answers the requests, of which there were `asked`."""

    script: Script
    url: str
    asked: int = 0
    been_asked: trio.Event = field(factory=trio.Event)

    async def serve(self, stream: trio.abc.Stream) -> None:
        try:
            async with stream:
                while not (await stream.receive_some(65536)).endswith(b"\r\n\r\n"):
                    pass
                self.asked += 1
                self.been_asked.set()
                await self.script(self, stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def wait_asked(self, times: int) -> None:
        with trio.fail_after(5):
            while self.asked < times:
                self.been_asked = trio.Event()
                await self.been_asked.wait()


@asynccontextmanager
async def open_key_host(script: Script, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[KeyHost]:
    """A host that listens until the end; with `tls` over HTTPS."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        bound = listener.socket.getsockname()[1]
        host = KeyHost(script, f"{'https' if tls else 'http'}://localhost:{bound}/jwks.json")

        async def serve(stream: trio.SocketStream) -> None:
            await host.serve(trio.SSLStream(stream, tls, server_side=True) if tls else stream)

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield host
        nursery.cancel_scope.cancel()
