"""The intake: events that clients publish over WebSocket, on their way to Redis.

One task takes what has come meanwhile and publishes it as one step, so a client's events go out in the order in
which it sent them, and a flood of them costs one round trip a batch. Each is answered by itself.

Bounds: `session.PUBLISHES_MAX` events of each client; `WAITING_MAX` of all; `BATCH_MAX` in one step.
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

# Told what became of an event: None and nothing, or a code of `session` and why.
Answered = Callable[[str | None, str], None]

log = structlog.get_logger(__name__)


@define(eq=False)
class Intake:
    """Takes events for Redis."""

    _publishing: Publishing
    _waiting: deque[tuple[Item, Answered]] = Factory(deque)
    _due: trio.Event = Factory(trio.Event)

    def take(self, channel: Channel, payload: bytes, answered: Answered) -> None:
        """Publish an event some time soon. Synchronous; `answered` is called at once where it cannot be published."""
        try:
            item = self._publishing.item_of(channel, payload)
        except RequestRefused as refused:
            answered(BAD_EVENT, refused.detail)
            return
        if len(self._waiting) >= WAITING_MAX:
            answered(TOO_MANY_PENDING, "too many events of all clients wait for Redis; try again in a moment")
            return
        self._waiting.append((item, answered))
        self._due.set()

    async def serve(self) -> None:
        """Publish what was taken. Runs until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
                await self._publish(batch)

    async def _publish(self, batch: list[tuple[Item, Answered]]) -> None:
        try:
            refused = await self._publishing.publish_items([item for item, _ in batch])
        except RequestRefused as away:
            outcome: list[tuple[str | None, str]] = [(UPSTREAM_UNAVAILABLE, away.detail)] * len(batch)
        except Exception:
            log.exception("events of clients could not be published", events=len(batch))
            outcome = [(UPSTREAM_UNAVAILABLE, "the daemon failed to publish it; it is in its log")] * len(batch)
        else:
            outcome = [(None, "") if why is None else (UPSTREAM_REFUSED, f"Redis refused it: {why}") for why in refused]
        for (_, answered), (code, why) in zip(batch, outcome, strict=True):
            try:
                answered(code, why)
            except Exception:
                log.exception("an event was published, and its client failed")
