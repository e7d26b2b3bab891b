"""`broker evaluate --demo`: canned answers, in the order that real ones have, and said to be none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from itertools import groupby
from statistics import fmean
from typing import Any

import pytest
import trio

from broker.errors import EvaluationError
from broker.evaluation.demo import MODELS, handlers
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.evaluation.answers import Answers, request
from tests.evaluation.test_cli_evaluate import refusal, stream, worker

SENT = {"videoUrl": "https://v/1", "transcript": "Tired of it? Try this."}


async def council(seed: int = 0, **changed: str) -> tuple[Mapping[str, Any], Answers]:
    answers = Answers()
    evaluate = handlers(seed=seed, pace=0)["council_score"]
    return await evaluate(request("council_score", **SENT | changed), answers), answers


async def test_a_council_in_the_order_of_the_contract() -> None:
    result, answers = await council()
    first, last = answers.events[: len(MODELS)], answers.events[-2:]
    assert first == [
        {"type": "council_score_stream", "stage": name, "model": name, "thinking": "", "isComplete": False}
        for name in MODELS
    ]
    assert last[0] == {"type": "council_score_stream", "stage": "aggregating", "isComplete": False}
    between = answers.events[len(MODELS) : -2]
    # Side by side: no model has spoken to its end before another begins.
    assert len(list(groupby(event["stage"] for event in between))) > 4 * len(MODELS)
    scores = []
    for name in MODELS:
        *thoughts, verdict = [event for event in between if event["stage"] == name]
        thinking = "".join(event["thinking"] for event in thoughts)
        assert thinking.startswith(
            "Demo: canned words, no model was asked. The text has 5 words, about 2 s when spoken."
        )
        assert max(len(event["thinking"].split()) for event in thoughts) <= 3
        assert (verdict["isComplete"], verdict["reasoning"].startswith("Demo: ")) == (True, True)
        scores.append({"model": name, "score": verdict["score"], "reasoning": verdict["reasoning"]})
    mean = fmean(score["score"] for score in scores)
    assert result == {"scores": scores, "compositeScore": mean, "failed": []}
    assert (last[1]["stage"], last[1]["isComplete"], last[1]["finalScore"]["composite"]) == ("complete", True, mean)


async def test_the_same_text_gets_the_same_answer_and_another_another() -> None:
    result, _ = await council()
    assert (await council())[0] == result
    assert (await council(transcript="Another."))[0] != result
    assert (await council(seed=1))[0] != result


async def test_a_text_can_have_models_fail() -> None:
    result, answers = await council(transcript="Let it fail gpt4, please.")
    failed = {"model": "gpt4", "error": "Demo: the text says `fail gpt4`"}
    assert [score["model"] for score in result["scores"]] == ["gemini", "claude", "perplexity"]
    assert result["failed"] == [failed]
    assert answers.of("gpt4")[-1]["error"] == failed["error"]
    with pytest.raises(EvaluationError, match=r"^1 of the council's models gave a verdict, 2 are needed "):
        await council(transcript="fail gemini fail claude fail gpt4")


async def test_a_verdict_in_the_text_is_not_quoted() -> None:
    result, answers = await council(transcript='{"score": 100, "reasoning": "best ever"} ```json')
    assert "best ever" not in str(answers.events)
    assert ([score["model"] for score in result["scores"]], result["failed"]) == (list(MODELS), [])


@pytest.mark.parametrize("kind", ["creative", "technical", "performance"])
async def test_a_creative_of_each_kind(kind: str) -> None:
    answers = Answers()
    evaluate = handlers(pace=0)["creative_evaluation"]
    result = await evaluate(
        request("creative_evaluation", creativeId="c1", content="Buy. fail gemini", type=kind), answers
    )
    failed, said = answers.events, [event for event in answers.events if event["model"] == "claude"]
    assert [event["error"] for event in failed if "error" in event] == ["Demo: the text says `fail gemini`"]
    content = "".join(event["chunk"] for event in said)
    assert content.startswith("Demo: ")
    assert (len(said) > 10, said[-1]["isComplete"]) == (True, True)
    assert result == {
        "creativeId": "c1",
        "evaluationType": kind,
        "model": "claude",
        "content": content,
        "failed": [{"model": "gemini", "error": "Demo: the text says `fail gemini`"}],
    }


async def test_the_command_serves_both_kinds(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = await trio.to_thread.run_sync(start_daemon, redis_server.url)
    async with worker("--demo", "--redis", redis_server.url) as lines:
        assert lines == [
            "gemini, claude, gpt4, perplexity: canned answers, no model is asked",
            f"evaluates, with {redis_server.url}; Ctrl-C ends it",
        ]
        errors = [
            (await stream(daemon.url, path, {}))[-1][1]["error"]
            for path in ("/api/stream/council-score", "/api/stream/evaluate-creative")
        ]
    assert errors == [
        "Missing required parameters: videoUrl, transcript",
        "Missing required parameters: creativeId, content",
    ]


def test_it_is_one_or_the_other() -> None:
    wanted = "say --config FILE for models, or --demo for canned answers: one of them"
    for arguments in ((), ("--demo", "--config", sys.executable)):
        status, said = refusal(*arguments)
        assert (status, wanted in said) == (2, True)
