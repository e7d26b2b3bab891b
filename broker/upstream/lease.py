"""The lease: of all daemons at one Redis, the one that has it records what comes by plain PUBLISH.

Laws: whoever has it says so before it runs out; who could not, has it no more, by its own clock as well as by
Redis' (`history.scripts.RENEW` renews, and takes nothing back). Each time that recording begins anew it has
a new generation, which is in the lease: a command of an earlier one, however late, changes nothing. Where it is passed
on the generation stays, and who had it is not in it any more: its commands change nothing either.
Bounds: `history.lease_seconds` without a renewal; renewed, and asked for by those who wait, four times as often.

Times are the loop's own, and never go back; a renewal counts from before it was sent.
"""

from __future__ import annotations

import secrets
from typing import Any, NoReturn

import trio
from attrs import define, field

from broker.command import Argument, Script
from broker.errors import UpstreamError, UpstreamRefused
from broker.history.keys import Keys
from broker.history.scripts import BEGIN, PASS, RECORD, RELEASE, RENEW, TAKE
from broker.upstream.commands import PASSING
from broker.upstream.pipeline import Pipeline

SCRIPTS = (TAKE, BEGIN, RENEW, RELEASE, PASS, RECORD)
"""What must be loaded before anything here is called."""
_FULL = "#!lua flags=allow-oom\n"


@define(eq=False)
class Lease:
    """The lease as this process has it or waits for it.

    Args:
        seconds: how long it lasts without a renewal.
    """

    _keys: Keys
    _seconds: float
    who: str = field(init=False, factory=lambda: secrets.token_hex(8))
    generation: int = field(init=False, default=0)
    # By our own clock; never later than Redis has it.
    held_until: float = field(init=False, default=float("-inf"))
    # When somebody certainly recorded, as far as it is known.
    recorded_until: float | None = field(init=False, default=None)

    @property
    def value(self) -> str:
        """What stands in Redis while it is ours and the generation has begun."""
        return f"{self.who}:{self.generation}"

    @property
    def interval(self) -> float:
        """Seconds between two renewals, or two tries to take it."""
        return self._seconds / 4

    async def take(self, pipeline: Pipeline) -> bool:
        """Take it where nobody else has it. Returns whether it is ours.

        Raises:
            UpstreamRefused: Redis does not let us.
        """
        asked_at = trio.current_time()
        taken, left_milliseconds = await self._run(pipeline, TAKE, (self._keys.lease,))
        if taken:
            self.held_until = asked_at + self._seconds
        elif left_milliseconds > 0:
            self.recorded_until = trio.current_time() - max(0.0, self._seconds - left_milliseconds / 1000)
        return bool(taken)

    async def begin(self, pipeline: Pipeline) -> int:
        """Begin a new generation, with all patterns subscribed. Returns it.

        Raises:
            UpstreamError: the lease has run out meanwhile.
            UpstreamRefused: Redis does not let us.
        """
        asked_at = trio.current_time()
        generation = int(await self._run(pipeline, BEGIN, (self._keys.lease, self._keys.generation)))
        if not generation:
            raise UpstreamError("the lease ran out before recording began")
        self.generation = generation
        self.held_until = max(self.held_until, asked_at + self._seconds)
        return generation

    async def accept(self, pipeline: Pipeline, generation: int) -> None:
        """It was passed on to us: keep it from here on.

        Raises:
            UpstreamError: it has run out meanwhile.
            UpstreamRefused: Redis does not let us.
        """
        asked_at = trio.current_time()
        if not await self._run(pipeline, RENEW, (self._keys.lease,)):
            raise UpstreamError("the lease ran out before recording went on")
        self.generation = generation
        self.held_until = asked_at + self._seconds

    async def keep(self, pipeline: Pipeline) -> NoReturn:
        """Renew it. Runs until cancelled.

        Raises:
            UpstreamError: it is not ours any more.
            UpstreamRefused: Redis does not let us.
        """
        while True:
            await trio.sleep(self.interval)
            asked_at = trio.current_time()
            with trio.move_on_at(self.held_until) as patience:
                if not await self._run(pipeline, RENEW, (self._keys.lease,)):
                    raise UpstreamError("the lease ran out")
                self.held_until = asked_at + self._seconds
            if patience.cancelled_caught:
                raise UpstreamError(f"the lease could not be renewed for {self._seconds:g} s")

    async def give_up(self, pipeline: Pipeline) -> None:
        """Let another take it at once; nothing where it is not ours. What was asked before is done before."""
        self.held_until = float("-inf")
        await pipeline.call(("EVALSHA", RELEASE.digest, 1, self._keys.lease, self.who))

    async def pass_on(self, pipeline: Pipeline, heir: str, channel: str, message: str) -> bool:
        """Give it to another, with its generation, and say so. Returns whether it was ours to give.

        Raises:
            UpstreamError: as `take`.
        """
        self.held_until = float("-inf")
        more = (self.generation, heir, channel, message)
        return bool(await self._run(pipeline, PASS, (self._keys.lease,), *more))

    async def _run(self, pipeline: Pipeline, script: Script, keys: tuple[str, ...], *more: Argument) -> Any:
        rest: tuple[Argument, ...] = (len(keys), *keys, self.who, round(self._seconds * 1000), *more)
        (answer,) = await pipeline.call(("EVALSHA", script.digest, *rest))
        if isinstance(answer, Exception) and "OOM" in str(answer):
            # A full Redis must not end delivery: events go out as not kept, and the lease needs a few bytes.
            # Redis before 7 does not know how to be asked for them.
            (second,) = await pipeline.call(("EVAL", _FULL + script.text, *rest))
            answer = answer if isinstance(second, Exception) else second
        if isinstance(answer, Exception):
            raise refusal_of(answer)
        return answer


def refusal_of(answer: Exception) -> UpstreamError:
    """What to raise for an answer by which Redis said no."""
    why = str(answer)
    return UpstreamError(f"Redis said: {why}") if why.startswith(PASSING) else UpstreamRefused(why)
