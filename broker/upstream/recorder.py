"""The recorder: what services publish with a plain PUBLISH has history too, as one daemon records it.

Every daemon has a recorder. It tells Redis how much is kept of which channel type, and waits for the lease. The
one that has the lease (`lease.py`) subscribes to the types with history, has what comes unstamped appended and
published with a stamp, and does so until it may have missed something (`term.py`); then it begins anew, under
another generation, from which every channel's next event tells of a gap. One that leaves in order lets one that waits
go on where it stops, under the same generation (`handover.py`).

Laws: as those of its lease and its terms. Whatever breaks is tried again; where Redis refuses, that is logged as
one error, told to `on_refused`, and tried again later.
Bounds: `_RETRY_SECONDS` between tries where Redis refuses. To leave, `_HAND_OVER_SECONDS` to take what is being handed
to us, as much until another listens and all is sent that is ours, and `_RELEASE_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import structlog
import trio
from attrs import define, field

from broker.command import Argument
from broker.config.sections import History, Redis
from broker.config.types import TypeOptions
from broker.errors import UpstreamError, UpstreamRefused
from broker.history.call import bounds_of
from broker.history.keys import Keys
from broker.message import REFUSALS
from broker.upstream.backoff import Backoff
from broker.upstream.connection import RedisConnection
from broker.upstream.handover import channel_of, digest_of
from broker.upstream.heir import Heir
from broker.upstream.lease import SCRIPTS, Lease, refusal_of
from broker.upstream.parting import Parting
from broker.upstream.pipeline import Pipeline
from broker.upstream.refusals import Refusals
from broker.upstream.standby import Handed
from broker.upstream.term import Pattern, Tally, Term

_RETRY_SECONDS = 30.0
_RELEASE_SECONDS = 1.0
_HAND_OVER_SECONDS = 1.0
# What Redis does not take for the moment; these are tried again as soon as the lease would have run out.
_STATES = ("READONLY", "MISCONF", "OOM", "NOREPLICAS")

log = structlog.get_logger(__name__)


def _nothing() -> None:
    pass


@define(eq=False)
class Recorder:
    """Records plain PUBLISHes while it has the lease, and waits for it otherwise.

    Args:
        types: the options of each declared channel type.
        message_max_bytes: the largest message that is recorded.
        refusals: counts what is not recorded because it is not what its type asks for.
        on_refused: told why Redis does not let us, at each try.
        on_accepted: told when, after a refusal, we record or another does.
    """

    _section: Redis
    _history: History
    _keys: Keys
    _types: Mapping[str, TypeOptions]
    _message_max_bytes: int
    _refusals: Refusals
    _on_refused: Callable[[str], None]
    _on_accepted: Callable[[], None] = _nothing
    _lease: Lease = field(init=False)
    _heir: Heir = field(init=False)
    _patterns: Mapping[bytes, Pattern] = field(init=False)
    _tally: Tally = field(init=False, factory=Tally)
    _pipeline: Pipeline | None = field(init=False, default=None)
    _generation: int | None = field(init=False, default=None)
    # The generation of a term that is over, until it is told why.
    _ended: int | None = field(init=False, default=None)
    _generations_begun: int = field(init=False, default=0)
    _refused_why: str | None = field(init=False, default=None)
    _lost_why: str = field(init=False, default="")
    _is_leaving: bool = field(init=False, default=False)
    _term: Term | None = field(init=False, default=None)
    _term_scope: trio.CancelScope | None = field(init=False, default=None)
    _term_over: trio.Event = field(init=False, factory=trio.Event)
    _task_status: trio.TaskStatus[None] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._lease = Lease(self._keys, self._history.lease_seconds)
        self._patterns = dict(_patterns(self._section.channel_prefix, self._history, self._types))
        self._heir = Heir(self._section, self._patterns.keys(), self._lease.who)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Record, or wait to. Runs until cancelled; ready after the first attempt, whatever came of it."""
        self._task_status = task_status
        backoff = Backoff(self._section)
        while True:
            refused: str | None = None
            opened_at = trio.current_time()
            try:
                connection = await RedisConnection.open(self._section)
                try:
                    await self._attend(connection)
                finally:
                    connection.close()
            except* UpstreamRefused as group:
                refused = _reasons(group)
            except* UpstreamError as group:
                self._lose(_reasons(group))
            self._tell_started()
            if refused is not None:
                self._refuse(refused)
                await trio.sleep(self._history.lease_seconds if refused.startswith(_STATES) else _RETRY_SECONDS)
            else:
                backoff.lived(trio.current_time() - opened_at)
                await trio.sleep(backoff.seconds())

    def retire(self) -> None:
        """We are about to leave: let nobody hand over to us from here on. Synchronous."""
        self._heir.retire()

    async def release(self) -> None:
        """Stop for good, and let another take over at once.

        What comes from a moment on that both know another records; what came before is recorded here. Where nobody
        waits, or that fails, what was read is recorded, and the lease is given up. Takes `_RELEASE_SECONDS` and twice
        `_HAND_OVER_SECONDS` at most. Call it while `serve` runs.
        """
        self._heir.retire()
        with trio.move_on_after(_HAND_OVER_SECONDS):
            await self._heir.settled.wait()
        self._is_leaving = True
        term, pipeline = self._term, self._pipeline
        parting = Parting(channel_of(self._section.channel_prefix), digest_of(self._patterns))
        if term is not None and pipeline is not None and term.hears_recorders:
            term.parting = parting
            with trio.move_on_after(_HAND_OVER_SECONDS):
                await parting.find_heir(pipeline)
        with trio.move_on_after(_RELEASE_SECONDS):
            if self._term_scope is not None:
                self._term_scope.cancel()
                await self._term_over.wait()
            # It stands for the connection over which the term recorded: over another nothing is known of its answers.
            if pipeline is not None and pipeline is self._pipeline:
                has_failed = (lambda: term.has_failed) if term is not None else (lambda: True)
                await parting.leave(pipeline, self._lease, has_failed)

    def statistics(self) -> Mapping[str, Any]:
        """What the stats show under `recorder`."""
        return {
            "isRecorder": self._generation is not None,
            "generation": self._generation,
            "generationsBegun": self._generations_begun,
            "recorded": self._tally.recorded,
            "unkept": self._tally.unkept,
            "lastUnkeptWhy": self._tally.unkept_why,
            "unknown": self._tally.unknown,
            "refusedWhy": self._refused_why,
        }

    async def _attend(self, connection: RedisConnection) -> None:
        """All that is done over one connection for commands."""
        pipeline = Pipeline(connection, self._section.ping_timeout_seconds)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipeline.serve)
                await self._introduce(pipeline)
                self._pipeline = pipeline
                await self._take_turns(pipeline)
        finally:
            self._pipeline = None
            self._tally.lose()
            self._heir.close()

    async def _introduce(self, pipeline: Pipeline) -> None:
        """Load the scripts, and say how much is kept of each type."""
        bounds = [part for pair in bounds_of(self._types).items() for part in pair]
        commands: list[tuple[Argument, ...]] = [("SCRIPT", "LOAD", script.text) for script in SCRIPTS]
        if bounds:
            commands.append(("HSET", self._keys.types, *bounds))
        answers = await pipeline.call(*commands)
        for answer in answers[: len(SCRIPTS)]:
            if isinstance(answer, Exception):
                raise refusal_of(answer)
        if isinstance(answers[-1], Exception):
            # Publishers go by what they know of the built-in types; recording goes on.
            log.warning("Redis was not told how much is kept of which type", why=str(answers[-1]))

    async def _take_turns(self, pipeline: Pipeline) -> NoReturn:
        backoff = Backoff(self._section)
        while True:
            if self._is_leaving or not self._patterns:
                self._tell_started()
                await self._stay(pipeline)
            handed: Handed | None = None
            if not await self._lease.take(pipeline):
                self._accept()
                handed = await self._heir.wait(pipeline, self._lease.interval, self._tell_started)
                if handed is None:
                    continue
            self._heir.close()
            begun_at = trio.current_time()
            await self._hold(pipeline, handed)
            if not self._is_leaving:
                self._tell_started()
                backoff.lived(trio.current_time() - begun_at)
                await trio.sleep(backoff.seconds())
                await self._introduce(pipeline)

    async def _stay(self, pipeline: Pipeline) -> NoReturn:
        """Keep the connection, to notice when Redis comes back without what it was told."""
        while True:
            await trio.sleep(self._section.ping_seconds)
            await pipeline.call(("PING",))

    async def _hold(self, pipeline: Pipeline, handed: Handed | None) -> None:
        """One term, with the lease taken, or handed over. Returns when it is over.

        Raises:
            UpstreamRefused: Redis does not let us record; the lease is given up.
        """
        refused: str | None = None
        lost: str | None = None
        self._term_over = trio.Event()
        try:
            with trio.CancelScope() as self._term_scope:
                if self._is_leaving:
                    if handed is not None:
                        handed.ear.close()
                        await self._lease.give_up(pipeline)
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._lease.keep, pipeline)
                    await self._record(pipeline, handed)
        except* UpstreamRefused as group:
            refused = _reasons(group)
        except* UpstreamError as group:
            lost = _reasons(group)
        finally:
            self._term_scope = None
            self._heir.settled.set()
            self._ended, self._generation = self._generation, None
            self._term_over.set()
        if lost is not None:
            self._lose(lost)
        if refused is not None:
            with trio.move_on_after(_RELEASE_SECONDS):
                await self._lease.give_up(pipeline)
            raise UpstreamRefused(refused)

    async def _record(self, pipeline: Pipeline, handed: Handed | None) -> None:
        ear = handed.ear if handed is not None else await RedisConnection.open(self._section)
        term = Term(
            pipeline,
            ear,
            self._section,
            self._lease,
            self._keys,
            self._patterns,
            self._message_max_bytes,
            self._refusals,
            self._tally,
            *(() if handed is None else (handed.replies, True)),
        )
        try:
            if handed is None:
                await term.subscribe()
                self._begin_term(await self._lease.begin(pipeline))
            else:
                await self._lease.accept(pipeline, handed.generation)
                self._go_on(handed.generation)
            self._term = term
            await term.serve()
        finally:
            self._term = None
            term.close()
            if self._generation is not None:
                self._lease.recorded_until = term.heard_at

    def _go_on(self, generation: int) -> None:
        self._set_out(generation)
        log.info("recording plain PUBLISHes; another handed it over, and nothing was missed", generation=generation)

    def _set_out(self, generation: int) -> None:
        self._generation = generation
        self._lost_why = ""
        self._accept()
        self._tell_started()
        self._heir.settled.set()

    def _begin_term(self, generation: int) -> None:
        now, since = trio.current_time(), self._lease.recorded_until
        self._generations_begun += 1
        self._set_out(generation)
        if since is None:
            log.info("recording plain PUBLISHes", generation=generation)
        else:
            log.warning(
                "recording plain PUBLISHes; what came while nobody did was missed",
                generation=generation,
                nobody_for_seconds=round(now - since, 3),
            )

    def _lose(self, why: str) -> None:
        """Tell why a term is over or none could begin; once, while it stays the same."""
        if self._ended is not None:
            log.warning("no longer recording plain PUBLISHes", generation=self._ended, why=why)
        elif why != self._lost_why:
            log.info("the recorder cannot begin", why=why)
        self._ended = None
        self._lost_why = why

    def _refuse(self, why: str) -> None:
        # Also again: another daemon may have recorded meanwhile, and be gone.
        self._on_refused(why)
        if why == self._refused_why:
            return
        self._refused_why = why
        prefix = self._section.channel_prefix
        log.error(
            "Redis does not let plain PUBLISHes be recorded",
            why=why,
            to_do=f"allow its user to read and write the keys {prefix}broker:history:*, SCRIPT LOAD, EVALSHA and EVAL, "
            "and PUBLISH and PSUBSCRIBE on all channels; and let it be a server that takes writes",
        )

    def _accept(self) -> None:
        if self._refused_why is None:
            return
        self._refused_why = None
        log.warning("plain PUBLISHes are recorded again")
        self._on_accepted()

    def _tell_started(self) -> None:
        if self._task_status is not None:
            self._task_status.started()
            self._task_status = None


def _patterns(prefix: str, history: History, types: Mapping[str, TypeOptions]) -> Iterator[tuple[bytes, Pattern]]:
    """What to subscribe to: a type, and its channels that have an id."""
    escaped = "".join(f"\\{letter}" if letter in "\\*?[]" else letter for letter in prefix)
    for type, options in types.items():
        if not options.keeps_history:
            continue
        pattern = Pattern(
            REFUSALS[options.validate],
            round(history.position_seconds * 1000),
            options.history_length,
            options.history_milliseconds,
        )
        yield f"{escaped}{type}".encode(), pattern
        yield f"{escaped}{type}:*".encode(), pattern


def _reasons(group: BaseExceptionGroup[UpstreamError]) -> str:
    return "; ".join(dict.fromkeys(map(str, _leaves(group))))


def _leaves(group: BaseExceptionGroup[UpstreamError]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
