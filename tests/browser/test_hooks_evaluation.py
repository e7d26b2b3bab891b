"""The hooks of evaluations in a real browser, against a worker that answers as its test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field

from broker.errors import EvaluationError
from broker.evaluation import Answer, EvaluationRequest, serve
from broker.events import AiEvaluationStream, CouncilScoreStream, Event
from broker.events.ai import Composite, FinalScore, Strength
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.actors.wire import Wire
from tests.browser.test_hooks import PAGE, render, shown, wait_until

IDLE = {"isStreaming": False, "isConnected": False, "isLoading": False, "status": "idle", "attempt": 0}
STILL = {**IDLE, "nextRetryAt": None, "error": None}


@define(eq=False)
class ScriptedWorker:
    """Answers every evaluation with the next script: events, then what `complete` carries, or an error to raise.

    A script is sent up to its `None`, and goes on when `gate` is set.
    """

    redis_url: str
    scripts: list[tuple[Sequence[Event | None], Mapping[str, Any] | Exception]] = field(factory=list)
    asked: list[Mapping[str, Any]] = field(factory=list)
    gate: threading.Event = field(factory=threading.Event)
    _thread: threading.Thread = field(init=False)
    _stopping: trio.Event = field(init=False)
    _token: trio.lowlevel.TrioToken = field(init=False)
    _runs: threading.Event = field(factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._thread.start()
        assert self._runs.wait(10)

    def stop(self) -> None:
        self.gate.set()
        self._token.run_sync_soon(self._stopping.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._stopping, self._token = trio.Event(), trio.lowlevel.current_trio_token()
        handlers = {"council_score": self._answer, "creative_evaluation": self._answer}
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, handlers, self.redis_url, stopping=self._stopping))
            self._runs.set()

    async def _answer(self, request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        self.asked.append(request.parameters)
        events, end = self.scripts.pop(0)
        for event in events:
            if event is None:
                await trio.to_thread.run_sync(self.gate.wait, abandon_on_cancel=True)
            else:
                await answer.send(event)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture
def worker(module_redis: RedisServer) -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker(module_redis.url)
    worker.start()
    yield worker
    worker.stop()


def step(stage: str, **fields: Any) -> CouncilScoreStream:
    model = None if stage in ("aggregating", "complete") else stage
    return CouncilScoreStream(**{"stage": stage, "model": model, "is_complete": False, **fields})


FINAL = FinalScore(
    composite=71.5,
    psychology=Composite(composite=70),
    hook_strength=Strength(strength=80),
    novelty=Composite(composite=60),
)
FINAL_SHOWN = {
    "composite": 71.5,
    "psychology": {"composite": 70},
    "hookStrength": {"strength": 80},
    "novelty": {"composite": 60},
}
RESULT = {
    "scores": [{"model": "claude", "score": 72, "reasoning": "clear"}],
    "compositeScore": 71.5,
    "failed": [{"model": "gpt4", "error": "it has no key"}],
}
FIRST_HALF = [
    step("claude", thinking=""),
    step("gpt4", thinking=""),
    step("claude", thinking="The hook "),
    step("gpt4", reasoning="it has no key", error="it has no key", is_complete=True),
    step("claude", thinking="is clear. "),
]
SECOND_HALF = [
    step("claude", thinking="So it is."),
    step("claude", score=72, reasoning="clear", is_complete=True),
    step("aggregating"),
    step("complete", is_complete=True, final_score=FINAL),
]


def told_stage(name: str, **fields: Any) -> dict[str, Any]:
    nothing = {"thinking": "", "score": None, "reasoning": None, "error": None, "isComplete": False}
    return {"stage": name, "model": name, **nothing, **fields}


FAILED_STAGE = told_stage("gpt4", reasoning="it has no key", error="it has no key", isComplete=True)


def test_a_council_goes_on_through_a_reload_and_a_cut(
    module_daemon: DaemonProcess, worker: ScriptedWorker, open_page: Any, complaints: Any
) -> None:
    with Wire(module_daemon.port) as wire:
        watch_a_council(wire, worker, open_page(PAGE, wire.url))
    complaints.expected += ["ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED_ENCODING"]


def watch_a_council(wire: Wire, worker: ScriptedWorker, page: Any) -> None:
    worker.scripts.append(([*FIRST_HALF, None, *SECOND_HALF], RESULT))
    # Longer than a URL may be.
    transcript, features = "Tired of it? " * 4000, {"length": 30}
    hook = {"hook": "useCouncilScoreStream", "args": ["https://example.com/v.mp4", transcript, features]}
    render(page, {"council": hook})
    nothing = {**STILL, "evaluationId": None, "result": None, "stages": [], "currentStage": None, "finalScore": None}
    assert shown(page, "council") == nothing
    page.evaluate("results.council.startStreaming()")
    assert shown(page, "council") == {**nothing, "isStreaming": True, "isLoading": True, "status": "connecting"}

    half = {
        "stages": [told_stage("claude", thinking="The hook is clear. "), FAILED_STAGE],
        "currentStage": "claude",
        "finalScore": None,
        "result": None,
    }
    running = {**STILL, "isStreaming": True, "isConnected": True, "status": "open", **half}
    wait_until(page, "shown('council').stages[0]?.thinking.length === 19")
    seen = shown(page, "council")
    assert seen == {**running, "evaluationId": seen["evaluationId"]}

    page.reload()
    render(page, {"council": {**hook, "args": [*hook["args"][:2], {"length": 30}]}})
    wait_until(page, "shown('council').stages[0]?.thinking.length === 19")
    assert shown(page, "council") == seen

    # Cut while it runs: what is published meanwhile comes, once.
    before = len(page.evaluate("heard.council"))
    wire.shut()
    wait_until(page, "shown('council').status === 'waiting' && shown('council').error.willRetry")
    worker.gate.set()
    wire.open()
    wait_until(page, "shown('council').result")
    whole = {
        "stages": [
            told_stage("claude", thinking="The hook is clear. So it is.", score=72, reasoning="clear", isComplete=True),
            FAILED_STAGE,
        ],
        "currentStage": "complete",
        "finalScore": FINAL_SHOWN,
        "result": RESULT,
    }
    assert shown(page, "council") == {**STILL, **whole, "evaluationId": seen["evaluationId"]}
    heard = page.evaluate("heard.council")[before:]
    assert [told[0] for told in heard] == ["onMessage"] * len(SECOND_HALF) + ["onComplete"]
    assert worker.asked == [{"videoUrl": "https://example.com/v.mp4", "transcript": transcript, "features": features}]
    assert page.evaluate("sessionStorage.length") == 0

    # What has ended is not watched again.
    render(page, {})
    render(page, {"council": hook})
    assert shown(page, "council") == nothing


def test_evaluations_that_fail_or_are_stopped_and_a_creative(
    module_daemon: DaemonProcess, worker: ScriptedWorker, open_page: Any, complaints: Any
) -> None:
    worker.scripts.append((FIRST_HALF[:1], EvaluationError("only 1 of 2 models answered")))
    worker.scripts.append(([*FIRST_HALF[:3], None], RESULT))
    page = open_page(PAGE, module_daemon.url)
    render(page, {"council": {"hook": "useCouncilScoreStream", "args": ["v", "t"]}})
    page.evaluate("results.council.startStreaming()")
    wait_until(page, "shown('council').error")
    seen = shown(page, "council")
    failed = {"code": "evaluation_failed", "willRetry": False}
    assert {name: seen[name] for name in STILL} == {**STILL, "error": failed}
    assert seen["stages"] == [told_stage("claude")]

    page.evaluate("results.council.startStreaming()")
    wait_until(page, "shown('council').stages[0]?.thinking")
    page.evaluate("results.council.stopStreaming()")
    seen = shown(page, "council")
    assert {name: seen[name] for name in STILL} == STILL
    assert seen["stages"] == [told_stage("claude", thinking="The hook "), told_stage("gpt4")]
    assert page.evaluate("sessionStorage.length") == 0

    render(page, {"council": {"hook": "useCouncilScoreStream", "args": ["v", ""]}})
    wait_until(page, "shown('council').stages.length === 0")
    page.evaluate("results.council.startStreaming()")
    wait_until(page, "shown('council').error")
    assert "Missing required parameters: transcript" in page.evaluate("results.council.error.message")
    complaints.expected.append("status of 400")

    show_a_creative(worker, page)


def show_a_creative(worker: ScriptedWorker, page: Any) -> None:
    """What a failed model said is forgotten."""

    def chunk(model: str, text: str, **fields: Any) -> AiEvaluationStream:
        return AiEvaluationStream(
            **{"evaluation_type": "technical", "model": model, "chunk": text, "is_complete": False, **fields}
        )

    result = {"creativeId": "c", "evaluationType": "technical", "model": "b", "content": "Well made.", "failed": []}
    events = [
        chunk("a", "Some wrong"),
        chunk("a", "", is_complete=True, error="it was silent for 60 s"),
        chunk("b", "Well "),
        chunk("b", "made."),
        chunk("b", "", is_complete=True),
    ]
    worker.scripts.append((events, result))
    worker.asked.clear()
    render(page, {"creative": {"hook": "useCreativeEvaluation", "args": ["c", "text", "technical"]}})
    page.evaluate("results.creative.startStreaming()")
    wait_until(page, "shown('creative').result")
    seen = shown(page, "creative")
    failed = [{"model": "a", "error": "it was silent for 60 s"}]
    shows = {"text": "Well made.", "model": "b", "failed": failed, "result": result}
    assert seen == {**STILL, **shows, "evaluationId": seen["evaluationId"]}
    assert worker.asked == [{"creativeId": "c", "content": "text", "type": "technical"}]
