"""An SSE client: the answer's head, then an event stream that goes through the outbox.

Over HTTP/1.1 the stream is chunked, so that a client can tell its end from a cut; over HTTP/1.0 it
is bare and ends with the connection. Bytes that the client sends behind its request are ignored, up
to a bound.

Source: WHATWG HTML, 9.2; the wire contract, "Base: SSE".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec
import trio
from attrs import define, field

from broker import eventstream
from broker.client import Client
from broker.clientele import Clientele
from broker.config.sections import Clients, Sse
from broker.cors import cors_headers, preflight_headers
from broker.ending import (
    COMPLETE,
    INTERNAL_ERROR,
    LEFT,
    OUTBOX_FULL,
    OUTBOX_STALE,
    REQUEST_TOO_BIG,
    SHUTDOWN,
    UPSTREAM_REFUSED,
    VANISHED,
    Ending,
)
from broker.hub import Hub, Outlet
from broker.request import Request, RequestRefused, answer
from broker.stream import EndedStreams, Stream, last_index, stream_of
from broker.timestamp import timestamp
from broker.visit import Visit
from broker.wireformat import EVENT_STREAM, EVENT_STREAM_BARE, WireFormat

_IGNORED_BYTES_MAX = 64 * 1024
_END_ID = "end"


def _encode_end(payload: bytes) -> bytes:
    body = msgspec.json.encode({"type": "complete", "data": msgspec.Raw(payload), "timestamp": timestamp(time.time())})
    # The id is for the browser's own reconnect: it comes back with Last-Event-ID and is told to stop.
    return eventstream.block(body, event="complete", id=_END_ID)


FINITE_EVENT_STREAM = WireFormat(
    "sse", EVENT_STREAM.encode, last_index, lambda payload: eventstream.chunk(_encode_end(payload))
)
FINITE_EVENT_STREAM_BARE = WireFormat("sse_bare", EVENT_STREAM_BARE.encode, last_index, _encode_end)


@define(eq=False)
class SseDoor:
    """Serves `/api/stream`. `served` are the channel types; None for all."""

    _hub: Hub
    _clientele: Clientele
    _clients: Clients
    _sse: Sse
    _served: frozenset[str] | None
    _cors_origins: tuple[str, ...]
    _ended: EndedStreams
    _is_upstream_away: Callable[[], bool]

    async def serve(self, visit: Visit, request: Request) -> bool:
        origin = (request.header(b"origin") or b"").decode("latin-1") or None
        cors = cors_headers(origin, self._cors_origins)
        if request.method == "OPTIONS":
            preflight = preflight_headers(origin, self._cors_origins, "GET")
            await visit.write(answer(204, b"", {"Allow": "GET", **preflight}))
            return False
        try:
            if request.method != "GET":
                raise RequestRefused(405, "streams are read with GET", "Use GET.", {"Allow": "GET"})
            query = request.query()
            stream = stream_of(request.path, query, self._served, self._sse.channels_max)
        except RequestRefused as refused:
            refused.headers.update(cors)
            raise
        if stream.finite and self._has_ended(stream, request):
            await visit.write(answer(204, b"", cors))
            return False
        client = Client(f"sse_{os.urandom(8).hex()}", "sse", dict(query).get("userId"), visit.socket, self._clients)
        await self._stream(visit, client, stream, request.http_version == b"1.1", cors)
        return False

    def _has_ended(self, stream: Stream, request: Request) -> bool:
        return request.header(b"last-event-id") == _END_ID.encode() or self._ended.has(
            stream.channels[0].name.encode(), trio.current_time()
        )

    async def _stream(self, visit: Visit, client: Client, stream: Stream, chunked: bool, cors: dict[str, str]) -> None:
        visit.hand_over()

        def converse(client: Client) -> EventStream:
            names = tuple(channel.name.encode() for channel in stream.channels)
            head = _head(chunked, cors)
            return EventStream(
                client, self._hub, self._sse, names, stream.finite, chunked, head, self._is_upstream_away
            )

        ending = await self._clientele.serve(client, converse)
        visit.served = f"{client.id} until {ending.name}"


def _head(chunked: bool, cors: dict[str, str]) -> bytes:
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: text/event-stream",
        "Cache-Control: no-cache, no-transform",
        "X-Accel-Buffering: no",
        "Connection: keep-alive" if chunked else "Connection: close",
    ]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    lines += [f"{name}: {value}" for name, value in cors.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


@define(eq=False)
class EventStream:
    """One stream: joins its channels, says `connected` when all are live, and never hears anything.

    Args:
        head: the answer's head, sent with whatever is sent first.
        finite: the stream ends with its last event.
    """

    _client: Client
    _hub: Hub
    _bounds: Sse
    _names: tuple[bytes, ...]
    _finite: bool
    _chunked: bool
    _head: bytes
    _is_upstream_away: Callable[[], bool]
    _ignored: int = field(init=False, default=0)

    @property
    def outlet(self) -> Outlet:
        return self._client.outbox

    def opened(self) -> float:
        now = trio.current_time()
        if not self._hub.join(self, self._names, self._format()):
            # Whoever reads along sees why `connected` has to wait; to EventSource it is nothing.
            self._send(eventstream.comment("waiting for Redis") if self._is_upstream_away() else b"")
        return now + self._bounds.keep_alive_seconds

    def receive(self, data: bytes) -> None:
        self._ignored += len(data)
        if self._ignored > _IGNORED_BYTES_MAX:
            self._client.end(REQUEST_TOO_BIG)

    def pulse(self, now: float) -> float:
        self._send(eventstream.comment(f"keep-alive {timestamp(time.time())}"))
        return now + self._bounds.keep_alive_seconds

    def goodbye(self, ending: Ending) -> bytes:
        if ending in (LEFT, VANISHED, REQUEST_TOO_BIG):
            return b""
        last = _LAST_WORDS.get(ending, _no_words)(self._bounds)
        if not self._chunked:
            return last
        return (eventstream.chunk(last) if last else b"") + eventstream.END_OF_CHUNKS

    @property
    def awaits_peer(self) -> bool:
        return False

    @property
    def channel_names(self) -> list[str]:
        return [name.decode() for name in self._names]

    def closed(self) -> None:
        for name in self._names:
            self._hub.leave(self, name)

    def joined(self, names: tuple[bytes, ...]) -> None:
        greeting = {
            "type": "connected",
            "message": "SSE connection established",
            "clientId": self._client.id,
            "timestamp": timestamp(time.time()),
        }
        self._send(eventstream.block(msgspec.json.encode(greeting)))

    def refused(self, name: bytes, why: str) -> None:
        self._send(_failure(f"Redis refused channel {name.decode()}: {why}"))
        self._client.end(UPSTREAM_REFUSED)

    def stream_ended(self, name: bytes) -> None:
        # From here on nothing is taken, also of what is dispatched before the client's task runs.
        self._client.outbox.finish(b"", drop_unsent=False)
        self._client.end(COMPLETE)

    def _format(self) -> WireFormat:
        if self._finite:
            return FINITE_EVENT_STREAM if self._chunked else FINITE_EVENT_STREAM_BARE
        return EVENT_STREAM if self._chunked else EVENT_STREAM_BARE

    def _send(self, data: bytes) -> None:
        if data and self._chunked:
            data = eventstream.chunk(data)
        head, self._head = self._head, b""
        self._client.outbox.send(head + data, trio.current_time())


def _failure(message: str) -> bytes:
    """An `error` event."""
    body = {"type": "error", "error": message, "timestamp": timestamp(time.time())}
    return eventstream.block(msgspec.json.encode(body), event="error")


def _shutdown_words(bounds: Sse) -> bytes:
    body = {
        "type": "server_shutdown",
        "message": "Server is shutting down",
        "timestamp": timestamp(time.time()),
    }
    return eventstream.block(msgspec.json.encode(body), retry_milliseconds=bounds.retry_milliseconds)


def _slow_words(bounds: Sse) -> bytes:
    return _failure("client too slow: events were dropped; reconnect to go on")


def _no_words(bounds: Sse) -> bytes:
    return b""


_LAST_WORDS: dict[Ending, Callable[[Sse], bytes]] = {
    SHUTDOWN: _shutdown_words,
    OUTBOX_FULL: _slow_words,
    OUTBOX_STALE: _slow_words,
    INTERNAL_ERROR: lambda bounds: _failure("internal error; it is in the daemon's log"),
}
