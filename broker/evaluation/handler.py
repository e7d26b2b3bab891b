"""A handler: what a worker calls for one evaluation, with the request and a way to answer as it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from attrs import frozen

from broker.events import Event


@frozen
class EvaluationRequest:
    """One evaluation that a client asked for.

    Args:
        id: unique; its channel is `<kind>:<id>`.
        kind: `council_score` or `creative_evaluation`.
        parameters: what the client sent, decoded: names as on the wire (`videoUrl`, `transcript`).
        attempt: counts every taking, also after a worker was stopped: no count of deaths.
    """

    id: str
    kind: str
    parameters: Mapping[str, Any]
    user_id: str | None
    attempt: int


class Answer(Protocol):
    """Where a handler's events go."""

    async def send(self, event: Event) -> None:
        """Publish one event on the request's channel, behind those before it."""


# Returns what `complete` carries. EvaluationError is the `error` that the client is told; whatever else is
# raised is logged, and told as an internal error. The scope is cancelled when nobody watches any more.
Handler = Callable[[EvaluationRequest, Answer], Awaitable[Mapping[str, Any]]]
