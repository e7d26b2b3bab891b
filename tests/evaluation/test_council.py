"""Council evaluations against a real HTTP server: the order that the contract gives, and models that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.errors import EvaluationError
from broker.evaluation.council import KIND, Council
from broker.evaluation.model import Model, open_http
from broker.evaluation.prompt import COUNCIL_PLACES, Prompt
from broker.evaluation.settings import ModelSettings
from tests.actors.model_server import PROSE, Call, ModelServer, open_model_server, verdict
from tests.evaluation.answers import Answers, request

PROMPT = Prompt.from_file(Path(__file__).parents[2] / "conf" / "prompts" / "council.md", COUNCIL_PLACES)
SENT = {"videoUrl": "https://v/1", "transcript": "Tired of it?", "features": {"cuts": 7, "mood": "froh — 😀"}}
KIND_OF_EVENT = "council_score_stream"


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with open_model_server() as server:
        yield server


async def evaluate(
    server: ModelServer, models: dict[str, str], quorum: int, answers: Answers, **parameters: Any
) -> Any:
    """Evaluate with `models`: the server's script by name; `no key` is one that lacks it."""
    async with open_http() as http:
        council = [
            Model.from_environment(
                name,
                ModelSettings(base_url=server.base_url, model=script, key_env="NONE" if script == "no key" else ""),
                {},
                http,
            )
            for name, script in models.items()
        ]
        return await Council(council, PROMPT, quorum).evaluate(request(KIND, **(parameters or SENT)), answers)


def event(stage: str, **fields: Any) -> dict[str, Any]:
    return {"type": KIND_OF_EVENT, "stage": stage, **fields}


def thinking(stage: str, *pieces: str) -> list[dict[str, Any]]:
    return [event(stage, model=stage, thinking=piece, isComplete=False) for piece in ("", *pieces)]


def scoring(**scores: Any) -> Any:
    async def script(call: Call) -> None:
        await call.start()
        await call.say(*PROSE, *verdict(**scores))
        await call.finish()

    return script


async def test_a_whole_council(server: ModelServer) -> None:
    server.scripts["low"] = scoring(
        score=41, psychology=30, hookStrength=20, novelty=10, reasoning="Thin. " + "x" * 600
    )
    answers = Answers()
    done = await evaluate(server, {"gemini": "well", "claude": "low"}, 2, answers)

    assert answers.events[:2] == [*thinking("gemini"), *thinking("claude")]
    tail = "\n\n"  # the blank line between prose and verdict
    assert "".join(one.get("thinking", "") for one in answers.of("gemini")) == "".join(PROSE) + tail
    assert answers.of("gemini")[:4] == thinking("gemini", *PROSE)
    assert answers.of("gemini")[-1] == event(
        "gemini", model="gemini", score=72.0, reasoning="Good hook.", isComplete=True
    )
    assert answers.of("claude")[:4] == thinking("claude", *PROSE)
    assert answers.of("claude")[-1] == event(
        "claude", model="claude", score=41.0, reasoning="Thin. " + "x" * 494, isComplete=True
    )
    assert [one["isComplete"] for one in answers.of("gemini")] == [False] * (len(answers.of("gemini")) - 1) + [True]
    assert answers.events[-2:] == [
        event("aggregating", isComplete=False),
        event(
            "complete",
            isComplete=True,
            finalScore={
                "composite": 56.5,
                "psychology": {"composite": 50.0},
                "hookStrength": {"strength": 50.5},
                "novelty": {"composite": 32.5},
            },
        ),
    ]
    assert done == {
        "scores": [
            {"model": "gemini", "score": 72, "reasoning": "Good hook."},
            {"model": "claude", "score": 41, "reasoning": "Thin. " + "x" * 494},
        ],
        "compositeScore": 56.5,
        "failed": [],
    }
    assert {len(answers.of(stage)) for stage in ("aggregating", "complete")} == {1}


async def test_nothing_of_the_verdict_is_thinking(server: ModelServer) -> None:
    answers = Answers()
    await evaluate(server, {"a": "bytewise"}, 1, answers)
    shown = [one["thinking"] for one in answers.of("a") if one.get("thinking")]
    assert "".join(shown) == "Schön — 漢字 😀.\n\n"
    assert answers.of("a")[-1]["reasoning"] == "Für 漢字 😀"


