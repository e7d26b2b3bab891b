"""The reception: where every request comes by, of a connection or of an HTTP/2 stream, before whoever serves its path.

In order: whom it comes from, where a trusted proxy says so, and the limits of that address; the page that it comes
from; its handler. A refusal is answered here. When it is over, the log may get a line.

Law: nothing else answers a request, so no request is served past its limits, and every one can be in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import structlog
import trio
from attrs import Factory, define, field, frozen

from broker.auth.credential import masked
from broker.complaints import Complaints
from broker.forwarded import Proxies
from broker.origins import Origins
from broker.request import Request, RequestRefused, refusal_answer
from broker.turnstile import Barrier, Turnstile
from broker.visit import Visit, VisitorLeft

log = structlog.get_logger(__name__)

# Serves one request. Returns whether the connection can carry another one.
Handler = Callable[[Visit, Request], Awaitable[bool]]


@frozen
class Route:
    """The path `prefix`, and what is below it unless `exact`, go to `handler`; where `prefix` is empty, everything.

    Args:
        is_public: pages of every origin may load what is there; it is the same for everybody, and does nothing.
    """

    prefix: str
    handler: Handler
    exact: bool = False
    is_public: bool = False

    def serves(self, path: str) -> bool:
        return path == self.prefix or (not self.exact and path.startswith(f"{self.prefix}/")) or not self.prefix


@frozen
class ReceptionStatistics:
    """A snapshot, since the start.

    Args:
        refused_by_limit: connections, and requests from behind trusted proxies, that were over a limit of their
            address, by the name of its setting.
        refused_by_status: requests that were refused here or by their handler, by the status of the answer.
        refused_pages: requests of pages that may not connect, or to a name that is not this machine's.
    """

    refused_by_limit: Mapping[str, int]
    refused_pages: int
    refused_by_status: Mapping[str, int]


@define(eq=False)
class Reception:
    """Receives requests.

    Args:
        routes: the first that serves a path gets it; the last serves every path.
        is_open: whether authentication is off, so that everybody on this machine is let in.
        logs_requests: whether the log gets a line for every request when it is over.
    """

    _routes: tuple[Route, ...]
    proxies: Proxies = Factory(Proxies)
    turnstile: Turnstile = Factory(Turnstile)
    _origins: Origins = Factory(Origins)
    is_open: bool = False
    _logs_requests: bool = False
    is_closing: bool = field(init=False, default=False)
    is_parting: bool = field(init=False, default=False)  # the next request of each connection is its last
    complaints: Complaints = field(init=False, factory=lambda: Complaints(log))
    _refused_pages: int = field(init=False, default=0)
    _refused: Counter[str] = field(init=False, factory=Counter)

    async def answer(self, visit: Visit, request: Request, *, checks_host: bool = False) -> bool:
        """Answer one request; a refusal is an answer too.

        Args:
            checks_host: whether only names of this machine count as `Host`, unless a trusted proxy asks.

        Returns:
            Whether the connection can carry another request.

        Raises:
            VisitorLeft: the peer is gone, or does not read.
        """
        begun_at = trio.current_time()
        visit.served, visit.status, visit.user_id = request.method, "", None
        address, scheme = visit.address, visit.scheme
        is_forwarded = self.proxies.trusts(address)
        if is_forwarded:
            whence = self.proxies.whence(address, request.headers)
            address, scheme = whence.address, whence.scheme
        request = request.coming_from(address, scheme, is_last=self.is_parting)
        method, noted = request.method, self._facts(request) if self._logs_requests else {}
        has_entered = False
        try:
            if self.is_closing:
                raise RequestRefused(503, "the daemon is shutting down", "Try again in a moment.", {"Retry-After": "1"})
            if is_forwarded:
                self._enter(address)
                has_entered = True
            route = self._route(request.path)
            if request.method != "OPTIONS":  # a browser asks with it what its page may do
                self._check_page(request, route, checks_host and not is_forwarded)
            answering = route.handler(visit, request)
            # Served for days, a WebSocket need not keep its head, and its cookies, as long.
            del request
            return await answering
        except RequestRefused as refused:
            self._refused[str(refused.status)] += 1
            await visit.write(refusal_answer(refused, method))
            await visit.linger()
            return False
        except VisitorLeft:
            raise
        except Exception:
            if visit.is_handed_over or visit.status:
                raise  # too late for an answer: the fence of the connection ends it
            failed = _failed()
            self._refused[str(failed.status)] += 1
            log.exception("request failed", method=method, client=address, user=visit.user_id)
            await visit.write(refusal_answer(failed, method))
            await visit.linger()
            return False
        finally:
            if has_entered:
                self.turnstile.leave(address)
            if noted:
                self._note(visit, noted, begun_at)

    async def answer_malformed(self, visit: Visit, refused: RequestRefused) -> None:
        """Answer what was no request, after which its connection is over.

        Raises:
            VisitorLeft: the peer is gone, or does not read.
        """
        self._refused[str(refused.status)] += 1
        try:
            await visit.write(refusal_answer(refused))
        finally:
            if self._logs_requests:
                log.info("no request", outcome=str(refused.status), client=visit.address, why=refused.detail)
        await visit.linger()

    def adapt(self, *, logs_requests: bool) -> None:
        """Have the log a line for every request, or not any more."""
        self._logs_requests = logs_requests

    def complain_of(self, barrier: Barrier, address: str | None) -> None:
        self.complaints.warn("an address is over its limit", trio.current_time(), limit=barrier.limit, address=address)

    def statistics(self) -> ReceptionStatistics:
        return ReceptionStatistics(self.turnstile.statistics().refused, self._refused_pages, dict(self._refused))

    def _enter(self, address: str | None) -> None:
        """Count in the client of a request from behind a proxy.

        Raises:
            RequestRefused: it is over a limit.
        """
        barrier = self.turnstile.enter(address, trio.current_time())
        if barrier is not None:
            self.complain_of(barrier, address)
            raise too_many(barrier)

    def _check_page(self, request: Request, route: Route, checks_host: bool) -> None:
        try:
            if checks_host:
                self._origins.check_host(request)
            if not route.is_public:
                self._origins.check(request)
        except RequestRefused as refused:
            self._refused_pages += 1
            # The page itself cannot read why.
            self.complaints.warn("a page was refused", trio.current_time(), why=refused.detail, what_to_do=refused.hint)
            raise

    def _route(self, path: str) -> Route:
        return next(route for route in self._routes if route.serves(path))

    def _facts(self, request: Request) -> dict[str, str | None]:
        """What the log says of a request."""
        return {"method": request.method, "target": masked(request.target), "client": request.address}

    def _note(self, visit: Visit, facts: Mapping[str, str | None], begun_at: float) -> None:
        """The line of a request that is over. `outcome` is its status, or how the stream or WebSocket ended."""
        log.info(
            "request",
            **facts,
            outcome=visit.status or visit.served,
            user=visit.user_id,
            seconds=round(trio.current_time() - begun_at, 3),
        )


def _failed() -> RequestRefused:
    return RequestRefused(500, "the daemon failed to answer this request", "It is in the daemon's log.")


def too_many(barrier: Barrier) -> RequestRefused:
    """The answer to an address that is over a limit."""
    return RequestRefused(
        429,
        f"your address has reached limits.{barrier.limit}",
        f"Try again in {barrier.retry_seconds} s, and keep connections open instead of opening new ones.",
        {"Retry-After": str(barrier.retry_seconds)},
    )
