"""The oracle itself: it says nothing where all was as promised, and something wherever it was not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.promise.oracle import PLAIN, STAMPED, Begun, Entry, Event, Record, Told, Truth


def verdict(entries: list[Entry], published: Mapping[str, int] | None = None, truth: Truth | None = None) -> list[str]:
    """`published`: all, of a client that has to have it by now; None where it may still be behind."""
    record = Record(truth or Truth())
    for entry in entries:
        record.note(entry)
    assert record.entries == entries
    if published is None:
        return record.faults
    record.truth.published.update(published)
    return record.faults_at_end()


def event(offset: int, number: int | None = None, *, epoch: int = 7, voice: str = STAMPED) -> Event:
    return Event(f"{epoch}:{offset}:{offset + 90}", (voice, offset if number is None else number))


def bare(number: int, voice: str = STAMPED) -> Event:
    return Event(None, (voice, number))


BEGIN = Begun("7:0:0")
ONE_TO_THREE = [BEGIN, event(1), event(2), event(3)]
LATE = Begun("7:3:93", published={STAMPED: 3})


@pytest.mark.parametrize(
    ("record", "published"),
    [
        (ONE_TO_THREE, {STAMPED: 3}),
        ([Begun(None), bare(1), bare(2)], {STAMPED: 2}),
        ([LATE, event(4)], {STAMPED: 4}),
        ([LATE], {STAMPED: 3}),
        ([BEGIN, *[Told("recorder_changed", "7:0:0", "7:0:0")] * 3, event(1)], {STAMPED: 1}),
        # A hole in what is replayed is from before it came.
        ([Begun(None, published={PLAIN: 6}), bare(1, PLAIN), bare(7, PLAIN)], {PLAIN: 7}),
        # Base is told positions by gaps alone.
        ([Begun(None), Told("recorder_changed", "7:0:0", "7:0:0"), bare(1), Told("trimmed", "7:1:91", "7:8:0")], None),
        # The last event is replayed to who comes late.
        ([Begun("7:2:92", published={STAMPED: 3}), event(3), event(4)], {STAMPED: 4}),
        ([*ONE_TO_THREE, Begun("7:3:93", "7:3:93", True), event(4)], {STAMPED: 4}),
        ([*ONE_TO_THREE, Told("trimmed", "7:3:93", "7:8:0"), event(9)], {STAMPED: 9}),
        (
            [*ONE_TO_THREE, Begun("7:3:93", "7:3:93", False), Told("trimmed", "7:3:93", "7:8:0"), event(9)],
            {STAMPED: 9},
        ),
        (
            [*ONE_TO_THREE, Begun("8:0:0", "7:3:93", False), Told("epoch_changed", "7:3:93", "8:0:0")],
            {STAMPED: 5},
        ),
        ([*ONE_TO_THREE, Told("rolled_back", "7:3:93", "7:1:91"), Event("7:2:5", (STAMPED, 4))], {STAMPED: 4}),
        ([*ONE_TO_THREE, Told("overflow", "7:3:0", "7:5:95", 2), event(6)], {STAMPED: 6}),
        ([*ONE_TO_THREE, Told("redis_away", None, None), event(6)], {STAMPED: 6}),
        (
            [BEGIN, event(1, voice=PLAIN), Told("recorder_changed", "7:1:91", "7:1:91"), event(2, 3, voice=PLAIN)],
            {PLAIN: 3},
        ),
        ([BEGIN, event(1), event(2, 1, voice=PLAIN), event(3, 2)], {STAMPED: 2, PLAIN: 1}),
        ([Begun(None), bare(1), Begun(None, published={STAMPED: 5}), bare(5), bare(6)], {STAMPED: 6}),
        ([Begun(None), bare(1), Begun(None, ""), Told("no_history", None, None), bare(3)], {STAMPED: 3}),
    ],
)
def test_what_is_as_promised(record: list[Entry], published: Mapping[str, int]) -> None:
    assert verdict(record, published) == []


@pytest.mark.parametrize(
    ("record", "published", "says"),
    [
        ([BEGIN, event(1), event(3)], None, "lost: 1 events after 7:1:91"),
        ([BEGIN, event(2)], None, "lost: 1 events after 7:0:0"),
        ([BEGIN, event(1), event(2, 3)], None, "lost: stamped 2 to 2"),
        ([BEGIN, event(1), event(1)], None, "doubled or out of order: 7:1:91"),
        ([BEGIN, event(1), event(2, 1)], None, "doubled or out of order: stamped 1"),
        ([BEGIN, event(2), event(1)], None, "doubled or out of order: 7:1:91"),
        ([*ONE_TO_THREE, event(1, 4, epoch=8)], None, "another epoch after 7:3:93, not told"),
        ([*ONE_TO_THREE, event(5)], None, "lost"),
        ([Begun(None), bare(2)], None, "lost: stamped 1 to 1"),
        ([Begun(None), bare(1), bare(3)], None, "lost: stamped 2 to 2"),
        ([Begun(None), bare(1), bare(1)], None, "doubled"),
        ([LATE, event(4, 5)], None, "lost: stamped 4 to 4"),
        (ONE_TO_THREE, {STAMPED: 4}, "at the end, lost and not told: stamped 4 to 4"),
        ([LATE], {STAMPED: 4}, "at the end, lost and not told: stamped"),
        (ONE_TO_THREE, {STAMPED: 3, PLAIN: 1}, "at the end, lost and not told: plain 1 to 1"),
        ([*ONE_TO_THREE, Begun("7:4:94", "7:3:93", True), event(5)], None, "not from where the client was"),
        ([*ONE_TO_THREE, Begun("7:4:94", "7:3:93", None), event(5)], None, "not told: it begins at 7:4:94"),
        ([*ONE_TO_THREE, Begun("7:3:93", "7:3:93", False), event(4)], {STAMPED: 4}, "recovered was false"),
        ([*ONE_TO_THREE, Begun("7:2:92", "7:2:92", True)], None, "the client lost its place"),
        ([*ONE_TO_THREE, Told("trimmed", "7:2:92", "7:8:0")], None, "the gap begins at 7:2:92"),
        ([*ONE_TO_THREE, Told("trimmed", "7:3:93", "7:8:0"), event(10)], None, "lost: 1 events after 7:8:0"),
        ([*ONE_TO_THREE, Told("overflow", "7:3:93", "7:6:96", 2)], None, "the gap counts 2 events"),
        ([Begun(None), bare(1), Begun(None, ""), bare(2)], None, "not told: what was published while it was away"),
        ([Begun(None, published={PLAIN: 6}), bare(1, PLAIN), bare(8, PLAIN)], None, "lost: plain 7 to 7"),
        ([BEGIN, *[Told("recorder_changed", "7:0:0", "7:0:0")] * 21], None, "told again and again"),
        # A gap in what was recorded explains nothing that was stamped.
        (
            [*ONE_TO_THREE, Told("recorder_changed", "7:3:93", "7:3:93"), event(4, 5)],
            None,
            "lost: stamped 4 to 4",
        ),
        ([*ONE_TO_THREE, Told("recorder_changed", "7:3:93", "7:3:93")], {STAMPED: 4}, "stamped 4 to 4"),
    ],
)
def test_what_is_not(record: list[Entry], published: Mapping[str, int] | None, says: str) -> None:
    found = verdict(record, published)
    assert found
    assert says in " ".join(found)


def test_two_clients_that_had_different_events_at_one_position() -> None:
    truth = Truth()
    assert verdict([BEGIN, event(1), event(2)], truth=truth) == []
    assert "others had ('stamped', 2) there" in " ".join(
        verdict([BEGIN, event(1), event(2, 1, voice=PLAIN)], truth=truth)
    )
