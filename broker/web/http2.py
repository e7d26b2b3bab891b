"""HTTP/2: connections whose TLS handshake agreed on `h2`. `http2connection.py` is one of them.

No upgrade from HTTP/1.1, no HTTP/2 without TLS, no server push, no WebSocket: browsers open a
connection of HTTP/1.1 for that by themselves (RFC 8441 is not announced).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field, frozen

from broker.visit import Visit

STREAMS_MAX = 100
STREAMS_PER_CONNECTION = 10_000  # then the connection is retired: what h2 remembers of streams stays bounded

# Serves a visit to its end, inside a fence of its own.
Attend = Callable[[Visit], Awaitable[None]]


@frozen
class Http2Statistics:
    """A snapshot: connections and streams now; streams, and connections that were ended for too much, since the
    start."""

    connections: int
    streams: int
    streams_served: int
    ended_for_flood: int


@define(eq=False)
class Http2Counts:
    """Counts of all connections."""

    connections: int = 0
    streams: int = 0
    streams_served: int = 0
    ended_for_flood: int = 0


@define(eq=False)
class Http2:
    """Serves HTTP/2.

    Args:
        patience_seconds: how long a peer, or a stream, may take nothing at all while something waits for it.
    """

    patience_seconds: float
    _counts: Http2Counts = field(init=False, factory=Http2Counts)

    async def serve(self, visit: Visit, attend: Attend) -> None:
        """Serve one connection to its end; the door closes it.

        Args:
            attend: serves one stream, which is a visit of its own.
        """
        from broker.web.http2connection import Http2Connection

        self._counts.connections += 1
        try:
            await Http2Connection(visit, attend, self.patience_seconds, self._counts).serve()
        finally:
            self._counts.connections -= 1

    def load(self) -> None:
        """Import what it needs, before the first client waits for it."""
        import broker.web.http2connection  # noqa: F401

    def statistics(self) -> Http2Statistics:
        counts = self._counts
        return Http2Statistics(counts.connections, counts.streams, counts.streams_served, counts.ended_for_flood)
