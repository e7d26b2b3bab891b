"""The door: accepts connections, reads each request's head, and has it answered.

One connection, one fence: protocol libraries raise what they do not promise to raise, so whatever a
connection raises ends that connection and is logged once; nothing passes to its neighbours.

In order: the limits of its address, the PROXY header, TLS, the requests.

Laws: the nursery of the doors is not the nursery of the connections, so that the doors can close
first. Never more connections than the cap: one more is answered 503 by the door itself; when even
those answers pile up, or descriptors run out, the door rests and the kernel's backlog waits. An address
over its limit is answered 429, and where those answers pile up it is only closed: nobody waits for it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
import trio
from attrs import define, field, frozen

from broker.complaints import Complaints
from broker.config.sections import Listen
from broker.listening import Listener
from broker.openfiles import connections_for, open_file_limit
from broker.outbox import close_socket
from broker.proxyheader import ProxyHeaderError
from broker.reception import Reception, too_many
from broker.request import RequestRefused, refusal_answer
from broker.tls import Certificate
from broker.turnstile import Barrier
from broker.visit import Visit, VisitorLeft

log = structlog.get_logger(__name__)

# Few: who is here already comes before a crowd that is not.
ACCEPTS_PER_TURN = 16
REFUSALS_AT_ONCE = 32
# Short: a backlog of hundreds who have left meanwhile may take several rests, and all is well within a second.
REST_SECONDS = 0.1
# Serves an HTTP/2 connection, given what serves each of its streams.
Http2Handler = Callable[[Visit, Callable[[Visit], Awaitable[None]]], Awaitable[None]]
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@frozen
class DoorStatistics:
    """A snapshot: connections now; since the start those that were accepted, refused with 503, failed unexpectedly,
    and were to begin with a PROXY header and did not."""

    connections: int
    accepted: int
    refused_busy: int
    failed: int
    without_proxy_header: int


@define(eq=False)
class Door:
    """All listeners of the daemon.

    Args:
        max_connections: the cap. A stream of an HTTP/2 connection counts as two: so many descriptors it has.
        certificate: for listeners with TLS; then `http2` serves connections that agreed on it.
    """

    _bounds: Listen
    _reception: Reception
    max_connections: int
    _certificate: Certificate | None = None
    _http2: Http2Handler | None = None
    _visits: dict[Visit, None] = field(init=False, factory=dict)
    _refusing: int = field(init=False, default=0)
    _declining: int = field(init=False, default=0)
    _accepted: int = field(init=False, default=0)
    _refused_busy: int = field(init=False, default=0)
    _failed: int = field(init=False, default=0)
    _without_proxy_header: int = field(init=False, default=0)
    _streams: int = field(init=False, default=0)  # each of the visits that is one has two descriptors
    _complaints: Complaints = field(init=False, factory=lambda: Complaints(log))

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
                            self._warn("out of file descriptors or memory; the door rests", error=str(error))
                            await trio.sleep(REST_SECONDS)
                            break
                        continue  # that connection was gone before it was accepted
                    ip = peer[0] if isinstance(peer, tuple) else None
                    try:
                        self._welcome(sock, ip, listener, connections)
                    except Exception:
                        # There is no fence around it yet, and the door is everybody's.
                        self._failed += 1
                        log.exception("connection failed")
                        close_socket(sock)
        finally:
            close_socket(listener.socket)

    def adapt(self, bounds: Listen, max_connections: int) -> None:
        """Go by other bounds from here on, for connections that come."""
        self._bounds, self.max_connections = bounds, max_connections

    def dismiss_idle(self) -> None:
        """Let go who rests between two requests; who has only come may still ask. Synchronous."""
        for visit in self._visits:
            if not visit.is_new:
                visit.dismiss()

    def part_after_next(self) -> None:
        """Serve one more request of each, and say with its answer that it was the last. Synchronous."""
        self._reception.is_parting = True
        for visit in self._visits:
            if visit.on_dismissed is not None:
                visit.dismiss()  # HTTP/2 has a word of its own for it, at any time

    @property
    def has_newcomers(self) -> bool:
        """Whether somebody has come who has asked for nothing yet."""
        return any(visit.is_new for visit in self._visits)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here."""
        return not self._visits

    def dismiss_all(self) -> None:
        """Serve no further request: who has not asked yet is let go, who is being served is not. Synchronous."""
        self._reception.is_closing = True
        for visit in self._visits:
            visit.dismiss()

    def statistics(self) -> DoorStatistics:
        return DoorStatistics(
            len(self._visits), self._accepted, self._refused_busy, self._failed, self._without_proxy_header
        )

    def _is_stuffed(self) -> bool:
        return self._refusing >= REFUSALS_AT_ONCE and len(self._visits) >= self._room()

    def _room(self) -> int:
        # Asked anew each time: under a limit that was lowered later the door would else take the descriptors with
        # which Redis comes back.
        return connections_for(open_file_limit(), self.max_connections)

    def _welcome(self, sock: socket.socket, ip: str | None, listener: Listener, connections: trio.Nursery) -> None:
        sock.setblocking(False)
        if _USER_TIMEOUT is not None and ip is not None and self._bounds.dead_seconds:
            # Who is cut off without a word closes nothing: without this, keep-alives are sent to nobody for long.
            sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, round(self._bounds.dead_seconds * 1000))
        self._accepted += 1
        visit = Visit(sock, self._bounds, trio.current_time(), ip)
        # Who speaks for others is let in; the limits are those of whom it speaks for.
        has_entered = not listener.expects_proxy and not self._reception.proxies.trusts(ip)
        if has_entered:
            barrier = self._reception.turnstile.enter(ip, visit.opened_at)
            if barrier is not None:
                self._decline(visit, barrier, listener, connections)
                return
        if len(self._visits) < (room := self._room()):
            self._visits[visit] = None
            connections.start_soon(self._attend, visit, listener, has_entered)
            return
        if has_entered:
            self._reception.turnstile.leave(ip)
        self._refused_busy += 1
        self._refusing += 1
        self._warn("as many connections as allowed; answering 503", max_connections=room)
        connections.start_soon(self._refuse_busy, visit)

    def _decline(self, visit: Visit, barrier: Barrier, listener: Listener, connections: trio.Nursery) -> None:
        """Answer 429 where that costs next to nothing; else only close."""
        self._reception.complain_of(barrier, visit.address)
        if self._may_decline(listener):
            connections.start_soon(self._refuse_barred, visit, barrier)
        else:
            visit.close()

    def _may_decline(self, listener: Listener) -> bool:
        # A TLS handshake costs more than whatever it would protect.
        if listener.is_tls or self._declining >= REFUSALS_AT_ONCE:
            return False
        self._declining += 1
        return True

    def _warn(self, message: str, **facts: object) -> None:
        self._complaints.warn(message, trio.current_time(), **facts)

    async def _attend(self, visit: Visit, listener: Listener, has_entered: bool) -> None:
        """Serve one connection to its end, inside its fence."""
        try:
            if listener.expects_proxy:
                has_entered = await self._introduce(visit, listener)
            if not listener.is_tls or await self._secure(visit) != "h2":
                await self._converse(visit, listener)
            elif self._http2 is not None:
                await self._http2(visit, partial(self._attend_stream, listener))
        except* VisitorLeft:
            pass
        except* Exception as group:
            self._failed += 1
            log.error("connection failed", exc_info=group)
        finally:
            if has_entered:
                self._reception.turnstile.leave(visit.address)
            self._visits.pop(visit, None)
            visit.close()
            log.debug("connection closed", served=visit.served)

    async def _secure(self, visit: Visit) -> str:
        assert self._certificate is not None
        return await visit.secure(self._certificate.context)

    async def _attend_stream(self, listener: Listener, visit: Visit) -> None:
        """Serve one stream of an HTTP/2 connection, as a connection with a fence of its own."""
        if len(self._visits) + self._streams >= self._room():
            self._refused_busy += 1
            self._refusing += 1
            await self._refuse_busy(visit)
            return
        reception = self._reception
        # From behind a trusted proxy each request is counted for its own address.
        address = None if reception.proxies.trusts(visit.address) else visit.address
        barrier = reception.turnstile.enter(address, trio.current_time(), connects=False)
        if barrier is not None:
            reception.complain_of(barrier, address)
            await self._refuse(visit, too_many(barrier))
            return
        self._visits[visit] = None
        self._streams += 1
        try:
            await self._converse(visit, listener)
        except* VisitorLeft:
            pass
        except* Exception as group:
            self._failed += 1
            log.error("stream failed", exc_info=group)
        finally:
            self._streams -= 1
            reception.turnstile.leave(address)
            self._visits.pop(visit, None)
            visit.close()

    async def _introduce(self, visit: Visit, listener: Listener) -> bool:
        """Have a proxy say who the client is, and count it in. Returns whether it was, which a further proxy is not.

        Raises:
            VisitorLeft: it is not served; where it can be told so, it was.
        """
        proxies, turnstile = self._reception.proxies, self._reception.turnstile
        try:
            if not proxies.trusts(visit.address):
                raise ProxyHeaderError("the peer is not in listen.trusted_proxies")
            await visit.read_proxy_header()
        except ProxyHeaderError as error:
            self._without_proxy_header += 1
            self._warn("a connection without a PROXY header was closed", why=str(error), address=visit.address)
            raise VisitorLeft from None
        if proxies.trusts(visit.address):
            return False
        barrier = turnstile.enter(visit.address, trio.current_time())
        if barrier is None:
            return True
        self._reception.complain_of(barrier, visit.address)
        if self._may_decline(listener):
            await self._refuse_barred(visit, barrier)
        raise VisitorLeft

    async def _converse(self, visit: Visit, listener: Listener) -> None:
        """Answer requests until there are no more."""
        reception = self._reception
        checks_host = reception.is_open and not listener.is_tls and listener.is_loopback
        try:
            while True:
                answering = reception.answer(visit, await visit.read_request(), checks_host=checks_host)
                if not await answering or reception.is_closing:
                    return
        except RequestRefused as refused:
            await reception.answer_malformed(visit, refused)

    async def _refuse_busy(self, visit: Visit) -> None:
        try:
            await self._refuse(
                visit,
                RequestRefused(
                    503,
                    f"the daemon serves {self._room()} connections, as many as it may",
                    "Try again later; the operator can raise clients.max_connections or the open-file limit.",
                    {"Retry-After": "5"},
                ),
            )
        finally:
            self._refusing -= 1

    async def _refuse_barred(self, visit: Visit, barrier: Barrier) -> None:
        try:
            await self._refuse(visit, too_many(barrier))
        finally:
            self._declining -= 1

    async def _refuse(self, visit: Visit, refused: RequestRefused) -> None:
        try:
            await visit.write(refusal_answer(refused))
            await visit.linger()
        except* (VisitorLeft, OSError):
            pass
        finally:
            visit.close()
