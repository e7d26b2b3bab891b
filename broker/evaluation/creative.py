"""A creative evaluation: one model's judgement of a text, streamed as it is written.

Laws: the models are asked in turn, until one gives a whole answer. One that fails is told of with an
event that is complete and carries `error`; what it had written before belongs to no evaluation, and the
next one begins anew. When none is left, `error` names what failed.

Source: the wire contract, "Base: SSE".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import define

from broker.errors import EvaluationError
from broker.evaluation.handler import Answer, EvaluationRequest
from broker.evaluation.model import ChatModel
from broker.evaluation.parameters import texts_of
from broker.evaluation.prompt import Prompt
from broker.events import AiEvaluationStream

KIND = "creative_evaluation"
TYPES: tuple[Literal["creative", "technical", "performance"], ...] = ("creative", "technical", "performance")


@define(eq=False)
class Creative:
    """The handler of creative evaluations, with at least one model."""

    _models: Sequence[ChatModel]
    _prompt: Prompt

    async def evaluate(self, request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        """A `Handler`. Returns `{creativeId, evaluationType, model, content, failed: [{model, error}]}`.

        Raises:
            EvaluationError: a parameter that is missing or wrong, or no model that answers.
        """
        texts = texts_of(request.parameters, ("creativeId", "content"))
        asked = request.parameters.get("type") or "creative"
        kind = next((kind for kind in TYPES if kind == asked), None)
        if kind is None:
            raise EvaluationError(f"type must be one of {', '.join(TYPES)}")
        messages = self._prompt.fill({**texts, "type": kind})
        failed: list[dict[str, str]] = []
        for model in self._models:
            pieces: list[str] = []

            async def tell(chunk: str, model: ChatModel = model, **fields: Any) -> None:
                await answer.send(AiEvaluationStream(evaluation_type=kind, model=model.name, chunk=chunk, **fields))

            async def hear(piece: str, pieces: list[str] = pieces) -> None:
                pieces.append(piece)
                await tell(piece, is_complete=False)

            try:
                await model.ask(messages, hear)
                if not "".join(pieces).strip():
                    raise EvaluationError("it answered with nothing")
            except EvaluationError as error:
                what = str(error)
                failed.append({"model": model.name, "error": what})
                await tell("", is_complete=True, error=what)
                continue
            await tell("", is_complete=True)
            content = "".join(pieces)
            return {
                "creativeId": texts["creativeId"],
                "evaluationType": kind,
                "model": model.name,
                "content": content,
                "failed": failed,
            }
        why = "; ".join(f"{one['model']}: {one['error']}" for one in failed)
        raise EvaluationError(f"no model answered ({why})")
