"""The rules of a job's progress, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import EventError
from broker.publisher.circuit import Circuit
from broker.publisher.course import Course


def _course(interval: float = 0.1) -> Course:
    return Course("42", "queued", "", None, interval)


def _sent(events: list[object]) -> list[tuple[str, str, float]]:
    return [(event.status, event.stage, event.progress) for event in events]  # type: ignore[attr-defined]


def test_a_newer_value_replaces_what_is_held_and_it_is_due_after_the_interval() -> None:
    course = _course()
    course.enter(0)
    assert _sent(course.advance(0, 0.1, None, None, None)) == [("processing", "queued", 0.1)]
    assert course.due is None
    assert course.advance(0.01, 0.2, None, None, None) == []
    assert course.advance(0.02, 0.3, None, None, None) == []
    assert course.due == 0.1
    assert course.release(0.09) == []
    assert _sent(course.release(0.1)) == [("processing", "queued", 0.3)]
    assert (course.due, course.release(0.3)) == (None, [])
    assert _sent(course.advance(0.25, 0.4, None, None, None)) == [("processing", "queued", 0.4)]


def test_a_new_stage_is_sent_at_once_behind_what_is_held() -> None:
    course = _course()
    course.enter(0)
    course.advance(0, 0.1, "loading", None, None)
    course.advance(0.01, 0.2, None, None, None)
    assert _sent(course.advance(0.02, 0.3, "rendering", None, None)) == [
        ("processing", "loading", 0.2),
        ("processing", "rendering", 0.3),
    ]


def test_a_stage_for_each_value_is_throttled_too() -> None:
    course = _course()
    course.enter(0)
    course.advance(0, 0, "stage", None, None)
    sent = 0
    for millisecond in range(1000):
        now = millisecond / 1000
        sent += len(course.release(now)) + len(course.advance(now, 0.5, f"stage {millisecond}", None, None))
    assert sent <= 10 + 10


@pytest.mark.parametrize(
    ("failed", "end"), [(None, ("completed", "completed", 1)), ("failed: X", ("failed", "loading", 0.2))]
)
def test_the_end_is_sent_at_once_behind_what_is_held(failed: str | None, end: tuple[str, str, float]) -> None:
    course = _course()
    course.enter(0)
    course.advance(0, 0.1, "loading", None, None)
    course.advance(0.01, 0.2, None, None, None)
    assert _sent(course.end(0.02, failed)) == [("processing", "loading", 0.2), end]
    assert course.due is None


def test_a_step_at_the_wrong_time_is_an_error() -> None:
    course = _course()
    with pytest.raises(EventError, match="is not running"):
        course.advance(0, 0.1, None, None, None)
    course.enter(0)
    with pytest.raises(EventError, match="has begun already"):
        course.enter(0)
    course.end(0, None)
    with pytest.raises(EventError, match="is not running"):
        course.advance(0, 0.1, None, None, None)
    with pytest.raises(EventError, match="is not running"):
        course.end(0, None)


def test_what_is_wrong_changes_nothing() -> None:
    course = _course()
    course.enter(0)
    with pytest.raises(EventError, match="progress"):
        course.advance(1, 1.5, "nonsense", "nonsense", None)
    assert _sent(course.advance(1, None, None, None, None)) == [("processing", "queued", 0)]


@given(st.lists(st.tuples(st.floats(0.001, 0.2), st.sampled_from([None, "a", "b"])), max_size=60))
def test_the_last_value_is_always_sent_and_ten_a_second_without_new_stages(
    calls: list[tuple[float, str | None]],
) -> None:
    course = _course()
    course.enter(0)
    now, times, last = 0.0, [], 0.0
    got: list[float] = []
    stage_changes = 0
    stage = "queued"
    for number, (pause, new_stage) in enumerate(calls):
        # A timer that fires when it should.
        if course.due is not None and course.due <= now + pause:
            at = course.due
            times += [at] * len(released := course.release(at))
            got += [event.progress for event in released]
        now += pause
        last = number / 100
        stage_changes += new_stage not in (None, stage)
        stage = new_stage or stage
        sent = course.advance(now, last, new_stage, None, None)
        times += [now] * len(sent)
        got += [event.progress for event in sent]
        assert course.due is None or now - 1e-9 <= course.due <= now + 0.1
    got += [event.progress for event in course.end(now, None)]
    assert got[-1] == 1
    assert got == sorted(got)
    if calls:
        assert got[-2] == last
    # At most one each interval, one to begin with, and two for each new stage.
    assert len(times) <= now / 0.1 + 2 + 2 * stage_changes


def test_a_circuit_lets_one_call_through_each_pause() -> None:
    circuit = Circuit(1.0)
    assert [circuit.admits(0), circuit.is_open] == [True, False]
    circuit.failed(0)
    assert [circuit.admits(now) for now in (0, 0.9, 1.0, 1.1, 1.9, 2.0)] == [False, False, True, False, False, True]
    circuit.succeeded()
    assert [circuit.admits(2.1), circuit.is_open] == [True, False]
