"""A proxy of TCP connections with the faults that real wires have.

It cuts, refuses, delays, stalls, loses and half-closes, between a client and the daemon or the daemon and Redis. In
trio it is made by `proxy_to`; `ProxyThread` is one with a loop of its own, for those who block.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Literal, Self

import trio
from attrs import define, field

Way = Literal["up", "down"]
"""`up` is from who connects to the target, `down` back."""
BOTH: tuple[Way, ...] = ("up", "down")
# What is on its way through a delay; behind it the sender waits, as behind a full wire.
PIECES_MAX = 4096


@define(eq=False)
class _Lane:
    """One way of every connection.

    Args:
        delay_seconds: each piece comes so much later; their order stays.
        is_stalled: nothing is read: the sender's buffers fill.
        is_lossy: what comes is read and thrown away, and nobody hears of it.
        cut_after: when so many more bytes have passed, everything is cut; None for never.
    """

    delay_seconds: float = 0.0
    is_stalled: bool = False
    is_lossy: bool = False
    cut_after: int | None = None


@define(eq=False)
class Proxy:
    """Made by `proxy_to`. `visits` counts the connections that were let through, `passed` the bytes of each way."""

    target: int
    port: int = 0
    visits: int = 0
    passed: dict[Way, int] = field(factory=lambda: {"up": 0, "down": 0})
    _is_shut: bool = False
    _scopes: set[trio.CancelScope] = field(factory=set)
    _lanes: dict[Way, _Lane] = field(factory=lambda: {"up": _Lane(), "down": _Lane()})
    _sinks: dict[Way, set[trio.SocketStream]] = field(factory=lambda: {"up": set(), "down": set()})
    _changed: trio.Event = field(factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close every connection, in the middle of whatever is on its way."""
        for scope in self._scopes:
            scope.cancel()

    def cut_after(self, size: int, way: Way = "down") -> None:
        """Cut once that many bytes more have gone one way."""
        self._lanes[way].cut_after = size

    def shut(self) -> None:
        """Cut, and let nobody in until `open`."""
        self._is_shut = True
        self.cut()

    def open(self) -> None:
        self._is_shut = False

    def delay(self, seconds: float, *ways: Way) -> None:
        """From now on everything comes so much later; 0 ends it."""
        for way in ways or BOTH:
            self._lanes[way].delay_seconds = seconds

    def stall(self, *ways: Way) -> None:
        """Nothing is read any more, until `flow`: the connections are open, and the senders' buffers fill."""
        for way in ways or BOTH:
            self._lanes[way].is_stalled = True

    def lose(self, *ways: Way) -> None:
        """What is sent is lost and nobody is told, until `flow`."""
        for way in ways or BOTH:
            self._lanes[way].is_lossy = True

    def flow(self) -> None:
        """End every stall and every loss. What a loss took stays lost: `cut` those connections."""
        for lane in self._lanes.values():
            lane.is_stalled = lane.is_lossy = False
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def half_close(self, way: Way) -> None:
        """Say one way that nothing more will come (FIN); the other way goes on."""
        for sink in self._sinks[way]:
            try:
                sink.socket.shutdown(trio.socket.SHUT_WR)
            except OSError:
                pass  # it has gone meanwhile

    async def carry(self, client: trio.SocketStream) -> None:
        if self._is_shut:
            client.socket.close()
            return
        self.visits += 1
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            client.socket.close()
            return
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            self._sinks["up"].add(server)
            self._sinks["down"].add(client)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, "up", client, server, scope)
                    nursery.start_soon(self._pass_on, "down", server, client, scope)
            finally:
                self._scopes.discard(scope)
                self._sinks["up"].discard(server)
                self._sinks["down"].discard(client)
                client.socket.close()
                server.socket.close()

    async def _pass_on(
        self, way: Way, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        send, receive = trio.open_memory_channel[tuple[float, bytes]](PIECES_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, way, receive, sink, scope)
            async with send:
                await self._take(way, source, send, scope)

    async def _take(
        self,
        way: Way,
        source: trio.SocketStream,
        send: trio.MemorySendChannel[tuple[float, bytes]],
        scope: trio.CancelScope,
    ) -> None:
        lane = self._lanes[way]
        while True:
            while lane.is_stalled:
                await self._changed.wait()
            try:
                data = await source.receive_some(65_536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                scope.cancel()
                return
            if not data:
                return
            while lane.is_stalled:  # it began while this waited for bytes
                await self._changed.wait()
            if not lane.is_lossy:
                await send.send((trio.current_time() + lane.delay_seconds, bytes(data)))

    async def _deliver(
        self,
        way: Way,
        receive: trio.MemoryReceiveChannel[tuple[float, bytes]],
        sink: trio.SocketStream,
        scope: trio.CancelScope,
    ) -> None:
        lane = self._lanes[way]
        try:
            async for due, data in receive:
                await trio.sleep_until(due)
                left = math.inf if lane.cut_after is None else lane.cut_after
                if len(data) >= left:
                    await sink.send_all(data[: int(left)])
                    self.passed[way] += int(left)
                    lane.cut_after = None
                    self.cut()
                    return
                await sink.send_all(data)
                self.passed[way] += len(data)
                if lane.cut_after is not None:
                    lane.cut_after -= len(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port of this machine, to another."""
    proxy = Proxy(port)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, proxy.carry, 0, host="127.0.0.1", backlog=1024), name="proxy"
        )
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()


@define(eq=False)
class ProxyThread:
    """A proxy in a thread of its own. Use it in a `with`; what it has of `Proxy` is called from any thread.

    Args:
        target: may be changed, for connections that come later.
    """

    _target: int
    proxy: Proxy = field(init=False)
    _token: trio.lowlevel.TrioToken = field(init=False)
    _scope: trio.CancelScope = field(init=False, factory=trio.CancelScope)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> Self:
        is_open = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve, is_open), daemon=True)
        self._thread.start()
        assert is_open.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._scope.cancel)
        self._thread.join(10)

    @property
    def port(self) -> int:
        return self.proxy.port

    @property
    def url(self) -> str:
        return self.proxy.url

    @property
    def visits(self) -> int:
        return self.proxy.visits

    @property
    def passed(self) -> dict[Way, int]:
        return self.proxy.passed

    def lead_to(self, target: int) -> None:
        """Where connections that come later go."""
        self.proxy.target = target

    def cut(self) -> None:
        self._run(self.proxy.cut)

    def cut_after(self, size: int, way: Way = "down") -> None:
        self._run(partial(self.proxy.cut_after, size, way))

    def shut(self) -> None:
        self._run(self.proxy.shut)

    def open(self) -> None:
        self._run(self.proxy.open)

    def delay(self, seconds: float, *ways: Way) -> None:
        self._run(partial(self.proxy.delay, seconds, *ways))

    def stall(self, *ways: Way) -> None:
        self._run(partial(self.proxy.stall, *ways))

    def lose(self, *ways: Way) -> None:
        self._run(partial(self.proxy.lose, *ways))

    def flow(self) -> None:
        self._run(self.proxy.flow)

    def half_close(self, way: Way) -> None:
        self._run(partial(self.proxy.half_close, way))

    def _run(self, what: Callable[[], object]) -> None:
        """In the proxy's loop; returns when it was done."""
        trio.from_thread.run_sync(what, trio_token=self._token)

    async def _serve(self, is_open: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with proxy_to(self._target) as self.proxy:
                is_open.set()
                await trio.sleep_forever()
