"""One evaluation at its worker, in virtual time: the lease, the watchers, a Redis that fails, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import trio
from attrs import Factory, define
from trio.testing import MockClock

from broker.errors import ConfigError, EvaluationError, EventError, UpstreamError
from broker.evaluation import Answer, EvaluationRequest, serve
from broker.evaluation.assignment import BUFFER_EVENTS, Assignment
from broker.evaluation.handler import Handler
from broker.events import CouncilScoreStream
from broker.ledger.evaluation import Taken, Watched
from broker.ledger.ledger import Ledger

WANTED = Watched(0, 10)


@define(eq=False)
class ScriptedLedger:
    """Says what it is told to say. `published` holds the events as the real one would, with the last one's name.

    Args:
        beats: what each beat brings; the last is repeated. An exception is raised.
        failures: how many calls of `append` fail, after they were done.
    """

    beats: list[Watched | UpstreamError | None] = Factory(lambda: [WANTED])
    failures: int = 0
    is_another: bool = False
    published: list[str] = Factory(list)
    names: list[str] = Factory(list)
    released: int = 0
    calls: int = 0

    async def append(self, kind: str, id: str, run: str, offset: int, events: Sequence[bytes], last: str = "") -> bool:
        await trio.sleep(0.01)
        self.calls += 1
        if self.is_another:
            return False
        assert 0 <= offset <= len(self.published)
        self.published[offset:] = [_short(event) for event in events]
        self.names = [last]
        if self.failures:
            self.failures -= 1
            raise UpstreamError("gone")
        return True

    async def beat(self, worker: str, taken: Taken) -> Watched | None:
        await trio.lowlevel.checkpoint()
        said = self.beats.pop(0) if len(self.beats) > 1 else self.beats[0]
        if isinstance(said, UpstreamError):
            raise said
        return said

    async def release(self, worker: str, kind: str, id: str, entry: str) -> None:
        await trio.sleep(0.5)
        self.released += 1


def _short(event: bytes) -> str:
    body: dict[str, Any] = json.loads(event)
    return str(body.get("thinking") or body.get("error") or body["type"])


def taken(**changes: Any) -> Taken:
    facts: dict[str, Any] = {"attempt": 1, "deaths": 0, "offset": 0, "watched": WANTED, "user_id": None}
    return Taken(kind="council_score", id="e", entry="1-0", run="r", parameters=b'{"n":2}', **{**facts, **changes})


def assignment(ledger: ScriptedLedger, handler: Handler, **changes: Any) -> Assignment:
    return Assignment(handler, taken(**changes), cast(Ledger, ledger), "w")


def piece(text: str) -> CouncilScoreStream:
    return CouncilScoreStream(stage="claude", thinking=text, is_complete=False)


async def talk(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
    for number in range(request.parameters["n"]):
        await answer.send(piece(str(number)))
        await trio.sleep(1)
    return {"done": True}


async def for_ever(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
    await answer.send(piece("0"))
    await trio.sleep_forever()
    raise AssertionError


async def test_it_says_everything_and_then_that_it_is_complete(autojump_clock: MockClock) -> None:
    ledger = ScriptedLedger()
    await assignment(ledger, talk).run()
    assert (ledger.published, ledger.names, ledger.released) == (["0", "1", "complete"], ["complete"], 0)


@pytest.mark.parametrize("failures", [1, 2, 3, 7])
async def test_a_redis_that_breaks_after_every_step_doubles_nothing(autojump_clock: MockClock, failures: int) -> None:
    ledger = ScriptedLedger(failures=failures)
    await assignment(ledger, talk).run()
    assert ledger.published == ["0", "1", "complete"]


async def test_a_takeover_is_told_first(autojump_clock: MockClock) -> None:
    """Also a worker's death before it said a word; but not a request that was given back untouched."""
    ledger = ScriptedLedger()
    await assignment(ledger, talk, attempt=2, deaths=1).run()
    assert ledger.published == ["evaluation_restarted", "0", "1", "complete"]
    ledger = ScriptedLedger(published=["0"])
    await assignment(ledger, talk, attempt=2, offset=1).run()
    assert ledger.published == ["0", "evaluation_restarted", "0", "1", "complete"]
    ledger = ScriptedLedger()
    await assignment(ledger, talk, attempt=2).run()
    assert ledger.published == ["0", "1", "complete"]


