"""A verdict's numbers: taken as they are, or refused with the part that is wrong. Never made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.errors import EvaluationError
from broker.evaluation.score import Score, mean, read_score

GOOD = {"score": 80, "psychology": 0, "hookStrength": 100, "novelty": 0.5, "reasoning": " Why. "}


def text(**changes: Any) -> str:
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not ...})


def test_a_good_verdict_is_taken_as_it_is() -> None:
    assert read_score(text(more=[1])) == Score(80, 0, 100, 0.5, "Why.")
    assert read_score(text(reasoning="\ud83d\ude00 \ud83d")).reasoning == "😀 \ufffd"


@pytest.mark.parametrize("name", ["score", "psychology", "hookStrength", "novelty"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (..., "its verdict has no {}"),
        (None, "its verdict has a {} that is no number"),
        ("80", "its verdict has a {} that is no number"),
        (True, "its verdict has a {} that is no number"),
        ([80], "its verdict has a {} that is no number"),
        (-0.001, "its verdict has a {} that is not 0 to 100"),
        (100.001, "its verdict has a {} that is not 0 to 100"),
        (10**400, "its verdict has a {} that is not 0 to 100"),
        (float("nan"), "its verdict has NaN, which is no number"),
        (float("-inf"), "its verdict has -Infinity, which is no number"),
    ],
)
def test_a_wrong_number_is_named(name: str, value: Any, why: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        read_score(text(**{name: value}))
    assert str(caught.value) == why.format(name)


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ('{"score": 1e999', "its verdict is not JSON"),
        ("", "its verdict is not JSON"),
        ("[" * 100_000, "its verdict is not JSON"),
        ('{"score": ' + "9" * 5000 + "}", "its verdict is not JSON"),
        ("[1]", "its verdict is no JSON object"),
        (text(reasoning=...), "its verdict has no reasoning"),
        (text(reasoning=" "), "its verdict has no reasoning"),
        (text(reasoning=5), "its verdict has no reasoning"),
        (text()[:-1] + ', "score": 80}', "its verdict has one score twice"),
        (text()[:-1] + ', "a": {"b": 1, "b": 1}}', "its verdict has one name twice"),
        (text().replace("80", "1e999"), "its verdict has a score that is not 0 to 100"),
    ],
)
def test_what_is_no_verdict(verdict: str, why: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        read_score(verdict)
    assert str(caught.value) == why


def test_the_mean_of_each() -> None:
    assert mean([Score(80, 10, 20, 30, "a"), Score(70, 20, 30, 41, "b")]) == Score(75, 15, 25, 35.5, "")
