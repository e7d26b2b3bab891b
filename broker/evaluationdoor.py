"""The evaluation door: a request that starts an evaluation, or watches one, and streams its answer.

The door asks and watches; workers do the work (`broker/evaluation/`), and the ledger in Redis stands
between. Every event has an id, `<evaluation>:<offset>`, so a reconnect goes on behind the last event
that the client has, on any daemon, and nothing is started twice. Events are read from the ledger; what
is published on the evaluation's channel only rings.

Laws: who watches is told the end, whatever happens to workers and daemons: `complete`, or `error`.
Bounds: `evaluations.pending_max`; a page of `_PAGE_EVENTS` is read when the one before it was sent.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog
import trio
from attrs import define, field

from broker.answerstream import failure, failure_body, stream_head
from broker.auth.identity import OPEN, Identity
from broker.auth.rules import RuleBook, check_rights
from broker.channel import Channel
from broker.client import Client
from broker.clientele import Clientele
from broker.config.sections import Clients, Evaluations, Sse
from broker.ending import COMPLETE
from broker.errors import UpstreamError
from broker.evaluationstream import Bell, EvaluationStream
from broker.gate import Gate
from broker.hub import Hub
from broker.inquiry import (
    COUNCIL_SCORE,
    KINDS,
    PATHS,
    Inquiry,
    InquiryRefused,
    Watch,
    example_of,
    inquiry_from_body,
    inquiry_from_query,
    watch_of,
)
from broker.ledger.evaluation import OVER, Sight, new_id
from broker.ledger.ledger import PAGE_BYTES, Ledger
from broker.origins import Origins
from broker.request import Request, RequestRefused, answer
from broker.visit import Visit

_PAGE_EVENTS = 200
# A watcher looks by itself at least this often: that is how it says that it is still there, and how a death is found.
_LOOK_SECONDS = 1.0
# A connection that breaks while an evaluation is asked for: it is asked for again, for so long.
_START_SECONDS = 2.0
_RETRY_SECONDS = 0.1
# Pieces of text come by the dozen a second from each model; those of a moment go out together.
_GATHER_SECONDS = 0.02
# To a browser that reconnects with this id there is nothing more to say.
_REFUSED_ID = "refused"
_METHODS = "GET, POST"
_GONE = "there is no such evaluation any more"
# To whoever asks; why, and where Redis is, is for the log.
_AWAY = "the daemon cannot reach Redis right now; try again in a moment"
_COMPLAINT_SECONDS = 1.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


@define(eq=False)
class EvaluationDoor:
    """Serves `/api/stream/council-score` and `/api/stream/evaluate-creative`."""

    _hub: Hub
    _clientele: Clientele
    _ledger: Ledger
    _clients: Clients
    _sse: Sse
    _bounds: Evaluations
    _gate: Gate
    _rules: RuleBook
    _origins: Origins
    _complained_at: float = field(init=False, default=float("-inf"))
    _started: Counter[str] = field(init=False, factory=Counter)
    _refused: Counter[str] = field(init=False, factory=Counter)

    def adapt(self, clients: Clients, sse: Sse, bounds: Evaluations) -> None:
        """Go by other bounds from here on, for requests that come."""
        self._clients, self._sse, self._bounds = clients, sse, bounds

    async def serve(self, visit: Visit, request: Request) -> bool:
        origin = request.text(b"origin")
        cors = self._origins.cors_headers(origin)
        try:
            if request.method == "OPTIONS":
                preflight = self._origins.preflight_headers(origin, _METHODS)
                await visit.write(answer(204, b"", {"Allow": _METHODS, **preflight}))
            elif request.method == "GET":
                await self._get(visit, request, cors)
            elif request.method == "POST":
                await self._post(visit, request, cors)
            else:
                raise RequestRefused(
                    405, f"{request.method} is not allowed here", "Use GET or POST.", {"Allow": _METHODS}
                )
        except RequestRefused as refused:
            refused.headers.update(cors)
            raise
        return False

    def statistics(self) -> Mapping[str, Any]:
        """Since the start, by kind: evaluations that were started, and refused because too many were pending."""
        return {"started": dict(self._started), "refusedPending": dict(self._refused)}

    async def keep_time(self) -> None:
        """Come by in the ledger every second, also while nobody asks for anything. Runs until cancelled."""
        while True:
            for kind in KINDS:
                try:
                    await self._ledger.pulse(kind)
                except UpstreamError:
                    break
            await trio.sleep(_LOOK_SECONDS)

    async def _get(self, visit: Visit, request: Request, cors: dict[str, str]) -> None:
        """EventSource shows a page nothing but events: so what is wrong with a new request is one."""
        query = request.query()
        last_event_id = request.last_event_id(query)
        if last_event_id == _REFUSED_ID:
            await visit.write(answer(204, b"", cors))
            return
        watch = watch_of(request.path, last_event_id)
        identity = await self._admit(visit, request, watch)
        try:
            if watch is None:
                watch = await self._start(inquiry_from_query(request.path, query), identity)
            sight = await self._insist(self._ledger.follow, watch.kind, watch.id, watch.offset, 1)
        except InquiryRefused as refused:
            await self._fail(visit, cors, failure(str(refused), id=_REFUSED_ID))
            return
        except _TooMany as error:
            # Without an id, so that the browser comes back and asks again.
            await self._fail(visit, cors, failure(str(error)))
            return
        except UpstreamError as error:
            self._complain(error)
            await self._fail(visit, cors, failure(_AWAY))
            return
        await self._stream(visit, request, cors, watch, sight, identity)

    async def _post(self, visit: Visit, request: Request, cors: dict[str, str]) -> None:
        """Whoever can POST can read a status."""
        try:
            watch, identity = await self._ask(visit, request)
            sight = await self._insist(self._ledger.follow, watch.kind, watch.id, watch.offset, 1)
        except InquiryRefused as refused:
            raise RequestRefused(400, str(refused), f"Send {example_of(request.path)}.") from None
        except _TooMany as error:
            raise RequestRefused(503, str(error), "Try again later.", {"Retry-After": "5"}) from None
        except UpstreamError as error:
            self._complain(error)
            raise RequestRefused(503, _AWAY, "Try again in a moment.", {"Retry-After": "1"}) from None
        await self._stream(visit, request, cors, watch, sight, identity)

    async def _ask(self, visit: Visit, request: Request) -> tuple[Watch, Identity]:
        """What a POST is about, and for whom. Its body is let go here: the answer may take minutes."""
        watch = watch_of(request.path, request.last_event_id([]))
        identity = await self._admit(visit, request, watch)
        body = await visit.read_body(request)
        if watch is not None:
            return watch, identity
        inquiry = inquiry_from_body(request.path, body)
        if identity.kind == OPEN:
            identity = Identity(OPEN, inquiry.user_id)
        return await self._start(inquiry, identity), identity

    async def _admit(self, visit: Visit, request: Request, watch: Watch | None) -> Identity:
        """Who asks, and may: the evaluation's own channel decides, for a new one that of its kind.

        Raises:
            RequestRefused: who may not, and who has too many streams.
        """
        identity = await self._gate.identify(request)
        visit.user_id = identity.user_id
        if watch is None:
            kind = next((kind for path, kind in PATHS.items() if request.path.startswith(path)), COUNCIL_SCORE)
            channel = Channel(kind, new_id())
        else:
            channel = Channel(watch.kind, watch.id)
        check_rights(self._rules, identity, (channel,))
        self._clientele.check_room(identity, "sse")
        return identity

    async def _start(self, inquiry: Inquiry, identity: Identity) -> Watch:
        id = new_id()
        if identity.kind != OPEN and inquiry.user_id not in (None, identity.user_id):
            raise RequestRefused(403, "userId names another user than the token", "Leave userId out.")
        bounds = self._bounds
        parameters = msgspec.json.encode(inquiry.parameters)
        ask = partial(
            self._ledger.start,
            grace_seconds=bounds.grace_seconds,
            keep_seconds=bounds.keep_seconds,
            pending_max=bounds.pending_max,
        )
        # The id is ours, so asking again starts nothing twice.
        started = await self._insist(ask, inquiry.kind, id, parameters, identity.user_id)
        if not started:
            self._refused[inquiry.kind] += 1
            raise _TooMany(f"{bounds.pending_max} evaluations are waiting or running, as many as may; try again later")
        self._started[inquiry.kind] += 1
        return Watch(inquiry.kind, id, 0, False)

    async def _insist(self, ask: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Ask Redis, and again where the connection broke."""
        give_up_at = trio.current_time() + _START_SECONDS
        while True:
            try:
                return await ask(*arguments)
            except UpstreamError:
                if trio.current_time() >= give_up_at:
                    raise
            await trio.sleep(_RETRY_SECONDS)

    async def _fail(self, visit: Visit, cors: dict[str, str], words: bytes) -> None:
        """A stream of nothing but an error."""
        await visit.write(stream_head(False, cors) + words)
        await visit.linger()

    async def _stream(
        self,
        visit: Visit,
        request: Request,
        cors: dict[str, str],
        watch: Watch,
        sight: Sight | None,
        identity: Identity,
    ) -> None:
        if sight is None or watch.offset > sight.offset:
            if watch.resumed and request.method == "GET":
                # A status would end EventSource without a word.
                await self._fail(visit, cors, failure(_GONE, id=_REFUSED_ID))
                return
            raise RequestRefused(404, _GONE, "Start one, or watch within evaluations.keep_seconds.")
        if watch.resumed and sight.state == OVER and sight.offset == watch.offset:
            await visit.write(answer(204, b"", cors))
            return
        seat = await self._clientele.admit(identity, "sse", self._gate.check_still)
        client = Client(f"sse_{os.urandom(8).hex()}", "sse", identity, visit.socket, self._clients)
        chunked = request.http_version == b"1.1"
        bell = Bell()

        def converse(client: Client) -> EvaluationStream:
            head = stream_head(chunked, cors)
            found = EvaluationStream(client, self._sse, chunked, head, self._hub, watch, bell)
            visit.hand_over()
            return found

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_fenced, client, watch, bell, sight.run)
            ending = await self._clientele.serve(client, converse, seat)
            nursery.cancel_scope.cancel()
        visit.served = f"{client.id} until {ending.name}"

    async def _follow_fenced(self, client: Client, watch: Watch, bell: Bell, run: str) -> None:
        try:
            await self._follow(client, watch, bell, run)
        except Exception:
            client.fail()

    async def _follow(self, client: Client, watch: Watch, bell: Bell, run: str) -> None:
        """Send what is answered, to the end. Runs until then, or until cancelled."""
        look_seconds = min(_LOOK_SECONDS, self._bounds.grace_seconds / 4)
        # So that a page leaves room in the outbox for what else is to be said.
        page_bytes = min(PAGE_BYTES, self._clients.outbox_max_bytes // 2)
        await bell.opened.wait()
        stream = client.conversation
        assert isinstance(stream, EvaluationStream)
        offset = watch.offset
        try:
            while True:
                bell.quieten()
                try:
                    sight = await self._ledger.follow(watch.kind, watch.id, offset, _PAGE_EVENTS, page_bytes)
                    if sight is not None and not sight.events:
                        await self._end_if_in_trouble(watch, sight)
                except UpstreamError as error:
                    # Redis is away: it keeps the answer, and the watcher's turn comes when it is back.
                    self._complain(error)
                    await trio.sleep(look_seconds)
                    continue
                if sight is not None:
                    # A Redis that came back with an older state, or a run in the place of one that it has forgotten.
                    known = sight.offset if sight.run == run else sight.began
                    run = sight.run
                    if known < offset:
                        offset = known
                        continue
                # Redis may have put out the answer alone, where its memory was short: then there is a hole.
                if sight is None or (
                    sight.offset > offset and (not sight.events or sight.events[0].offset != offset + 1)
                ):
                    stream.send(failure(_GONE, id=_REFUSED_ID))
                    client.end(COMPLETE)
                    return
                if sight.events:
                    offset = sight.events[-1].offset
                    if stream.show(sight):
                        client.end(COMPLETE)
                        return
                    await self._flush(client, watch, look_seconds)
                if offset >= sight.offset:
                    await bell.wait(look_seconds)
                    await trio.sleep(_GATHER_SECONDS)
        finally:
            self._ledger.touch(watch.kind, watch.id)

    async def _flush(self, client: Client, watch: Watch, look_seconds: float) -> None:
        """Wait for a slow reader, who is there all the same."""
        while client.outbox.queued_bytes:
            with trio.move_on_after(look_seconds):
                await client.outbox.flush()
            self._ledger.touch(watch.kind, watch.id)

    async def _end_if_in_trouble(self, watch: Watch, sight: Sight) -> None:
        """Whoever watches finds what nobody else may be there to find, and tells all."""
        why = sight.trouble(self._bounds.start_seconds, self._bounds.queue_seconds)
        if why is not None:
            await self._ledger.append(watch.kind, watch.id, sight.run, sight.offset, [failure_body(why)], "error")

    def _complain(self, error: UpstreamError) -> None:
        now = trio.current_time()
        if now - self._complained_at >= _COMPLAINT_SECONDS:
            self._complained_at = now
            log.warning("evaluations wait for Redis", why=str(error))


class _TooMany(Exception):
    """As many evaluations as may be are queued or running."""
