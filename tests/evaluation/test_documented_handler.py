"""The worker that docs/evaluations.md shows does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from broker.errors import EvaluationError
from tests.evaluation.answers import Answers, request

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "evaluations.md").read_text()


def handler() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    found: dict[str, Any] = {"__name__": "documented"}
    exec(code, found)
    return found["count_words"]


async def test_it_answers() -> None:
    answers = Answers()
    assert await handler()(request("creative_evaluation", content="Buy it now"), answers) == {"words": 3}
    assert [event["chunk"] for event in answers.events] == ["Buy ", "it ", "now "]
    with pytest.raises(EvaluationError) as caught:
        await handler()(request("creative_evaluation"), answers)
    assert str(caught.value) == "Missing required parameters: content"
