"""Stamps are read as the scripts write them, and runs are cut and joined without losing a place."""

from __future__ import annotations

import pytest

from broker.position import Position
from broker.run import Held, Run, Runs, Tail, parsed


def runs_of(*events: tuple[bytes, int, bytes]) -> list[Run]:
    """Of epoch, offset and how each came."""
    runs = Runs()
    for epoch, offset, came in events:
        runs.add(epoch, offset, b"%b:%d:5" % (epoch, offset), b"e%d" % offset, came)
    return runs.runs


def test_a_stamp() -> None:
    assert parsed(b'\x01s:7:12:5 {"a": 1}') == (b"s", b"7", 12, b"7:12:5", b'{"a": 1}')
    assert parsed(b"\x01g3:7:12:5 x y") == (b"g3", b"7", 12, b"7:12:5", b"x y")
    assert parsed(b"\x01u  {}") == (b"u", b"", 0, b"", b" {}")


@pytest.mark.parametrize(
    "stamp",
    [
        b"\x01",
        b"\x01s",
        b"\x01s:7:12 {}",
        b"\x01s:7:-1:5 {}",
        b"\x01s:7:1_0:5 {}",
        b"\x01s::: {}",
        b"\x01s:a:1:5 {}",
        b"\x01s:7:" + b"9" * 5000 + b":5 {}",
        b"\x01g" + b"9" * 5000 + b":7:1:5 {}",
    ],
)
def test_what_is_no_stamp(stamp: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(stamp)


def test_runs_end_where_offsets_do_epochs_do_and_the_recorder_changed() -> None:
    found = runs_of(
        (b"7", 1, b"s"), (b"7", 2, b"r"), (b"7", 4, b"s"), (b"8", 5, b"s"), (b"8", 6, b"g2"), (b"8", 7, b"r")
    )
    assert [(run.epoch, run.first, run.last, run.generation, run.is_recorded) for run in found] == [
        (b"7", 1, 2, 0, True),
        (b"7", 4, 4, 0, False),
        (b"8", 5, 5, 0, False),
        (b"8", 6, 7, 2, True),
    ]


def test_one_that_cannot_be_delivered_keeps_its_place() -> None:
    runs = Runs()
    runs.add(b"7", 1, b"7:1:5", b"e1", b"s")
    runs.add(b"7", 2, b"7:2:5", None, b"s")
    (run,) = runs.runs
    assert (run.last, run.end, run.positions, run.payloads) == (2, b"7:2:5", [b"7:1:5"], [b"e1"])
    assert run.end_position == Position(b"7", 2, b"5")
    assert run.after(1).payloads == []


def test_the_rest_of_a_run() -> None:
    (run,) = runs_of(*((b"7", offset, b"s") for offset in (3, 4, 5)))
    assert run.after(2) is run
    assert (run.after(3).first, run.after(3).payloads, run.after(3).end) == (4, [b"e4", b"e5"], b"7:5:5")
    assert run.only(slice(1)).payloads == [b"e3"]


def test_what_is_not_kept_has_no_place() -> None:
    runs = Runs()
    runs.add(b"7", 1, b"7:1:5", b"e1", b"s")
    runs.add_unkept(b"x")
    runs.add_unkept(b"y")
    runs.add(b"7", 2, b"7:2:5", b"e2", b"s")
    assert [(run.epoch, run.payloads) for run in runs.runs] == [(b"7", [b"e1"]), (b"", [b"x", b"y"]), (b"7", [b"e2"])]


def test_a_tail_has_the_newest() -> None:
    tail = Tail(4)
    for run in (run for offset in (1, 2, 3) for run in runs_of((b"7", offset, b"s"))):
        tail.add(run)
    assert [run.first for run in tail.after(0)] == [2, 3]
    assert [run.first for run in tail.after(2)] == [3]
    assert (tail.follows(b"7", 0), tail.follows(b"7", 1), tail.follows(b"8", 1)) == (False, True, False)
    tail.clear()
    assert (tail.follows(b"7", 3), tail.size) == (False, 0)


def test_what_is_held_too_long_is_forgotten_but_not_that_it_came() -> None:
    held = Held(4)
    for offset in (1, 2):
        held.add(*runs_of((b"7", offset, b"s")))
    assert not held.has_forgotten(Position(b"7", 0, b"5"))
    held.add(*runs_of((b"7", 3, b"s")))
    assert held.take() == []
    assert [held.has_forgotten(Position(b"7", offset, b"5")) for offset in (2, 3)] == [True, False]
    held.clear()
    assert not held.has_forgotten(Position(b"7", 0, b"5"))


def test_what_came_before_history_was_asked_is_in_the_answer_or_nowhere() -> None:
    held = Held(100)
    held.add(*runs_of((b"6", 9, b"s")))
    held.asked()
    held.add(*runs_of((b"7", 2, b"s")))
    held.answered()
    assert [run.first for run in held.take()] == [2]
    held = Held(0)
    held.add(*runs_of((b"7", 9, b"s")))
    held.asked()
    held.answered()
    assert not held.has_forgotten(Position(b"7", 1, b"5"))
