"""What a reader of history is told: by where it was, and by what is still there."""

from __future__ import annotations

import pytest

from broker.gap import EPOCH_CHANGED, RECORDER_CHANGED, ROLLED_BACK, TRIMMED, UNKNOWN_POSITION, Gap
from broker.position import Position, Since
from broker.run import Run
from broker.topic.page import Page, page_of

Told = list[tuple[str, str | None, str | None] | list[bytes]]


def page(
    since: str | None,
    *entries: tuple[int, int] | tuple[int, int, bytes],
    top: tuple[int, int] | None = None,
    replay: int = 0,
    recorded: int = 0,
    generation: int = 0,
    unfit: bytes = b"-",
) -> Page:
    """The page of a channel of epoch 7 whose stream has `entries` of offset and tag; `?` is no position."""
    offset, tag = top if top is not None else entries[-1][:2]
    found = [[b"%d-%d" % entry[:2], [entry[2] if len(entry) > 2 else b"s", b"e%d" % entry[0]]] for entry in entries]
    reply = [b"7 %d %d %d" % (offset, tag, recorded), b"%d" % generation, found]
    was = None if since is None else Since(Position.from_text(since))
    return page_of(reply, was, replay, lambda payload: payload != unfit, 0.0)


def told(page: Page) -> Told:
    """The events of each run, and of each gap its reason and positions."""
    return [
        item.payloads
        if isinstance(item, Run)
        else (item.reason, item.begin and item.begin.decode(), item.end and item.end.decode())
        for item in page.items
    ]


def test_who_comes_back_gets_what_it_missed() -> None:
    found = page("7:2:20", (2, 20), (3, 30), (4, 40))
    assert (told(found), found.recovered, found.is_last) == ([[b"e3", b"e4"]], True, True)
    assert (found.begin.text, found.end.text, found.anchor) == (b"7:2:20", b"7:4:40", b"e2")


def test_who_missed_nothing_gets_nothing() -> None:
    for found in (page("7:4:40", (4, 40)), page("7:4:40", top=(4, 40)), page("7:0:0", top=(0, 0))):
        assert (told(found), found.recovered, found.is_last) == ([], True, True)
        assert found.end == found.begin


def test_what_is_trimmed_is_a_gap_and_the_rest_follows() -> None:
    found = page("7:2:20", (5, 50), (6, 60))
    assert (told(found), found.recovered) == ([(TRIMMED, "7:2:20", "7:4:0"), [b"e5", b"e6"]], False)
    # The very next is there: nothing is missing, though the position itself is gone.
    assert told(page("7:4:40", (5, 50))) == [[b"e5"]]
    # All of it is.
    found = page("7:2:20", top=(6, 60))
    assert (told(found), found.end.text, found.is_last) == ([(TRIMMED, "7:2:20", "7:6:60")], b"7:6:60", True)


def test_a_hole_inside_is_a_gap_too() -> None:
    found = page("7:1:10", (1, 10), (2, 20), (4, 40))
    assert told(found) == [[b"e2"], (TRIMMED, "7:2:20", "7:3:0"), [b"e4"]]


def test_another_epoch_is_a_gap_and_all_that_there_is() -> None:
    assert told(page("6:9:90", (1, 10), (2, 20))) == [(EPOCH_CHANGED, "6:9:90", "7:0:0"), [b"e1", b"e2"]]
    assert told(page("6:9:90", top=(0, 0))) == [(EPOCH_CHANGED, "6:9:90", "7:0:0")]


def test_an_older_state_is_told_by_its_tags_and_by_its_end() -> None:
    gap = [(ROLLED_BACK, "7:4:41", "7:5:50")]
    assert told(page("7:4:41", (4, 40), (5, 50))) == gap
    assert told(page("7:9:90", (4, 40), (5, 50))) == [(ROLLED_BACK, "7:9:90", "7:5:50")]
    assert told(page("7:5:51", top=(5, 50))) == [(ROLLED_BACK, "7:5:51", "7:5:50")]
    assert page("7:5:51", top=(5, 50)).end.text == b"7:5:50"


def test_what_is_no_position_is_a_gap_and_then_as_for_a_newcomer() -> None:
    found = page("?", (1, 10), (2, 20), replay=1)
    assert (told(found), found.recovered) == ([(UNKNOWN_POSITION, None, "7:1:10"), [b"e2"]], False)


def test_a_newcomer_gets_the_newest() -> None:
    found = page(None, (2, 20), (3, 30), (4, 40), replay=2)
    assert (told(found), found.begin.text) == ([[b"e3", b"e4"]], b"7:2:20")
    found = page(None, (4, 40), replay=0)
    assert (told(found), found.begin.text, found.is_last) == ([], b"7:4:40", True)
    # There are fewer, or fewer are left: nothing was promised, so nothing is told.
    found = page(None, (1, 10), replay=5)
    assert (told(found), found.begin.text) == ([[b"e1"]], b"7:0:0")
    found = page(None, (4, 40), replay=3)
    assert (told(found), found.begin.text) == ([[b"e4"]], b"7:3:0")


def test_a_change_of_the_recorder_is_a_gap_where_it_was() -> None:
    found = page("7:1:10", (1, 10), (2, 20, b"r"), (3, 30, b"g5"), recorded=5, generation=5)
    assert told(found) == [[b"e2"], (RECORDER_CHANGED, "7:2:20", "7:2:20"), [b"e3"]]
    assert told(found.since(4)) == told(found)
    assert told(found.since(5)) == [[b"e2"], [b"e3"]]
    # Nothing was recorded since.
    found = page("7:1:10", (1, 10), (2, 20, b"r"), recorded=4, generation=5)
    assert told(found) == [[b"e2"], (RECORDER_CHANGED, "7:2:20", "7:2:20")]
    assert told(found.since(5)) == [[b"e2"]]
    # To a channel that was never recorded it is nothing, and nothing to who is new.
    assert told(page("7:1:10", (1, 10), (2, 20), recorded=0, generation=5)) == [[b"e2"]]
    assert told(page(None, (1, 10), (2, 20, b"g5"), replay=1, recorded=5, generation=5)) == [[b"e2"]]


def test_what_cannot_be_delivered_is_passed_over() -> None:
    found = page("7:1:10", (1, 10), (2, 20), (3, 30), unfit=b"e2")
    assert (told(found), found.recovered, found.end.text) == ([[b"e3"]], True, b"7:3:30")


def test_gaps_say_all_they_know() -> None:
    assert Gap(TRIMMED, b"7:2:20", None, 0.0, 3).body(b"a:1") == (
        b'{"type":"gap","channel":"a:1","reason":"trimmed","from":"7:2:20","to":null,"count":3,'
        b'"timestamp":"1970-01-01T00:00:00.000Z"}'
    )


@pytest.mark.parametrize("top", [b"7\r\ndata: 2 20 0", b"7 -2 20 0", b"+7 2 20 0", b"7 2 x 0", b"7 2 20", b""])
def test_what_somebody_else_wrote_is_no_page(top: bytes) -> None:
    with pytest.raises(ValueError):
        page_of([top, b"0", []], None, 0, lambda payload: True, 0.0)


@pytest.mark.parametrize("id", [b"2", b"0-1", b"2-\r\nx", b"x-1"])
def test_an_event_without_a_position_is_none(id: bytes) -> None:
    with pytest.raises(ValueError):
        page_of([b"7 2 20 0", b"0", [[id, [b"s", b"e"]]]], None, 0, lambda payload: True, 0.0)
