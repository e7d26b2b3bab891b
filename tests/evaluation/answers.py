"""What a handler is given in these tests: a request, and an answer that keeps what is sent."""

from __future__ import annotations

import json
from typing import Any

import trio
from attrs import define, field

from broker.evaluation.handler import EvaluationRequest
from broker.events import Event


@define(eq=False)
class Answers:
    """Keeps each event as a client sees it, less its timestamp."""

    events: list[dict[str, Any]] = field(factory=list)
    _sent: trio.Event = field(factory=trio.Event)

    async def send(self, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        seen = json.loads(event.encode())
        del seen["timestamp"]
        self.events.append(seen)
        self._sent.set()
        self._sent = trio.Event()

    async def wait_events(self, count: int) -> None:
        while len(self.events) < count:
            await self._sent.wait()

    def of(self, stage: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["stage"] == stage]


def request(kind: str, **parameters: Any) -> EvaluationRequest:
    return EvaluationRequest(id="e1", kind=kind, parameters=parameters, user_id=None, attempt=1)
