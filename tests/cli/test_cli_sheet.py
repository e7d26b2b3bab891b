"""What `broker top` and its like make of figures and keys, without a daemon or a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.cli.keyboard import ENTER, ESCAPE, OTHER, RUBOUT, keys_in
from broker.cli.sample import Sample, rates
from broker.cli.sheet import ago, cell, count, duration, inside, short, size, text_of
from broker.cli.source import CHANNELS_PATH, CLIENTS_PATH
from broker.cli.view import CLIENTS, NODES, View


def sample(at: float, messages: Any, *nodes: str, **others: Any) -> Sample:
    stats = {
        "delivery": {"messages": messages, **others},
        "nodes": [{"id": each.strip("?"), "answered": not each.endswith("?")} for each in nodes],
    }
    return Sample(at, stats)


def test_a_rate_is_the_difference_of_two_sums() -> None:
    found = rates(sample(10.0, 100, "a", gaps={"x": 1}), sample(12.0, 150, "a", gaps={"x": 2, "y": 3}))
    assert (found["messages"], found["gaps"], found["bytes"]) == (25.0, 2.0, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, sample(2.0, 5)),
        (sample(1.0, 5, "a"), sample(2.0, 9, "a", "b")),  # what b counted before is no rate
        (sample(1.0, 5, "a", "b"), sample(2.0, 9, "a", "b?")),
        (sample(1.0, 5, "a"), sample(2.0, 1, "a")),
        (sample(1.0, "5"), sample(2.0, "6")),
        (sample(1.0, True), sample(2.0, True)),
        (sample(2.0, 5), sample(2.0, 9)),
    ],
)
def test_where_there_is_no_rate_none_is_made_up(before: Sample | None, after: Sample) -> None:
    assert rates(before, after)["messages"] is None


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"qc/", ["q", "c", "/"]),
        (b"\r\n\x7f\x08", [ENTER, ENTER, RUBOUT, RUBOUT]),
        (b"\x1b", [ESCAPE]),
        (b"\x1b[A\x1bOPx\x1b[15;2~", [OTHER, OTHER, "x", OTHER]),
        (b"\x1bq\x1b[", [OTHER, OTHER]),
        ("ä\x01".encode(), ["ä", OTHER]),
        (b"\xff", ["\N{REPLACEMENT CHARACTER}"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert keys_in(data) == keys


def test_what_a_filter_of_clients_means() -> None:
    view = View()
    assert [path for path, _ in view.questions(10)] == [CHANNELS_PATH, CLIENTS_PATH]
    for key in "c/ann":
        view.press(key)
    assert view.press(ENTER)
    assert view.questions(10) == [(CLIENTS_PATH, {"sort": "queued", "limit": 10, "user": "ann"})]
    view.filters[CLIENTS] = "job_progress:1"
    assert view.questions(10) == [(CLIENTS_PATH, {"sort": "queued", "limit": 10, "channel": "job_progress:1"})]
    view.kind = NODES
    assert view.questions(10) == []
    assert not view.press("/")
    assert view.typed is None


def test_a_filter_that_is_dropped_leaves_the_one_before() -> None:
    view = View()
    for key in "/be":
        view.press(key)
    view.press(ENTER)
    for key in "/xq":
        assert not view.press(key)
    assert not view.press(ESCAPE)
    assert (view.filters["channels"], view.is_over) == ("be", False)


def test_numbers() -> None:
    assert [short(each) for each in (0, 7, 12.34, 999, 1000, 12_345, 4_200_000, None, "7")] == [
        *("0", "7", "12.3", "999", "1k", "12.3k", "4.2M", "-", "-")
    ]
    assert [size(each) for each in (0, 1023, 1536, 300 * 2**20, None)] == ["0 B", "1023 B", "1.5 KB", "300 MB", "-"]
    assert [count(each) for each in (0, 1234567, None, True, 1.5)] == ["0", "1 234 567", "-", "-", "-"]
    assert [duration(each) for each in (0, 0.00035, 0.0012, 12, 200, 7200, 200_000, None)] == [
        *("0 us", "350 us", "1.2 ms", "12 s", "3 min", "2 h", "2 d", "-")
    ]
    assert [text_of(each) for each in (None, "", True, 1000, 0.5, "x")] == ["-", "-", "yes", "1 000", "0.5", "x"]


def test_how_long_ago() -> None:
    now = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
    assert ago("2026-11-23T12:00:00.000Z", now) == "30 s"
    assert ago("2026-11-23T12:00:31.000Z", now) == "0 s"  # its clock is ahead of ours
    assert [ago(each, now) for each in (None, "soon", 5, "2026-11-23T12:00:00")] == ["-"] * 4


def test_what_a_daemon_says_never_commands_the_terminal() -> None:
    assert cell("\x1b]0;owned\x07[bold]\u202e").plain == "\\u001b]0;owned\\u0007[bold]\\u202e"


def test_a_path_that_is_not_there_is_none() -> None:
    assert [inside(each, "a", "b") for each in ({"a": {"b": 1}}, {"a": 5}, {}, None, [])] == [1, None, None, None, None]
