"""Parting: the hand-over (`handover.py`) as the recorder sees it that leaves.

Laws: the lease is passed on only once the marker was heard, and all that came before it is answered, without a failure.
Bounds: whoever calls bounds the time; others are counted every `_LOOK_SECONDS` while nobody answers.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import structlog
import trio
from attrs import Factory, define, field

from broker.errors import UpstreamError
from broker.upstream.handover import FREE, LISTENING, MARKER, OFFER, PASSED, Notice
from broker.upstream.lease import Lease
from broker.upstream.pipeline import Pipeline

_LOOK_SECONDS = 0.1

log = structlog.get_logger(__name__)


@define(eq=False)
class Parting:
    """One hand-over. The term is given it, and tells it what it hears.

    Args:
        channel: where recorders hear each other.
        digest: of the patterns that are recorded.
        heir: who goes on; None where nobody does.
    """

    _channel: str
    _digest: str
    heir: str | None = None
    _token: str = field(init=False, factory=lambda: secrets.token_hex(8))
    _answered: trio.Event = Factory(trio.Event)
    _marked: trio.Event = Factory(trio.Event)
    _is_broken: bool = False

    def is_marker(self, text: bytes) -> bool:
        """Take what a recorder said. Returns whether it is the marker. Synchronous."""
        notice = Notice.parse(text)
        if notice is None or notice.token != self._token:
            return False
        if notice.verb == LISTENING and self.heir is None and not self._is_broken:
            self.heir = notice.about
            self._answered.set()
        return notice.verb == MARKER and notice.about == self.heir

    def mark(self) -> None:
        """What came before the marker was sent to be recorded, and nothing from behind it. Synchronous."""
        self._marked.set()

    def break_off(self) -> None:
        """The term is over; nothing changes if the marker was heard before. Synchronous."""
        if not self._marked.is_set():
            self._is_broken = True
            self.heir = None
            self._answered.set()
            self._marked.set()

    async def find_heir(self, pipeline: Pipeline) -> None:
        """Have another listen, and wait until the term has heard the marker. Where that fails, nothing is passed on."""
        try:
            heard_by = await self._say(pipeline, OFFER, self._digest)
            while not self._answered.is_set():
                (found,) = await pipeline.call(("PUBSUB", "NUMSUB", self._channel))
                # We are one of them. Where Redis does not let us ask, all that heard it count, whoever they are.
                subscribed = found[1] if type(found) is list else heard_by
                if type(subscribed) is not int or subscribed < 2:
                    return
                with trio.move_on_after(_LOOK_SECONDS):
                    await self._answered.wait()
            if self.heir is not None:
                await self._say(pipeline, MARKER, self.heir)
                await self._marked.wait()
        except UpstreamError as error:
            log.info("the recorder's lease was not handed over", why=str(error))

    async def leave(self, pipeline: Pipeline, lease: Lease, has_failed: Callable[[], bool]) -> None:
        """With the term over: pass the lease on, or let anybody take it, and tell those that wait.

        Args:
            has_failed: whether something failed of what was answered so far.
        """
        try:
            if not await self._pass_on(pipeline, lease, has_failed):
                await lease.give_up(pipeline)
                await self._say(pipeline, FREE, "-")
        except UpstreamError as error:
            log.info("the recorder's lease was not given up", why=str(error))

    async def _pass_on(self, pipeline: Pipeline, lease: Lease, has_failed: Callable[[], bool]) -> bool:
        if self.heir is None or not self._marked.is_set():
            return False
        # Answers come in order: before this one come those of all that was to be recorded.
        await pipeline.call(("PING",))
        if has_failed():
            return False
        said = Notice(PASSED, self._token, str(lease.generation))
        try:
            was_ours = await lease.pass_on(pipeline, self.heir, self._channel, str(said))
        except UpstreamError as error:
            log.info("the recorder's lease was not handed over", why=str(error))
            return False
        if was_ours:
            log.info("another goes on recording plain PUBLISHes", generation=lease.generation)
        return was_ours

    async def _say(self, pipeline: Pipeline, verb: str, about: str) -> Any:
        """Tell the other recorders. Returns how many heard it, or why Redis does not let us."""
        (answer,) = await pipeline.call(("PUBLISH", self._channel, str(Notice(verb, self._token, about))))
        return answer
