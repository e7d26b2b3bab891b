"""The door: accepts connections, reads each request's head, and hands it to whoever serves its path.

One connection, one fence: protocol libraries raise what they do not promise to raise, so whatever a
connection raises ends that connection and is logged once; nothing passes to its neighbours.

Laws: the nursery of the doors is not the nursery of the connections, so that the doors can close
first. Never more connections than the cap: one more is answered 503 by the door itself; when even
those answers pile up, or descriptors run out, the door rests and the kernel's backlog waits.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable

import structlog
import trio
from attrs import Factory, define, field, frozen

from broker.config.sections import Listen
from broker.listening import Listener
from broker.outbox import close_socket
from broker.request import Request, RequestRefused, refusal_answer
from broker.visit import Visit, VisitorLeft

log = structlog.get_logger(__name__)

# Serves one request. Returns whether the connection can carry another one.
Handler = Callable[[Visit, Request], Awaitable[bool]]

ACCEPTS_PER_TURN = 64
REFUSALS_AT_ONCE = 32
# Short: a backlog of hundreds who have left meanwhile may take several rests, and all is well within a second.
REST_SECONDS = 0.1
_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@frozen
class Route:
    """Paths that begin with `prefix` (or equal it, where `exact`) go to `handler`."""

    prefix: str
    handler: Handler
    exact: bool = False

    def serves(self, path: str) -> bool:
        return path == self.prefix or (not self.exact and path.startswith(self.prefix))


@frozen
class DoorStatistics:
    """A snapshot: connections now and accepted, refused with 503, and failed unexpectedly since the start."""

    connections: int
    accepted: int
    refused_busy: int
    failed: int


@define(eq=False)
class Door:
    """All listeners of the daemon.

    Args:
        routes: the first that serves a path gets it; the last serves every path.
        max_connections: the cap.
    """

    _bounds: Listen
    _routes: tuple[Route, ...]
    max_connections: int
    _visits: dict[Visit, None] = Factory(dict)
    _closing: bool = field(init=False, default=False)
    _refusing: int = field(init=False, default=0)
    _accepted: int = field(init=False, default=0)
    _refused_busy: int = field(init=False, default=0)
    _failed: int = field(init=False, default=0)
    _complained_at: float = field(init=False, default=float("-inf"))

    async def serve(
        self,
        listener: Listener,
        connections: trio.Nursery,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept from one listener. Runs until cancelled; then the socket is closed.

        Args:
            connections: the nursery of the connections, which outlives this call.
        """
        try:
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(listener.socket)
                for _ in range(ACCEPTS_PER_TURN):
                    if self._is_stuffed():
                        await trio.sleep(REST_SECONDS / 2)
                        break
                    try:
                        sock, peer = listener.socket.accept()
                    except BlockingIOError:
                        break
                    except OSError as error:
                        if error.errno in _OUT_OF_ROOM:
                            self._complain("out of file descriptors or memory; the door rests", error=str(error))
                            await trio.sleep(REST_SECONDS)
                            break
                        continue  # that connection was gone before it was accepted
                    ip = peer[0] if isinstance(peer, tuple) else None
                    self._welcome(sock, ip, listener, connections)
        finally:
            close_socket(listener.socket)

    def dismiss_all(self) -> None:
        """Serve no further request: who has not asked yet is let go, who is being served is not. Synchronous."""
        self._closing = True
        for visit in self._visits:
            visit.dismiss()

    def statistics(self) -> DoorStatistics:
        return DoorStatistics(len(self._visits), self._accepted, self._refused_busy, self._failed)

    def _is_stuffed(self) -> bool:
        return len(self._visits) >= self.max_connections and self._refusing >= REFUSALS_AT_ONCE

    def _welcome(self, sock: socket.socket, ip: str | None, listener: Listener, connections: trio.Nursery) -> None:
        sock.setblocking(False)
        self._accepted += 1
        visit = Visit(sock, self._bounds, trio.current_time(), ip)
        if len(self._visits) >= self.max_connections:
            self._refused_busy += 1
            self._refusing += 1
            self._complain("as many connections as allowed; answering 503", max_connections=self.max_connections)
            connections.start_soon(self._refuse_busy, visit)
        else:
            self._visits[visit] = None
            connections.start_soon(self._attend, visit, listener)

    def _complain(self, message: str, **facts: object) -> None:
        """At most one line a second, however many connections are concerned."""
        now = trio.current_time()
        if now - self._complained_at >= 1.0:
            self._complained_at = now
            log.warning(message, **facts)

    async def _attend(self, visit: Visit, listener: Listener) -> None:
        """Serve one connection to its end, inside its fence."""
        try:
            await self._converse(visit)
        except* VisitorLeft:
            pass
        except* Exception as group:
            self._failed += 1
            log.error("connection failed", exc_info=group)
        finally:
            self._visits.pop(visit, None)
            visit.close()
            log.debug("connection closed", served=visit.served)

    async def _converse(self, visit: Visit) -> None:
        method = ""
        try:
            while True:
                request = await visit.read_request()
                method = visit.served = request.method
                if self._closing:
                    raise RequestRefused(
                        503, "the daemon is shutting down", "Try again in a moment.", {"Retry-After": "1"}
                    )
                if not await self._handler(request.path)(visit, request) or self._closing:
                    return
        except RequestRefused as refused:
            await visit.write(refusal_answer(refused, method))
            await visit.linger()

    def _handler(self, path: str) -> Handler:
        return next(route.handler for route in self._routes if route.serves(path))

    async def _refuse_busy(self, visit: Visit) -> None:
        try:
            refused = RequestRefused(
                503,
                f"the daemon serves {self.max_connections} connections, as many as it may",
                "Try again later; the operator can raise clients.max_connections or the open-file limit.",
                {"Retry-After": "5"},
            )
            await visit.write(refusal_answer(refused))
            await visit.linger()
        except* (VisitorLeft, OSError):
            pass
        finally:
            self._refusing -= 1
            visit.close()
