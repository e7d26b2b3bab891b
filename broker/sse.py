"""An SSE client of channels: whatever is published on them, as blocks that all such clients share.

Source: WHATWG HTML, 9.2; the wire contract, "Base: SSE".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import attrs
import msgspec
import trio
from attrs import define, field

from broker import eventstream
from broker.answerstream import AnswerStream, failure, stream_head
from broker.auth.rules import RuleBook, check_rights
from broker.client import Client, fenced
from broker.clientele import Clientele
from broker.config.sections import Clients, Sse
from broker.cursor import Cursor, since_of
from broker.ending import COMPLETE, UPSTREAM_REFUSED
from broker.errors import UpstreamError
from broker.gap import Gap
from broker.gate import Gate
from broker.history.history import History
from broker.hub import Hub
from broker.origins import Origins
from broker.position import NOWHERE, Position, Since, Start, start_facts
from broker.request import Request, RequestRefused, answer
from broker.run import Run
from broker.seats import Seat
from broker.stream import EndedStreams, Stream, check_path, last_index, stream_of
from broker.timestamp import timestamp
from broker.topic.topic import Outlet
from broker.visit import Visit
from broker.wireformat import (
    EVENT_STREAM,
    EVENT_STREAM_BARE,
    EVENT_STREAM_V1,
    EVENT_STREAM_V1_BARE,
    WireFormat,
    user_envelope,
    v1_blocks_with_ids,
)

_END_ID = "end"


def _encode_end(payload: bytes) -> bytes:
    body = msgspec.json.encode({"type": "complete", "data": msgspec.Raw(payload), "timestamp": timestamp(time.time())})
    # The id is for the browser's own reconnect: it comes back with Last-Event-ID and is told to stop.
    return eventstream.block(body, event="complete", id=_END_ID)


# Each event has its position as `id`, and so has `complete` an end of its own.
FINITE_EVENT_STREAM = attrs.evolve(
    EVENT_STREAM, last_index=last_index, encode_end=lambda payload: eventstream.chunk(_encode_end(payload))
)
FINITE_EVENT_STREAM_BARE = attrs.evolve(EVENT_STREAM_BARE, last_index=last_index, encode_end=_encode_end)
# On several channels the `id` tells where the client is in all of them, so it is each client's own.
CURSOR_STREAM = attrs.evolve(EVENT_STREAM, is_personal=True)
CURSOR_STREAM_BARE = attrs.evolve(EVENT_STREAM_BARE, is_personal=True)
CURSOR_STREAM_V1 = attrs.evolve(EVENT_STREAM_V1, is_personal=True)
CURSOR_STREAM_V1_BARE = attrs.evolve(EVENT_STREAM_V1_BARE, is_personal=True)


@define(eq=False)
class SseDoor:
    """Serves `/api/stream`.

    Args:
        served: the channel types; None for all.
        keeps_history: tells whether a channel has history.
    """

    _hub: Hub
    _history: History
    _keeps_history: Callable[[bytes], bool]
    _clientele: Clientele
    _clients: Clients
    _sse: Sse
    _served: frozenset[str] | None
    _gate: Gate
    _rules: RuleBook
    _origins: Origins
    _ended: EndedStreams
    _is_upstream_away: Callable[[], bool]

    def adapt(self, clients: Clients, sse: Sse) -> None:
        """Go by other bounds from here on, for clients that come."""
        self._clients, self._sse = clients, sse
        self._ended.seconds = sse.ended_seconds

    async def serve(self, visit: Visit, request: Request) -> bool:
        origin = request.text(b"origin")
        cors = self._origins.cors_headers(origin)
        if request.method == "OPTIONS":
            preflight = self._origins.preflight_headers(origin, "GET")
            await visit.write(answer(204, b"", {"Allow": "GET", **preflight}))
            return False
        try:
            if request.method != "GET":
                check_path(request.path)
                raise RequestRefused(405, "streams are read with GET", "Use GET.", {"Allow": "GET"})
            query = request.query()
            stream = stream_of(request.path, query, self._served, self._sse.channels_max)
            identity = await self._gate.identify(request)
            visit.user_id = identity.user_id
            check_rights(self._rules, identity, stream.channels)
            last_id = request.last_event_id(query) or ""
            if stream.finite and await self._has_ended(stream, last_id):
                await visit.write(answer(204, b"", cors))
                return False
            seat = await self._clientele.admit(identity, "sse", self._gate.check_still)
        except RequestRefused as refused:
            refused.headers.update(cors)
            raise
        client = Client(f"sse_{os.urandom(8).hex()}", "sse", identity, visit.socket, self._clients)
        chunked = request.http_version == b"1.1"
        del request
        await self._stream(visit, client, seat, stream, last_id, chunked, cors)
        return False

    async def _has_ended(self, stream: Stream, last_id: str) -> bool:
        """Whether the client has had the last event of a stream that has one."""
        name = stream.channels[0].name.encode()
        if last_id == _END_ID:
            return True
        if not self._keeps_history(name):
            return self._ended.has(name, trio.current_time())
        since = Since(Position.from_text(last_id))
        if since.position is None:
            return False
        try:
            page = await self._history.page(name, since)
        except (UpstreamError, ValueError):  # what is wrong with it the reading of it tells
            return False
        return page.anchor is not None and last_index([page.anchor]) is not None

    async def _stream(
        self,
        visit: Visit,
        client: Client,
        seat: Seat,
        stream: Stream,
        last_id: str,
        chunked: bool,
        cors: dict[str, str],
    ) -> None:
        names = tuple(channel.name.encode() for channel in stream.channels)
        if last_id:
            since = since_of(last_id, names)
            # No id tells where it was in these: what it missed is not known.
            since |= {name: Since(None) for name in names if not self._keeps_history(name)}
            stream = attrs.evolve(stream, since=since)

        def converse(client: Client) -> EventStream:
            head = stream_head(chunked, cors)
            found = EventStream(client, self._sse, chunked, head, self._hub, names, stream, self._is_upstream_away)
            visit.hand_over()
            return found

        ending = await self._clientele.serve(client, converse, seat)
        visit.served = f"{client.id} until {ending.name}"


@define(eq=False)
class EventStream(AnswerStream):
    """One stream: joins its channels, says `connected` when all are live, and never hears anything.

    Args:
        stream: what was asked for.
    """

    _hub: Hub
    _names: tuple[bytes, ...]
    _stream: Stream
    _is_upstream_away: Callable[[], bool]
    _cursor: Cursor = field(init=False, factory=Cursor)

    @property
    def outlet(self) -> Outlet:
        return self._client.outbox

    def opened(self) -> float:
        now = trio.current_time()
        self._client.outbox.on_drained = self._drained
        if not self._hub.join(self, self._names, self._format(), self._stream.since, now):
            # Whoever reads along sees why `connected` has to wait; to EventSource it is nothing.
            self.send(eventstream.comment("waiting for Redis") if self._is_upstream_away() else b"")
        return now + self._bounds.keep_alive_seconds

    @property
    def channel_names(self) -> list[str]:
        return [name.decode() for name in self._names]

    def closed(self) -> None:
        for name in self._names:
            self._hub.leave(self, name)

    @fenced
    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        # With an id: who is cut off before the first event can come back to here.
        places = {name: start.position for name, start in starts.items() if start.position is not None}
        for name, position in places.items():
            self._cursor.set(name, position)
        if not places:
            # Who comes back to channels without history is told that something may be missing.
            id = NOWHERE
        else:
            id = places[names[0]] if self._is_alone else self._cursor.id
        facts: dict[str, object] = {}
        if self._stream.is_v1:
            facts["channels"] = [_start_facts(name, starts.get(name)) for name in names]
            facts["keepAliveMs"] = round(self._bounds.keep_alive_seconds * 1000)
        self.greet(id=id.decode(), **facts)

    def user_event(self, event: bytes) -> bytes:
        return user_envelope(event) if self._stream.is_v1 else event

    def compose(self, name: bytes, item: Run | Gap) -> bytes:
        try:
            return self._composed(name, item)
        except Exception:
            self._client.fail()
            return b""

    def _composed(self, name: bytes, item: Run | Gap) -> bytes:
        before = self._cursor.before(name)
        if isinstance(item, Gap):
            id = None if item.end is None else (before + item.end).decode()
            data = eventstream.block(item.body(name), event="gap", id=id)
        else:
            ids = [before + position for position in item.positions]
            if self._stream.is_v1:
                data = v1_blocks_with_ids(ids, name, item)
            else:
                data = eventstream.blocks_with_ids(ids, item.payloads)
        return eventstream.chunk(data) if self._chunked and data else data

    @fenced
    def passed(self, name: bytes, position: bytes) -> None:
        self._cursor.set(name, position)

    @fenced
    def refused(self, name: bytes, why: str) -> None:
        facts = {"channel": name.decode()} if self._stream.is_v1 else {}
        self.send(failure(f"Redis refused channel {name.decode()}: {why}", **facts))
        self._client.end(UPSTREAM_REFUSED)

    @fenced
    def stream_ended(self, name: bytes) -> None:
        # From here on nothing is taken, also of what is dispatched before the client's task runs.
        self._client.outbox.finish(b"", drop_unsent=False)
        self._client.end(COMPLETE)

    @fenced
    def _drained(self) -> None:
        self._hub.drained(self, self._names, trio.current_time())

    @property
    def _is_alone(self) -> bool:
        return len(self._names) == 1

    def _format(self) -> WireFormat:
        if self._stream.finite:
            return FINITE_EVENT_STREAM if self._chunked else FINITE_EVENT_STREAM_BARE
        return _FORMATS[self._stream.is_v1, self._is_alone, self._chunked]


_FORMATS = {
    (False, True, True): EVENT_STREAM,
    (False, True, False): EVENT_STREAM_BARE,
    (False, False, True): CURSOR_STREAM,
    (False, False, False): CURSOR_STREAM_BARE,
    (True, True, True): EVENT_STREAM_V1,
    (True, True, False): EVENT_STREAM_V1_BARE,
    (True, False, True): CURSOR_STREAM_V1,
    (True, False, False): CURSOR_STREAM_V1_BARE,
}


def _start_facts(name: bytes, start: Start | None) -> dict[str, object]:
    return {"name": name.decode(), **start_facts(start)}
