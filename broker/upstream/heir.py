"""The heir: a recorder that waits, for its time to look at the lease or for another that leaves.

Laws: while a hand-over is under way nobody here asks for the lease: what is passed on would be taken anew, and told as
a gap. One that is about to leave takes no offer.
Bounds: those of `standby.py`; a connection is given `_OPEN_SECONDS`; where that is not enough, or Redis does not let us
hear the others, it is tried again after `_RETRY_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog
import trio
from attrs import define, field

from broker.config.sections import Redis
from broker.errors import UpstreamError, UpstreamRefused
from broker.upstream.pipeline import Pipeline
from broker.upstream.standby import Handed, Standby

_RETRY_SECONDS = 30.0
_OPEN_SECONDS = 2.0

log = structlog.get_logger(__name__)


def _set() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@define(eq=False)
class Heir:
    """Waits, and takes what is handed over.

    Args:
        patterns: what is recorded, as Redis is given it.
        who: our name in the lease.
    """

    _section: Redis
    _patterns: Collection[bytes]
    _who: str
    # Not set from an offer that we take to the moment that we record, or that nothing came of it.
    settled: trio.Event = field(init=False, factory=_set)
    _standby: Standby | None = field(init=False, default=None)
    _again_at: float = field(init=False, default=float("-inf"))
    _is_retiring: bool = field(init=False, default=False)
    _waiting: trio.CancelScope | None = field(init=False, default=None)

    def retire(self) -> None:
        """Take no offer from here on. Synchronous."""
        self._is_retiring = True
        if self._waiting is not None:
            self._waiting.cancel()

    def close(self) -> None:
        """Hear nobody until the next `wait`. Synchronous."""
        if self._standby is not None:
            self._standby.close()
            self._standby = None
        self._again_at = float("-inf")

    async def wait(self, pipeline: Pipeline, seconds: float, on_waiting: Callable[[], None]) -> Handed | None:
        """Wait `seconds`, or until it is worth while to ask for the lease, or it was handed over.

        Args:
            on_waiting: called once an offer would be heard, or could not be.
        """
        token = await self._offer(seconds, on_waiting)
        on_waiting()
        if token is None:
            return None
        assert self._standby is not None
        self.settled = trio.Event()
        handed: Handed | None = None
        try:
            handed = await self._standby.listen(token, pipeline)
        except UpstreamError as error:
            self.close()
            log.info("the recording of plain PUBLISHes was not handed over to us", why=str(error))
        finally:
            if handed is None:
                self.settled.set()
            else:
                self._standby = None  # its subscription is the term's now
        return handed

    async def _offer(self, seconds: float, on_waiting: Callable[[], None]) -> str | None:
        """The token of an offer; None where there is none."""
        until = trio.current_time() + seconds
        try:
            with trio.CancelScope(deadline=until) as self._waiting:
                if self._is_retiring or trio.current_time() < self._again_at:
                    on_waiting()
                    await trio.sleep_forever()
                if self._standby is None:
                    # Longer than a look at the lease may wait, so not again and again.
                    self._waiting.deadline = max(until, trio.current_time() + _OPEN_SECONDS)
                    self._again_at = self._waiting.deadline + _RETRY_SECONDS
                    self._standby = await Standby.open(self._section, self._patterns, self._who)
                    self._waiting.deadline = until
                    self._again_at = float("-inf")
                await self._standby.look_after()
                on_waiting()
                return await self._standby.next_offer()
        except UpstreamError as error:
            self.close()
            self._again_at = trio.current_time()
            if isinstance(error, UpstreamRefused):
                self._again_at += _RETRY_SECONDS
                log.warning("nobody can hand over the recording of plain PUBLISHes to us", why=str(error))
            on_waiting()
            await trio.sleep_until(until)
        finally:
            self._waiting = None
        if self._is_retiring:
            self.close()
        return None
