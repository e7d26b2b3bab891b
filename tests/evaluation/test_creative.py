"""Creative evaluations against a real HTTP server: pieces as they come, and the next model where one fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.errors import EvaluationError
from broker.evaluation.creative import KIND, Creative
from broker.evaluation.model import Model, open_http
from broker.evaluation.prompt import CREATIVE_PLACES, Prompt
from broker.evaluation.settings import ModelSettings
from tests.actors.model_server import PROSE, Call, ModelServer, open_model_server
from tests.evaluation.answers import Answers, request

PROMPT = Prompt.from_file(Path(__file__).parents[2] / "conf" / "prompts" / "creative.md", CREATIVE_PLACES)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with open_model_server() as server:
        yield server


async def evaluate(server: ModelServer, scripts: list[str], answers: Answers, **parameters: Any) -> Any:
    async with open_http() as http:
        models = [
            Model.from_environment(script, ModelSettings(base_url=server.base_url, model=script), {}, http)
            for script in scripts
        ]
        sent = {"creativeId": "c1", "content": "Buy now.", **parameters}
        return await Creative(models, PROMPT).evaluate(request(KIND, **sent), answers)


def pieces(model: str, *chunks: str, kind: str = "creative") -> list[dict[str, Any]]:
    return [
        {
            "type": "ai_evaluation_stream",
            "evaluationType": kind,
            "model": model,
            "chunk": chunk,
            "isComplete": not chunk,
        }
        for chunk in chunks
    ]


async def test_one_model_answers(server: ModelServer) -> None:
    answers = Answers()
    done = await evaluate(server, ["well", "half"], answers, type="technical")
    assert answers.events == pieces("well", *PROSE, "", kind="technical")
    assert done == {
        "creativeId": "c1",
        "evaluationType": "technical",
        "model": "well",
        "content": "".join(PROSE),
        "failed": [],
    }
    (call,) = server.calls
    assert "The kind of this review is: technical." in call.body["messages"][0]["content"]


async def test_the_next_one_answers_where_one_fails(server: ModelServer) -> None:
    async def empty(call: Call) -> None:
        await call.start()
        await call.finish()

    server.scripts["empty"] = empty
    answers = Answers()
    done = await evaluate(server, ["busy", "half", "empty", "well"], answers)
    why = {
        "busy": "its provider allows no more requests now (HTTP 429)",
        "half": "the connection broke",
        "empty": "it answered with nothing",
    }
    ends = {name: {**pieces(name, "")[0], "error": what} for name, what in why.items()}
    assert answers.events == [
        ends["busy"],
        *pieces("half", *PROSE[:2]),
        ends["half"],
        ends["empty"],
        *pieces("well", *PROSE, ""),
    ]
    assert (done["model"], done["content"]) == ("well", "".join(PROSE))
    assert done["failed"] == [{"model": name, "error": what} for name, what in why.items()]


async def test_when_none_is_left(server: ModelServer) -> None:
    with pytest.raises(EvaluationError) as caught:
        await evaluate(server, ["half", "key"], Answers())
    assert str(caught.value) == (
        "no model answered (half: the connection broke; key: its provider refused the key (HTTP 401))"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"creativeId": None}, "Missing required parameters: creativeId"),
        ({"content": 5}, "content must be text"),
        ({"type": "artistic"}, "type must be one of creative, technical, performance"),
        ({"type": ["creative"]}, "type must be one of creative, technical, performance"),
    ],
)
async def test_parameters_are_checked_first(server: ModelServer, changes: dict[str, Any], why: str) -> None:
    answers = Answers()
    with pytest.raises(EvaluationError) as caught:
        await evaluate(server, ["well"], answers, **changes)
    assert (str(caught.value), answers.events, server.calls) == (why, [], [])
