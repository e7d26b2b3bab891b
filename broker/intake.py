"""The intake: events that clients publish over WebSocket, on their way to Redis.

One task takes what has come meanwhile and publishes it as one step, so a client's events go out in the order in
which it sent them, and a flood of them costs one round trip a batch. Each is answered by itself.

Bounds: `session.PUBLISHES_MAX` events of each client; `WAITING_MAX` events and
`WAITING_MAX_BYTES` of all; `BATCH_MAX` in one step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog
import trio
from attrs import Factory, define

from broker.channel import Channel
from broker.errorcode import BAD_EVENT, TOO_MANY_PENDING, UPSTREAM_REFUSED, UPSTREAM_UNAVAILABLE
from broker.publishing import Publishing
from broker.request import RequestRefused
from broker.submission import Item

BATCH_MAX = 100
WAITING_MAX = 10_000
WAITING_MAX_BYTES = 32 * 1024 * 1024

# Told what became of an event: None and nothing, or a code of `session` and why.
Answered = Callable[[str | None, str], None]

log = structlog.get_logger(__name__)


@define(eq=False)
class Intake:
    """Takes events for Redis."""

    _publishing: Publishing
    _waiting: deque[tuple[Item, Answered]] = Factory(deque)
    _waiting_bytes: int = 0
    _due: trio.Event = Factory(trio.Event)

    def take(self, channel: Channel, payload: bytes, answered: Answered) -> None:
        """Publish an event some time soon. Synchronous; `answered` is called at once where it cannot be published."""
        try:
            item = self._publishing.item_of(channel, payload)
        except RequestRefused as refused:
            answered(BAD_EVENT, refused.detail)
            return
        if len(self._waiting) >= WAITING_MAX or self._waiting_bytes + len(item.payload) > WAITING_MAX_BYTES:
            answered(TOO_MANY_PENDING, "too many events of all clients wait for Redis; try again in a moment")
            return
        self._waiting.append((item, answered))
        self._waiting_bytes += len(item.payload)
        self._due.set()

    async def serve(self) -> None:
        """Publish what was taken. Runs until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            while self._waiting:
                is_away = not await self._publish(self._taken(BATCH_MAX))
                if is_away:
                    # Nobody waits for the same silence again.
                    self._answer(self._taken(len(self._waiting)), UPSTREAM_UNAVAILABLE, "Redis is away; try again")

    def _taken(self, most: int) -> list[tuple[Item, Answered]]:
        batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._waiting_bytes -= sum(len(item.payload) for item, _ in batch)
        return batch

    async def _publish(self, batch: list[tuple[Item, Answered]]) -> bool:
        """Publish events and answer each. Returns whether Redis was there."""
        is_there = False
        try:
            refused = await self._publishing.publish_items([item for item, _ in batch])
        except RequestRefused as away:
            outcome: list[tuple[str | None, str]] = [(UPSTREAM_UNAVAILABLE, away.detail)] * len(batch)
        except Exception:
            log.exception("events of clients could not be published", events=len(batch))
            outcome = [(UPSTREAM_UNAVAILABLE, "the daemon failed to publish it; it is in its log")] * len(batch)
        else:
            is_there = True
            outcome = [(None, "") if why is None else (UPSTREAM_REFUSED, f"Redis refused it: {why}") for why in refused]
        for each, (code, why) in zip(batch, outcome, strict=True):
            self._answer([each], code, why)
        return is_there

    def _answer(self, batch: list[tuple[Item, Answered]], code: str | None, why: str) -> None:
        for _, answered in batch:
            try:
                answered(code, why)
            except Exception:
                log.exception("an event was published, and its client failed")
