"""A council evaluation: models asked side by side, each scored by its own verdict, and the mean of those.

Laws: each model's events are in order, those of several interleave. A model that fails is told of in its
own stage and does not stop the others; only what a model itself wrote counts. Below `quorum` verdicts
there is no score, but an `error` that names what failed. Who cancels the evaluation cancels every call.

Source: the wire contract, "Base: SSE".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
import trio
from attrs import define, frozen

from broker.errors import EvaluationError
from broker.evaluation.handler import Answer, EvaluationRequest
from broker.evaluation.model import ChatModel
from broker.evaluation.parameters import texts_of
from broker.evaluation.prompt import Prompt
from broker.evaluation.score import NAMES, Score, mean, read_score
from broker.evaluation.thinking import ThinkingStream
from broker.events import Composite, CouncilScoreStream, FinalScore, Strength

KIND = "council_score"
REASONING_CHARACTERS = 500

_log = structlog.get_logger()


@frozen
class _Opinion:
    """How one model ended: with a score or with an error."""

    model: str
    score: Score | None = None
    error: str = ""


@define(eq=False)
class Council:
    """The handler of council evaluations. `quorum` is 1 to the number of models."""

    _models: Sequence[ChatModel]
    _prompt: Prompt
    _quorum: int

    async def evaluate(self, request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        """A `Handler`. Returns `{scores: [{model, score, reasoning}], compositeScore, failed: [{model, error}]}`.

        Raises:
            EvaluationError: a parameter that is missing or wrong, or no quorum.
        """
        messages = self._prompt.fill(texts_of(request.parameters, ("videoUrl", "transcript"), objects=("features",)))
        opinions: dict[str, _Opinion] = {}

        async def ask(model: ChatModel) -> None:
            opinions[model.name] = await _opinion(model, messages, answer)

        # The stages in the order of the settings, before the models' words mingle.
        for model in self._models:
            await answer.send(CouncilScoreStream(stage=model.name, model=model.name, thinking="", is_complete=False))
        async with trio.open_nursery() as nursery:
            for model in self._models:
                nursery.start_soon(ask, model)
        ordered = [opinions[model.name] for model in self._models]
        failed = [{"model": opinion.model, "error": opinion.error} for opinion in ordered if opinion.score is None]
        scored = [(opinion.model, opinion.score) for opinion in ordered if opinion.score is not None]
        if len(scored) < self._quorum:
            raise EvaluationError(_no_quorum(len(scored), self._quorum, failed))
        await answer.send(CouncilScoreStream(stage="aggregating", is_complete=False))
        final = mean([score for _, score in scored])
        await answer.send(CouncilScoreStream(stage="complete", final_score=_final(final), is_complete=True))
        return {
            "scores": [
                {"model": name, "score": score.score, "reasoning": score.reasoning[:REASONING_CHARACTERS]}
                for name, score in scored
            ],
            "compositeScore": final.score,
            "failed": failed,
        }


async def _opinion(model: ChatModel, messages: Sequence[Mapping[str, str]], answer: Answer) -> _Opinion:
    """Ask one model and tell its stage. Raises only what `answer` raises."""

    async def tell(**fields: Any) -> None:
        await answer.send(CouncilScoreStream(stage=model.name, model=model.name, **fields))

    async def show(text: str) -> None:
        if text:
            await tell(thinking=text, is_complete=False)

    async def hear(piece: str) -> None:
        await show(stream.feed(piece))

    stream = ThinkingStream(NAMES)
    try:
        await model.ask(messages, hear)
        await show(stream.end())
        score = _score(model, stream)
    except EvaluationError as error:
        what = str(error)
        await tell(reasoning=what, is_complete=True, error=what)
        return _Opinion(model.name, error=what)
    await tell(score=score.score, reasoning=score.reasoning[:REASONING_CHARACTERS], is_complete=True)
    return _Opinion(model.name, score)


def _score(model: ChatModel, stream: ThinkingStream) -> Score:
    try:
        return read_score(stream.verdict())
    except EvaluationError as error:
        _log.warning("verdict_refused", model=model.name, reason=str(error))
        raise


def _final(score: Score) -> FinalScore:
    return FinalScore(
        composite=score.score,
        psychology=Composite(composite=score.psychology),
        hook_strength=Strength(strength=score.hook_strength),
        novelty=Composite(composite=score.novelty),
    )


def _no_quorum(count: int, quorum: int, failed: Sequence[Mapping[str, str]]) -> str:
    why = "; ".join(f"{one['model']}: {one['error']}" for one in failed)
    return f"{count} of the council's models gave a verdict, {quorum} are needed ({why})"
