"""The worker: takes evaluations from the ledger and has each answered by the handler of its kind.

Laws: takes no more than it can begin with at once, so that nothing waits here while another worker is
free. Whatever one evaluation raises ends that one only.
Bounds: `concurrency` evaluations of each kind; stopping takes two seconds at most.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

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
        lease_seconds: another worker takes over when this one has been silent for so long.

    Raises:
        ConfigError: a kind that daemons do not ask for, or no handler at all.
    """
    if not handlers or not set(handlers) <= set(KINDS):
        named = ", ".join(map(repr, handlers)) or "none"
        raise ConfigError([Problem("handlers", f"the kinds are {' and '.join(KINDS)}, not {named}")])
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
    _running: int = 0
    _left: trio.Event = Factory(trio.Event)
    _complained: str = ""

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take and answer until cancelled, or until all is finished once `stopping` is set."""
        try:
            async with trio.open_nursery() as evaluations:
                async with trio.open_nursery() as taking:
                    taking.start_soon(self._say_alive)
                    taking.start_soon(self._take_all, evaluations)
                    task_status.started()
                    await self._stopping.wait()
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

    async def _take_all(self, evaluations: trio.Nursery) -> None:
        has_group = False
        while True:
            free = self._concurrency - self._running
            if not free:
                self._left = trio.Event()
                await self._left.wait()
                continue
            try:
                if not has_group:
                    await self._ledger.open_group(self._kind)
                    has_group = True
                entries = await self._ledger.claim(self._worker, self._kind, self._lease_seconds, free)
                if not entries:
                    entries = await self._waiting.wait(self._worker, self._kind, free, _WAIT_SECONDS)
                for id, entry in entries:
                    taken = await self._ledger.take(self._worker, self._kind, id, entry, self._lease_seconds)
                    if taken is not None:
                        self._running += 1
                        evaluations.start_soon(self._attend, taken)
            except UpstreamError as error:
                # A Redis that was emptied has no group either.
                has_group = False
                self._complain(error)
                await trio.sleep(_RETRY_SECONDS)

    def _complain(self, error: UpstreamError) -> None:
        """One line for a burst of the same."""
        if str(error) != self._complained:
            self._complained = str(error)
            log.warning("waiting for Redis", why=self._complained)

    async def _attend(self, taken: Taken) -> None:
        """One evaluation, inside its own fence."""
        try:
            await Assignment(self._handler, taken, self._ledger, self._worker).run()
        except* Exception as group:
            log.error("evaluation failed", evaluation=taken.id, exc_info=group)
        finally:
            self._running -= 1
            self._left.set()