async def test_prose_behind_the_verdict_is_shown_to_its_end(server: ModelServer) -> None:
    async def chatty(call: Call) -> None:
        await call.start()
        await call.say("Well.", verdict(), "So much for that {")
        await call.finish()

    server.scripts["chatty"] = chatty
    answers = Answers()
    await evaluate(server, {"a": "chatty"}, 1, answers)
    shown = "".join(one.get("thinking", "") for one in answers.of("a"))
    assert (shown, answers.of("a")[-1]["score"]) == ("Well.\n\nSo much for that {", 72.0)


async def test_models_are_asked_side_by_side_with_the_same_words(server: ModelServer) -> None:
    both = trio.Event()

    async def together(call: Call) -> None:
        if len(server.calls) == 2:
            both.set()
        await both.wait()
        await server.scripts["well"](call)

    server.scripts["together"] = together
    with trio.fail_after(5):
        await evaluate(server, {"a": "together", "b": "together"}, 2, Answers())
    first, second = (call.body["messages"] for call in server.calls)
    assert first == second
    assert [message["role"] for message in first] == ["system", "user"]
    mark = first[0]["content"].partition("[begin ... ")[2][:16]
    for quoted in ("Tired of it?", "https://v/1", '{"cuts": 7, "mood": "froh — 😀"}'):
        assert f" {mark}]\n{quoted}\n[end " in first[1]["content"]
        assert quoted not in first[0]["content"]


async def test_models_that_fail_are_told_of_and_do_not_stop_the_others(server: ModelServer) -> None:
    answers = Answers()
    models = {"one": "well", "two": "half", "three": "no key", "four": "beyond", "five": "key", "six": "well"}
    done = await evaluate(server, models, 2, answers)
    failed = {
        "two": "the connection broke",
        "three": "it has no key",
        "four": "its verdict has a score that is not 0 to 100",
        "five": "its provider refused the key (HTTP 401)",
    }
    for name, why in failed.items():
        assert answers.of(name)[0] == event(name, model=name, thinking="", isComplete=False)
        assert answers.of(name)[-1] == event(name, model=name, reasoning=why, error=why, isComplete=True)
    assert answers.of("two")[:-1] == thinking("two", *PROSE[:2])
    assert [one["model"] for one in done["scores"]] == ["one", "six"]
    assert done["compositeScore"] == 72
    assert done["failed"] == [{"model": name, "error": why} for name, why in failed.items()]


async def test_without_a_quorum_there_is_no_score(server: ModelServer) -> None:
    answers = Answers()
    with pytest.raises(EvaluationError) as caught:
        await evaluate(server, {"one": "well", "two": "busy", "three": "no key"}, 2, answers)
    assert str(caught.value) == (
        "1 of the council's models gave a verdict, 2 are needed "
        "(two: its provider allows no more requests now (HTTP 429); three: it has no key)"
    )
    assert (answers.of("aggregating"), answers.of("complete")) == ([], [])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"videoUrl": None, "transcript": ""}, "Missing required parameters: videoUrl, transcript"),
        ({"transcript": ["a"]}, "transcript must be text"),
        ({"features": "cuts"}, "features must be a JSON object"),
        ({"transcript": "x" * 400_001}, "transcript has 400001 characters; at most 400000 are taken"),
    ],
)
async def test_parameters_are_checked_before_anyone_is_asked(
    server: ModelServer, changes: dict[str, Any], why: str
) -> None:
    answers = Answers()
    with pytest.raises(EvaluationError) as caught:
        await evaluate(server, {"one": "well"}, 1, answers, **{**SENT, **changes})
    assert (str(caught.value), answers.events, server.calls) == (why, [], [])


async def test_who_cancels_cancels_every_call(server: ModelServer) -> None:
    answers = Answers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(evaluate, server, {"one": "silent", "two": "mute", "three": "silent"}, 1, answers)
        with trio.fail_after(5):
            await answers.wait_events(5)  # three beginnings, and the first piece of two
            await server.wait_calls(3)
        assert [call.disconnected.is_set() for call in server.calls] == [False] * 3
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        for call in server.calls:
            await call.disconnected.wait()
    assert len(answers.events) == 5
