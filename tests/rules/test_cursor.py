"""What a client comes back with may be anything; what it says of each channel is read out of it, or not known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cursor import CURSOR_MAX_BYTES, Cursor, since_of
from broker.position import NOWHERE, Position, Since

A, B, C = b"job_progress:1", b"alerts:7", b"feed:x"
UNKNOWN = Since(None)


def cursor(**positions: bytes) -> str:
    made = Cursor()
    for name, position in positions.items():
        made.set({"a": A, "b": B, "c": C}[name], position)
    return made.id.decode()


def test_a_cursor_tells_where_somebody_was_in_each_channel() -> None:
    id = cursor(a=b"7:3:11", b=b"9:0:0")
    was = {A: Since(Position(b"7", 3, b"11")), B: Since(Position(b"9", 0, b"0"))}
    assert since_of(id, (A, B)) == since_of(id, (B, A)) == was
    # A channel that it does not name is asked for the first time.
    assert since_of(id, (A, B, C)) == was
    assert since_of(id, (B,)) == {B: was[B]}


def test_of_one_channel_it_is_the_position_itself() -> None:
    assert since_of("7:3:11", (A,)) == {A: Since(Position(b"7", 3, b"11"))}
    assert since_of("7:3:11", (A, B)) == {A: UNKNOWN, B: UNKNOWN}


@pytest.mark.parametrize(
    "foreign",
    [
        "42",
        "end",
        "c1",
        "c1,",
        "c2,abc=7:3:11",
        "7:3",
        "7:3:11:",
        " 7:3:11",
        "7:-3:11",
        "7:٣:11",
        "x" * 5000,
        "c1,=,=,=",
    ],
)
def test_what_is_foreign_is_not_known(foreign: str) -> None:
    assert since_of(foreign, (A,)) == {A: UNKNOWN}
    assert since_of(foreign, (A, B)) == {A: UNKNOWN, B: UNKNOWN}


def test_a_tampered_position_is_not_known() -> None:
    id = cursor(a=b"7:3:11", b=b"9:4:12").replace("7:3:11", "7:3x11")
    assert since_of(id, (A, B)) == {A: UNKNOWN, B: Since(Position(b"9", 4, b"12"))}


@given(st.text(), st.integers(1, 3))
def test_nothing_that_a_client_sends_is_an_error(text: str, count: int) -> None:
    names = (A, B, C)[:count]
    for sent in (text, f"c1,{text}", cursor(a=b"7:3:11") + text):
        assert set(since_of(sent, names)) <= set(names)


def test_an_id_is_told_with_one_channel_moved_on() -> None:
    made = Cursor()
    made.set(A, b"7:3:11")
    made.set(B, b"9:4:12")
    moved = (made.before(A) + b"7:4:13").decode()
    assert since_of(moved, (A, B)) == {A: Since(Position(b"7", 4, b"13")), B: Since(Position(b"9", 4, b"12"))}


def test_thirty_two_channels_fit() -> None:
    made = Cursor()
    for number in range(32):
        made.set(b"%03d" % number * 100, b"9" * 10 + b":" + b"9" * 15 + b":" + b"9" * 10)
    assert len(made.id) <= CURSOR_MAX_BYTES


def test_a_position_is_read_as_it_is_written() -> None:
    assert Position.from_text("7:3:11") == Position(b"7", 3, b"11")
    assert Position(b"7", 3, b"11").text == b"7:3:11"
    assert Position.from_text(NOWHERE.decode()) == Position(b"0", 0, b"0")
    assert Position.from_text("1:" + "9" * 400 + ":1") is None