async def test_a_second_death_and_an_unwatched_one_are_not_begun(autojump_clock: MockClock) -> None:
    async def never(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        raise AssertionError

    ledger = ScriptedLedger()
    await assignment(ledger, never, attempt=3, deaths=2).run()
    assert ledger.published == ["the evaluation was given up: every worker that took it died"]
    ledger = ScriptedLedger()
    await assignment(ledger, never, watched=Watched(10, 10)).run()
    assert (ledger.published, ledger.names) == (["cancelled: nobody watched the evaluation any more"], ["error"])


async def test_who_lost_the_lease_stops_and_says_nothing_more(autojump_clock: MockClock) -> None:
    ledger = ScriptedLedger(beats=[WANTED, WANTED, None])
    await assignment(ledger, for_ever).run()
    assert trio.current_time() == pytest.approx(3, abs=0.2)
    assert (ledger.published, ledger.released) == (["0"], 0)
    ledger = ScriptedLedger(is_another=True)
    await assignment(ledger, for_ever).run()
    assert (ledger.published, ledger.calls, ledger.released) == ([], 1, 0)


async def test_it_stops_when_nobody_watches(autojump_clock: MockClock) -> None:
    ledger = ScriptedLedger(beats=[WANTED, Watched(9, 10), Watched(10, 10)])
    await assignment(ledger, for_ever).run()
    assert trio.current_time() == pytest.approx(3, abs=0.2)
    assert (ledger.published, ledger.names) == (["0", "cancelled: nobody watched the evaluation any more"], ["error"])


async def test_what_redis_says_after_an_outage_counts(autojump_clock: MockClock) -> None:
    """It has left the outage out already."""
    away = UpstreamError("gone")
    ledger = ScriptedLedger(beats=[away, away, WANTED, Watched(10, 10)])
    await assignment(ledger, for_ever).run()
    assert trio.current_time() == pytest.approx(4, abs=0.2)


async def test_all_who_wait_for_a_full_buffer_go_on(autojump_clock: MockClock) -> None:
    async def many(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        async def say(name: str) -> None:
            for number in range(700):
                await answer.send(piece(f"{name}{number}"))

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(say, name)
        return {}

    ledger = ScriptedLedger(failures=3)
    with trio.fail_after(60):
        await assignment(ledger, many).run()
    assert len(ledger.published) == 2101
    assert [text for text in ledger.published if text[0] == "b"] == [f"b{number}" for number in range(700)]


async def test_cancelled_it_is_given_back(autojump_clock: MockClock) -> None:
    ledger = ScriptedLedger()
    with trio.move_on_after(2.5):
        await assignment(ledger, for_ever).run()
    assert trio.current_time() == pytest.approx(3, abs=0.1)  # the release was not cut off
    assert (ledger.published, ledger.released) == (["0"], 1)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (EvaluationError("no quorum"), "no quorum"),
        (ExceptionGroup("x", [ExceptionGroup("y", [EvaluationError("a")]), EvaluationError("b")]), "a; b"),
    ],
    ids=["one", "a group"],
)
async def test_what_a_handler_raises_on_purpose_is_told(
    autojump_clock: MockClock, raised: Exception, told: str
) -> None:
    async def fail(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        await answer.send(piece("0"))
        raise raised

    ledger = ScriptedLedger()
    await assignment(ledger, fail).run()
    assert (ledger.published, ledger.names) == (["0", told], ["error"])


@pytest.mark.parametrize("result", [ZeroDivisionError("secret"), object()], ids=["raises", "is no JSON"])
async def test_what_a_handler_did_not_mean_is_told_without_details(autojump_clock: MockClock, result: object) -> None:
    async def fail(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        if isinstance(result, Exception):
            raise result
        return {"x": result}

    ledger = ScriptedLedger()
    await assignment(ledger, fail).run()
    assert ledger.published == ["internal error of the evaluation worker; it is in its log"]


async def test_a_handler_waits_for_a_redis_that_does_not_take_its_events(autojump_clock: MockClock) -> None:
    sent = 0

    async def flood(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        nonlocal sent
        while True:
            await answer.send(piece(str(sent)))
            sent += 1

    ledger = ScriptedLedger(failures=10**9)
    with trio.move_on_after(5):
        await assignment(ledger, flood).run()
    assert sent == BUFFER_EVENTS


async def test_an_event_that_the_daemon_would_drop_is_refused(autojump_clock: MockClock) -> None:
    async def shout(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        with pytest.raises(EventError, match="at most 1048576"):
            await answer.send(piece("x" * (1 << 20)))
        return {}

    ledger = ScriptedLedger()
    await assignment(ledger, shout).run()
    assert ledger.published == ["complete"]


@pytest.mark.parametrize("what", ["hello", {"type": "x"}, None])
async def test_what_is_no_event_is_refused(autojump_clock: MockClock, what: Any) -> None:
    async def mumble(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
        with pytest.raises(EventError, match=r"^send takes an event of broker\.events, not "):
            await answer.send(what)
        return {}

    ledger = ScriptedLedger()
    await assignment(ledger, mumble).run()
    assert ledger.published == ["complete"]


@pytest.mark.parametrize("kinds", [[], ["council_score", "council-score"]])
async def test_a_kind_that_no_daemon_asks_for_is_refused(kinds: list[str]) -> None:
    with pytest.raises(ConfigError, match="handlers: the kinds are council_score and creative_evaluation, not "):
        await serve(dict.fromkeys(kinds, talk), "redis://127.0.0.1:1/0")


async def test_there_is_an_end_to_what_may_be_said(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.evaluation.assignment.EVENTS_MAX", 1)
    ledger = ScriptedLedger()
    await assignment(ledger, talk).run()
    assert ledger.published == ["0", "the evaluation has 1 events, as many as may be"]
