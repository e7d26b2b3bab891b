"""Events of models that answer in pieces: a plain answer, a council's evaluation, a creative's evaluation.

Source: the wire contract, "Events" and "A council evaluation, in order".
"""

from __future__ import annotations

from typing import ClassVar, Literal

from broker.events.event import Event
from broker.events.rules import Name
from broker.events.value import Value, value_class


@value_class
class AiChunkMetadata(Value):
    """What a piece of an answer has cost so far.

    Args:
        thinking_time: in the unit of the producer.
    """

    tokens_used: int | None = None
    thinking_time: float | None = None


@value_class
class AiStreamChunk(Event):
    """A piece of a model's answer.

    Args:
        model: any name.
    """

    type: ClassVar[str] = "ai_stream_chunk"
    channel_type: ClassVar[str | None] = "ai_stream"
    id_stem: ClassVar[str | None] = "ai_{0.model}"

    model: Name
    chunk: str
    is_complete: bool
    metadata: AiChunkMetadata | None = None


@value_class
class Composite(Value):
    """A part of a final score that is made of several."""

    composite: float


@value_class
class Strength(Value):
    """A part of a final score that is a strength."""

    strength: float


@value_class
class FinalScore(Value):
    """What a council says in the end."""

    composite: float
    psychology: Composite
    hook_strength: Strength
    novelty: Composite


@value_class
class CouncilScoreStream(Event):
    """A step of a council's evaluation.

    Args:
        stage: a model's name, `aggregating` or `complete`.
        error: why this model failed; it then has no `score`.
        final_score: with the stage `complete`.
    """

    type: ClassVar[str] = "council_score_stream"
    channel_type: ClassVar[str | None] = "council_score"

    stage: str
    model: Name | None = None
    thinking: str | None = None
    score: float | None = None
    reasoning: str | None = None
    error: str | None = None
    is_complete: bool
    final_score: FinalScore | None = None


@value_class
class AiEvaluationStream(Event):
    """A piece of a creative's evaluation.

    Args:
        error: why this model failed; the next one begins anew.
    """

    type: ClassVar[str] = "ai_evaluation_stream"
    channel_type: ClassVar[str | None] = "creative_evaluation"

    evaluation_type: Literal["creative", "technical", "performance"]
    model: Name
    chunk: str
    is_complete: bool
    error: str | None = None
