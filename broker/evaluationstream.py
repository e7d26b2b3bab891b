"""A watcher's stream of one evaluation, and the bell that wakes whoever fills it.

Source: the wire contract, "Base: SSE".
"""

from __future__ import annotations

from collections.abc import Mapping

import trio
from attrs import Factory, define, field

from broker import eventstream
from broker.answerstream import AnswerStream
from broker.hub import Hub
from broker.inquiry import Watch
from broker.ledger.evaluation import Sight
from broker.position import Start
from broker.wireformat import WireFormat

# What is published is not delivered from here: the door is only woken by it.
_RING = b"."
_BELL = WireFormat("bell", lambda payloads, name: _RING, lambda name, run: _RING, lambda name, gap: _RING)


@define(eq=False)
class Bell:
    """Rung by whatever is published on the evaluation's channel. An outlet of the hub."""

    opened: trio.Event = Factory(trio.Event)
    backlog_bytes: int = 0
    _rung: trio.Event = Factory(trio.Event)

    def deliver(self, data: bytes, events: int, now: float) -> None:
        self._rung.set()

    def offer(self, data: bytes, events: int, now: float, most: int) -> bool:
        self._rung.set()
        return True

    def quieten(self) -> None:
        if self._rung.is_set():
            self._rung = trio.Event()

    async def wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._rung.wait()


@define(eq=False)
class EvaluationStream(AnswerStream):
    """One watcher of one evaluation."""

    _hub: Hub
    _watch: Watch
    _bell: Bell
    _name: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._name = f"{self._watch.kind}:{self._watch.id}".encode()

    @property
    def outlet(self) -> Bell:
        return self._bell

    def opened(self) -> float:
        self._hub.join(self, (self._name,), _BELL, {}, trio.current_time())
        # With an id, so that who is cut off before the first event comes back to this evaluation.
        self.greet(id=f"{self._watch.id}:{self._watch.offset}", evaluationId=self._watch.id)
        self._bell.opened.set()
        return trio.current_time() + self._bounds.keep_alive_seconds

    def show(self, sight: Sight) -> bool:
        """Send events. Returns whether the last one was among them."""
        blocks = []
        over = False
        for answered in sight.events:
            id = f"{self._watch.id}:{answered.offset}"
            blocks.append(eventstream.block(answered.event, event=answered.name or None, id=id))
            over = over or bool(answered.name)
        self.send(b"".join(blocks), len(blocks))
        return over

    @property
    def channel_names(self) -> list[str]:
        return [self._name.decode()]

    def closed(self) -> None:
        self._hub.leave(self, self._name)

    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        self._bell.deliver(b"", 0, 0.0)

    def refused(self, name: bytes, why: str) -> None:
        """Without its bell the stream still looks by itself."""

    def stream_ended(self, name: bytes) -> None:
        """Its end is in the ledger, not in the channel."""
