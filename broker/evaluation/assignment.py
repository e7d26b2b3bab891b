"""An assignment: one evaluation that this worker has taken, until it ends.

One nursery: the handler, the lease that it holds, and the carrier of its events. It is cancelled when
nobody watches any more, and when the lease is lost. A worker that is stopped gives back what it has
not finished, and another takes it at once.

Laws: an event is published once and in order, also when Redis breaks half way. A worker that was given
up cannot publish any more. What was taken ends with `complete` or `error`, here or at whoever takes it
next; with a worker's second death it ends with `error`.
Bounds: `BUFFER_EVENTS` events wait for Redis; then the handler waits. `EVENTS_MAX` events in all, and
`BATCH_BYTES`, or one event, at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from traceback import format_exception
from typing import Any

import msgspec
import structlog
import trio
from attrs import Factory, define, field

from broker.errors import EvaluationError, EventError, UpstreamError
from broker.evaluation.handler import EvaluationRequest, Handler
from broker.events import Complete, EvaluationRestarted, Event
from broker.ledger.evaluation import Taken
from broker.ledger.ledger import Ledger
from broker.timestamp import timestamp

BEAT_SECONDS = 1.0
BUFFER_EVENTS = 1000
# What goes at once holds up all of Redis for as long, and a daemon that has 32 MB to read is cut off.
BATCH_BYTES = 1024 * 1024
EVENT_MAX_BYTES = 1024 * 1024
EVENTS_MAX = 1_000_000
DEATHS_MAX = 1  # so it is taken over once
_RETRY_SECONDS = 0.5
_RELEASE_SECONDS = 2.0
_UNWATCHED = "cancelled: nobody watched the evaluation any more"

log = structlog.get_logger(__name__)


@define(eq=False)
class Assignment:
    """One evaluation. It is the `Answer` of its handler."""

    _handler: Handler
    _taken: Taken
    _ledger: Ledger
    _worker: str
    _beat_seconds: float = BEAT_SECONDS
    _offset: int = field(init=False)
    _buffer: list[bytes] = Factory(list)
    _due: trio.Event = Factory(trio.Event)
    _carried: trio.Event = Factory(trio.Event)
    _scope: trio.CancelScope = Factory(trio.CancelScope)
    _is_ours: bool = True
    _complained: str = ""

    def __attrs_post_init__(self) -> None:
        self._offset = self._taken.offset

    async def send(self, event: Event) -> None:
        """As `Answer.send`. Waits while `BUFFER_EVENTS` wait for Redis.

        Raises:
            EventError: it is no event, or larger than the daemon delivers.
            EvaluationError: it is one too many.
        """
        if not isinstance(event, Event):
            raise EventError(f"send takes an event of broker.events, not {type(event).__name__}")
        data = event.encode()
        if len(data) > EVENT_MAX_BYTES:
            raise EventError(f"an event of {len(data)} bytes; at most {EVENT_MAX_BYTES}")
        if self._offset + len(self._buffer) >= EVENTS_MAX:
            raise EvaluationError(f"the evaluation has {EVENTS_MAX} events, as many as may be")
        while len(self._buffer) >= BUFFER_EVENTS:
            # Several tasks of the handler may wait here: all of them for the same event.
            if self._carried.is_set():
                self._carried = trio.Event()
            await self._carried.wait()
        self._buffer.append(data)
        self._due.set()
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Have it answered, and say how it ended. Cancelled, it is given back."""
        taken = self._taken
        begun_at = trio.current_time()
        is_over = False
        log.info("evaluation taken", evaluation=taken.id, kind=taken.kind, attempt=taken.attempt, deaths=taken.deaths)
        try:
            if taken.deaths > DEATHS_MAX:
                name, body = _failure("the evaluation was given up: every worker that took it died")
            elif not taken.watched.is_wanted:
                name, body = _failure(_UNWATCHED)
            else:
                if taken.deaths or taken.offset:
                    self._buffer.append(_restarted(taken))
                    self._due.set()
                name, body = await self._answer()
            await self._finish(name, body)
            is_over = True
        finally:
            # A failure of ours is not given back: it would fail again there, and again.
            if not is_over and trio.current_effective_deadline() == -math.inf:
                with trio.move_on_after(_RELEASE_SECONDS, shield=True):
                    await self._release()
        if not self._is_ours:
            log.warning("evaluation lost: ended elsewhere, or taken over", evaluation=taken.id)
            return
        why = {} if name == "complete" else {"why": msgspec.json.decode(body)["error"]}
        seconds = round(trio.current_time() - begun_at, 1)
        log.info("evaluation ended", evaluation=taken.id, kind=taken.kind, how=name, seconds=seconds, **why)

    async def _answer(self) -> tuple[str, bytes]:
        """Call the handler. Returns the name and the body of the last event."""
        last: tuple[str, bytes] | None = None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hold_lease)
                    nursery.start_soon(self._carry)
                    data = await self._handler(_request(self._taken), self)
                    last = _completion(data)
                    nursery.cancel_scope.cancel()
        except* EvaluationError as group:
            last = _failure("; ".join(dict.fromkeys(_messages(group))))
        except* Exception as group:
            # As text: where nobody has set structlog up, it would have Rich draw every variable, for seconds.
            log.error(
                "evaluation handler failed", evaluation=self._taken.id, exception="".join(format_exception(group))
            )
            last = _failure("internal error of the evaluation worker; it is in its log")
        return last or _failure(_UNWATCHED)

    async def _hold_lease(self, while_wanted: bool = True) -> None:
        """Say that this worker lives, and hear whether the evaluation is still ours and still wanted."""
        while True:
            await trio.sleep(self._beat_seconds)
            try:
                watched = await self._ledger.beat(self._worker, self._taken)
            except UpstreamError:
                continue  # a time in which Redis was away counts for no watcher: the ledger sees to that
            if watched is None:
                self._is_ours = False
                self._scope.cancel()
            elif while_wanted and not watched.is_wanted:
                self._scope.cancel()

    async def _carry(self) -> None:
        """Publish what is sent: what gathers while Redis answers goes together."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            while self._buffer:
                await self._append(self._batch())
                if not self._is_ours:
                    self._scope.cancel()
                    return

    async def _finish(self, name: str, body: bytes) -> None:
        """Publish what is left, and the end. The lease is held meanwhile; that nobody watches matters no more."""
        self._buffer.append(body)
        self._scope = trio.CancelScope()
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hold_lease, False)
                while self._buffer and self._is_ours:
                    batch = self._batch()
                    await self._append(batch, name if len(batch) == len(self._buffer) else "")
                nursery.cancel_scope.cancel()

    def _batch(self) -> list[bytes]:
        """What goes next: as many as `BATCH_BYTES` hold, at least one."""
        size = 0
        for index, event in enumerate(self._buffer):
            size += len(event)
            if index and size > BATCH_BYTES:
                return self._buffer[:index]
        return self._buffer[:]

    async def _append(self, events: list[bytes], last: str = "") -> None:
        """Publish the first events of the buffer, for as long as it takes, or until they are not ours to publish."""
        taken = self._taken
        while True:
            try:
                self._is_ours = await self._ledger.append(taken.kind, taken.id, taken.run, self._offset, events, last)
            except UpstreamError as error:
                self._complain(error)
                await trio.sleep(_RETRY_SECONDS)
                continue
            break
        self._complained = ""
        if self._is_ours:
            self._offset += len(events)
            del self._buffer[: len(events)]
            self._carried.set()

    def _complain(self, error: UpstreamError) -> None:
        """One line for a burst of the same."""
        if str(error) != self._complained:
            self._complained = str(error)
            log.warning("events wait for Redis", evaluation=self._taken.id, why=self._complained)

    async def _release(self) -> None:
        taken = self._taken
        try:
            await self._ledger.release(self._worker, taken.kind, taken.id, taken.entry)
        except UpstreamError as error:
            log.warning("evaluation not given back: its lease must run out", evaluation=taken.id, why=str(error))
        else:
            log.info("evaluation given back", evaluation=taken.id, kind=taken.kind)


def _request(taken: Taken) -> EvaluationRequest:
    parameters = msgspec.json.decode(taken.parameters)
    return EvaluationRequest(taken.id, taken.kind, parameters, taken.user_id, taken.attempt)


def _restarted(taken: Taken) -> bytes:
    """What tells a watcher to forget what it has: everything comes anew."""
    return EvaluationRestarted(
        evaluation_id=taken.id, attempt=taken.attempt, message="The worker stopped; another has begun anew"
    ).encode()


def _completion(data: Mapping[str, Any]) -> tuple[str, bytes]:
    body = Complete(data=data).encode()
    if len(body) > EVENT_MAX_BYTES:
        return _failure(f"the answer has {len(body)} bytes; at most {EVENT_MAX_BYTES}")
    return "complete", body


def _failure(message: str) -> tuple[str, bytes]:
    return "error", msgspec.json.encode({"type": "error", "error": message, "timestamp": timestamp(time.time())})


def _messages(group: BaseExceptionGroup[EvaluationError]) -> Iterator[str]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _messages(error)
        else:
            yield str(error)
