"""An SSE client of channels: whatever is published on them, as blocks that all such clients share.

Source: WHATWG HTML, 9.2; the wire contract, "Base: SSE".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec
import trio
from attrs import define

from broker import eventstream
from broker.answerstream import AnswerStream, failure, stream_head
from broker.client import Client
from broker.clientele import Clientele
from broker.config.sections import Clients, Sse
from broker.cors import cors_headers, preflight_headers
from broker.ending import COMPLETE, UPSTREAM_REFUSED
from broker.hub import Hub, Outlet
from broker.request import Request, RequestRefused, answer
from broker.stream import EndedStreams, Stream, last_index, stream_of
from broker.timestamp import timestamp
from broker.visit import Visit
from broker.wireformat import EVENT_STREAM, EVENT_STREAM_BARE, WireFormat

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
            head = stream_head(chunked, cors)
            return EventStream(
                client, self._sse, chunked, head, self._hub, names, stream.finite, self._is_upstream_away
            )

        ending = await self._clientele.serve(client, converse)
        visit.served = f"{client.id} until {ending.name}"


@define(eq=False)
class EventStream(AnswerStream):
    """One stream: joins its channels, says `connected` when all are live, and never hears anything.

    Args:
        finite: the stream ends with its last event.
    """

    _hub: Hub
    _names: tuple[bytes, ...]
    _finite: bool
    _is_upstream_away: Callable[[], bool]

    @property
    def outlet(self) -> Outlet:
        return self._client.outbox

    def opened(self) -> float:
        now = trio.current_time()
        if not self._hub.join(self, self._names, self._format()):
            # Whoever reads along sees why `connected` has to wait; to EventSource it is nothing.
            self.send(eventstream.comment("waiting for Redis") if self._is_upstream_away() else b"")
        return now + self._bounds.keep_alive_seconds

    @property
    def channel_names(self) -> list[str]:
        return [name.decode() for name in self._names]

    def closed(self) -> None:
        for name in self._names:
            self._hub.leave(self, name)

    def joined(self, names: tuple[bytes, ...]) -> None:
        self.greet()

    def refused(self, name: bytes, why: str) -> None:
        self.send(failure(f"Redis refused channel {name.decode()}: {why}"))
        self._client.end(UPSTREAM_REFUSED)

    def stream_ended(self, name: bytes) -> None:
        # From here on nothing is taken, also of what is dispatched before the client's task runs.
        self._client.outbox.finish(b"", drop_unsent=False)
        self._client.end(COMPLETE)

    def _format(self) -> WireFormat:
        if self._finite:
            return FINITE_EVENT_STREAM if self._chunked else FINITE_EVENT_STREAM_BARE
        return EVENT_STREAM if self._chunked else EVENT_STREAM_BARE
