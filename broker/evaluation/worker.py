"""The worker: takes evaluations from the ledger and has each answered by the handler of its kind.

Laws: takes no more than it can begin with at once, so that nothing waits here while another worker is
free. Whatever one evaluation raises ends that one only.
Bounds: `concurrency` evaluations of each kind; stopping takes two seconds at most.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from traceback import format_exception

import structlog
import trio
from attrs import Factory, define

from broker.config.sections import Redis
from broker.errors import ConfigError, Problem, UpstreamError
from broker.evaluation.assignment import BEAT_SECONDS, Assignment
from broker.evaluation.handler import Handler
from broker.inquiry import KINDS
from broker.ledger.evaluation import Taken
from broker.ledger.ledger import Ledger
from broker.upstream.commands import CommandLink

LEASE_SECONDS = 10.0
# A short outage, which the ledger cannot tell from silence, must not look like a death.
LEASE_MIN_SECONDS = 3.0
# Between two looks for leases that ran out, at most: it comes on top of the lease.
_WAIT_SECONDS = 0.5
_RETRY_SECONDS = 0.5
_RETIRE_SECONDS = 1.0

log = structlog.get_logger(__name__)


async def serve(
    handlers: Mapping[str, Handler],
    redis_url: str,
    *,
    channel_prefix: str = "",
    concurrency: int = 8,
    lease_seconds: float = LEASE_SECONDS,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer evaluations. Runs until cancelled, or until what runs is finished once `stopping` is set.

    Cancelled, it gives back what it has not finished, within two seconds.

    Args:
        handlers: by kind: `council_score`, `creative_evaluation`.
        channel_prefix: as the daemon's `redis.channel_prefix`.
        concurrency: evaluations of each kind at once.
        lease_seconds: another worker takes over when this one has been silent for so long; at least 3.

    Raises:
        ConfigError: a kind that daemons do not ask for, no handler at all, or a lease that is too short.
    """
    if not handlers or not set(handlers) <= set(KINDS):
        named = ", ".join(map(repr, handlers)) or "none"
        raise ConfigError([Problem("handlers", f"the kinds are {' and '.join(KINDS)}, not {named}")])
    if lease_seconds < LEASE_MIN_SECONDS:
        raise ConfigError([Problem("lease_seconds", f"{lease_seconds:g} is less than {LEASE_MIN_SECONDS:g}")])
    section = Redis(url=redis_url, channel_prefix=channel_prefix)
    name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
    stopping = trio.Event() if stopping is None else stopping
    commands = CommandLink(section)
    # A read that waits for requests would hold up every command behind it, so each kind has a link for that.
    waiting = {kind: CommandLink(section, section.ping_timeout_seconds + _WAIT_SECONDS) for kind in handlers}
    # The links outlive the desks, which still have to give back what they have: until `cancel` below.
    links = trio.CancelScope(shield=True)
    async with trio.open_nursery() as life:
        life.start_soon(_serve_links, links, (commands, *waiting.values()))
        try:
            async with trio.open_nursery() as desks:
                for kind, handler in handlers.items():
                    desk = Desk(
                        kind,
                        handler,
                        name,
                        Ledger(commands, channel_prefix),
                        Ledger(waiting[kind], channel_prefix),
                        concurrency,
                        lease_seconds,
                        stopping,
                    )
                    await desks.start(desk.serve)
                log.info("evaluation worker runs", worker=name, kinds=list(handlers), concurrency=concurrency)
                task_status.started()
        finally:
            links.cancel()


async def _serve_links(scope: trio.CancelScope, links: tuple[CommandLink, ...]) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(link.serve)


@define(eq=False)
class Desk:
    """Where the evaluations of one kind are done.

    Args:
        waiting: the ledger over a connection that may wait for requests.
    """

    _kind: str
    _handler: Handler
    _worker: str
    _ledger: Ledger
    _waiting: Ledger
    _concurrency: int
    _lease_seconds: float
    _stopping: trio.Event
    _running: set[str] = Factory(set)
    _left: trio.Event = Factory(trio.Event)
    _complained: str = ""

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take and answer until cancelled, or until all is finished once `stopping` is set."""
        try:
            async with trio.open_nursery() as evaluations:
                async with trio.open_nursery() as taking:
                    taking.start_soon(self._say_alive)
                    taking.start_soon(self._notice_stop)
                    task_status.started()
                    await self._take_all(evaluations)
                    taking.cancel_scope.cancel()
        finally:
            with trio.move_on_after(_RETIRE_SECONDS, shield=True):
                try:
                    await self._ledger.retire(self._worker, self._kind)
                except UpstreamError:
                    pass

    async def _say_alive(self) -> None:
        while True:
            try:
                await self._ledger.live(self._worker, self._kind)
            except UpstreamError as error:
                self._complain(error)
            else:
                self._complained = ""
            await trio.sleep(BEAT_SECONDS)

    async def _notice_stop(self) -> None:
        await self._stopping.wait()
        self._left.set()

    async def _take_all(self, evaluations: trio.Nursery) -> None:
        """Until `stopping` is set. A wait is not cut off then: what Redis hands out meanwhile goes back."""
        has_failed = True
        while not self._stopping.is_set():
            free = self._concurrency - len(self._running)
            if not free:
                self._left = trio.Event()
                await self._left.wait()
                continue
            try:
                if has_failed:
                    # Redis may have been emptied; and what it handed us last may not have arrived.
                    await self._ledger.open_group(self._kind)
                    await self._give_back()
                    has_failed = False
                entries = await self._ledger.claim(self._worker, self._kind, self._lease_seconds, free)
                if not entries:
                    entries = await self._waiting.wait(self._worker, self._kind, free, _WAIT_SECONDS)
                for id, entry in entries:
                    await self._take(id, entry, evaluations)
            except UpstreamError as error:
                has_failed = True
                self._complain(error)
                await trio.sleep(_RETRY_SECONDS)

    async def _take(self, id: str, entry: str, evaluations: trio.Nursery) -> None:
        if entry in self._running:
            return  # claimed from ourselves, as a beat was late
        if self._stopping.is_set():
            await self._ledger.release(self._worker, self._kind, id, entry)
            return
        taken = await self._ledger.take(self._worker, self._kind, id, entry, self._lease_seconds)
        if taken is not None:
            self._running.add(entry)
            evaluations.start_soon(self._attend, taken)

    async def _give_back(self) -> None:
        """Give back what this worker has and does not work on."""
        for id, entry in await self._ledger.held(self._worker, self._kind):
            if entry not in self._running:
                await self._ledger.release(self._worker, self._kind, id, entry)

    def _complain(self, error: UpstreamError) -> None:
        """One line for a burst of the same."""
        if str(error) != self._complained:
            self._complained = str(error)
            log.warning("waiting for Redis", why=self._complained)

    async def _attend(self, taken: Taken) -> None:
        """One evaluation, inside its own fence."""
        beat_seconds = min(BEAT_SECONDS, self._lease_seconds / 4)
        try:
            await Assignment(self._handler, taken, self._ledger, self._worker, beat_seconds).run()
        except* Exception as group:
            # As text: where nobody has set structlog up, it would have Rich draw every variable, for seconds.
            log.error("evaluation failed", evaluation=taken.id, exception="".join(format_exception(group)))
        finally:
            self._running.discard(taken.entry)
            self._left.set()
