"""The evaluator: a worker of council scores in this process, for all scenarios of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from broker.errors import EvaluationError
from broker.evaluation import Answer, EvaluationRequest, serve
from broker.events import CouncilScoreStream

PIECES = 30


@asynccontextmanager
async def evaluating(redis_url: str) -> AsyncIterator[None]:
    """Somebody evaluates; the transcript "fail" fails."""
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, {"council_score": _talk}, redis_url, concurrency=20, lease_seconds=3.0))
        yield
        nursery.cancel_scope.cancel()


async def _talk(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
    for number in range(PIECES):
        await answer.send(CouncilScoreStream(stage="claude", thinking=str(number), is_complete=False))
        await trio.sleep(0.02)
    if request.parameters["transcript"] == "fail":
        raise EvaluationError("the model said no")
    return {"said": PIECES}
