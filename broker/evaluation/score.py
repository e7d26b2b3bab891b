"""A score: what a model's verdict says, in numbers. Sans-I/O.

Laws: a verdict is one JSON object with every number of `PARTS` in 0 to 100 and a `reasoning`; what is
missing, out of range, written twice, or text where a number belongs makes it no verdict. Nothing is
clamped, rounded or made up. Names that were not asked for are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NoReturn

from attrs import frozen

from broker.errors import EvaluationError
from broker.evaluation.completion import without_surrogates

REASONING = "reasoning"
PARTS = ("score", "psychology", "hookStrength", "novelty")
NAMES = (*PARTS, REASONING)
LEAST, MOST = 0, 100


@frozen
class Score:
    """One model's verdict; each number is 0 to 100."""

    score: float
    psychology: float
    hook_strength: float
    novelty: float
    reasoning: str


def read_score(verdict: str) -> Score:
    """Read a verdict.

    Raises:
        EvaluationError: it is none; the message says which part is wrong.
    """
    try:
        value = json.loads(verdict, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # a number of too many digits is a ValueError, too
        raise EvaluationError("its verdict is not JSON") from None
    if not isinstance(value, dict):
        raise EvaluationError("its verdict is no JSON object")
    score, psychology, hook_strength, novelty = (_number(value, name) for name in PARTS)
    reasoning = value.get(REASONING)
    if not isinstance(reasoning, str) or not reasoning.strip():
        raise EvaluationError(f"its verdict has no {REASONING}")
    return Score(score, psychology, hook_strength, novelty, without_surrogates(reasoning.strip()))


def mean(scores: Sequence[Score]) -> Score:
    """The mean of each number, over at least one score; the reasoning is empty."""
    return Score(
        fmean(score.score for score in scores),
        fmean(score.psychology for score in scores),
        fmean(score.hook_strength for score in scores),
        fmean(score.novelty for score in scores),
        "",
    )


def _number(value: dict[str, Any], name: str) -> float:
    if name not in value:
        raise EvaluationError(f"its verdict has no {name}")
    number = value[name]
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise EvaluationError(f"its verdict has a {name} that is no number")
    if not LEAST <= number <= MOST:
        raise EvaluationError(f"its verdict has a {name} that is not {LEAST} to {MOST}")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            shown = name if name in NAMES else "name"
            raise EvaluationError(f"its verdict has one {shown} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise EvaluationError(f"its verdict has {name}, which is no number")
