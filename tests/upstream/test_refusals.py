"""What is counted and logged of messages that are dropped."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import pytest
import structlog

from broker.config.sections import Redis
from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.events import JobProgress
from broker.message import NOT_AN_EVENT, NOT_JSON
from broker.run import STAMP, Run
from broker.upstream.link import Link
from broker.upstream.refusals import BURST_SECONDS, Refusals

GOOD = JobProgress(job_id="42", status="processing", stage="s", progress=0.5, message="m").encode()
BAD = GOOD.replace(b"0.5", b"40")
WHY = "job_progress: progress must be a number from 0 to 1, not 40"
Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as found:
        yield found


def test_counted_by_type_and_reason(lines: Lines) -> None:
    refusals = Refusals({"alerts"})
    for name, reason in ((b"alerts:1", "a"), (b"alerts:2", "b"), (b"alerts", "a"), (b"note:1", "a"), (b"\xff", "b")):
        refusals.add(reason, name, b"x", 0.0)
    assert refusals.counts() == {"alerts": {"a": 2, "b": 1}, "note": {"a": 1}, "\\xff": {"b": 1}}


def test_at_most_a_hundred_types_that_nobody_declared(lines: Lines) -> None:
    refusals = Refusals({"late"})
    for number in range(150):
        refusals.add("a", b"type%d:1" % number, b"x", 0.0)
    for name in (b"type0:2", b"type99", b"type100", b"late:1"):
        refusals.add("a", name, b"x", 0.0)
    assert refusals.counts() == {
        **{f"type{number}": {"a": 1} for number in range(1, 99)},
        "type0": {"a": 2},
        "type99": {"a": 2},
        "other": {"a": 51},
        "late": {"a": 1},
    }


def test_a_line_a_burst_for_each_reason_which_says_why(lines: Lines) -> None:
    refusals = Refusals()
    for at in (0.0, 1.0, 2.0, BURST_SECONDS):
        refusals.add(NOT_AN_EVENT, b"job_progress:42", BAD, at)
    refusals.add(NOT_JSON, b"alerts:1", b"{", 2.0)
    line = {
        "event": "message from Redis dropped",
        "log_level": "warning",
        "reason": "not_an_event",
        "channel": "job_progress:42",
        "size_bytes": len(BAD),
        "begins": BAD[:60].decode(),
        "why": WHY,
        "more_since_last_line": 0,
    }
    assert lines == [
        line,
        {**line, "more_since_last_line": 2},
        {
            "event": "message from Redis dropped",
            "log_level": "warning",
            "reason": "not_json",
            "channel": "alerts:1",
            "size_bytes": 1,
            "begins": "{",
            "more_since_last_line": 0,
        },
    ]


class FakeHub:
    """Keeps what is dispatched, and what is handed on stamped."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.stamped: list[tuple[bytes, Run]] = []

    def dispatch(self, batch: dict[bytes, list[bytes]], now: float) -> None:
        self.heard += ((name, payload) for name, payloads in batch.items() for payload in payloads)

    def take(self, name: bytes, runs: Sequence[Run], now: float) -> None:
        self.stamped += ((name, run) for run in runs)

    def hands_on(self, name: bytes, *, is_stamped: bool) -> bool:
        return False


def taken(link: Link, *messages: tuple[bytes, bytes]) -> FakeHub:
    hub: Any = FakeHub()
    link._take([[b"message", name, payload] for name, payload in messages], hub, 0.0)
    assert isinstance(hub, FakeHub)
    return hub


PLAIN_TYPES = {
    **BUILT_IN_TYPES,
    "job": TypeOptions(validate="event"),
    "raw": TypeOptions(validate="off"),
    "note": TypeOptions(validate="json"),
}


def test_the_link_checks_what_is_plain_as_its_type_says(lines: Lines) -> None:
    link = Link(Redis(channel_prefix="app:"), 1024, PLAIN_TYPES)
    good = [(b"job:42", GOOD), (b"raw:1", b"x"), (b"raw", b""), (b"note:1", b"{}"), (b"rawer:1", b"{}")]
    bad = [
        (b"job:42", b"{}"),
        (b"job", b"{"),
        (b"raw:1", b"\xff"),
        (b"note:1", b"x"),
        (b"rawer:1", b"x"),
        (b"raw:1", b"x" * 1025),
    ]
    assert taken(link, *((b"app:" + name, payload) for name, payload in good + bad)).heard == good
    statistics = link.statistics()
    assert statistics.refused_by_type == {
        "job": {"not_an_event": 1, "not_json": 1},
        "raw": {"not_utf8": 1, "too_big": 1},
        "note": {"not_json": 1},
        "rawer": {"not_json": 1},
    }
    assert statistics.refused == {"not_an_event": 1, "not_json": 3, "not_utf8": 1, "too_big": 1}
    assert statistics.messages == len(good + bad)


def test_the_link_checks_for_json_where_nothing_else_is_said(lines: Lines) -> None:
    link = Link(Redis(), 1024, {})
    assert taken(link, (b"job_progress:42", b"{}"), (b"x", b"x"), (b"alerts:1", b"[]")).heard == [
        (b"job_progress:42", b"{}"),
        (b"alerts:1", b"[]"),
    ]
    assert link.statistics().refused_by_type == {"x": {"not_json": 1}}


# Plain on channels with history: fit, not JSON, too large, not UTF-8.
RECORDED = [(b"alerts:1", b"{}"), (b"alerts:1", b"x"), (b"alerts", b'"%b"' % (b"x" * 1024)), (b"ai_stream", b"\xff")]


def test_the_link_leaves_what_is_plain_to_the_recorder_where_there_is_history(lines: Lines) -> None:
    link = Link(Redis(), 1024, PLAIN_TYPES)
    hub = taken(link, *RECORDED, (b"alerts_2:1", b"x"))
    # The hub drops it, as it comes again, stamped.
    assert sorted(hub.heard) == sorted(RECORDED)
    assert link.statistics().refused_by_type == {"alerts_2": {"not_json": 1}}
    assert [line["channel"] for line in lines] == ["alerts_2:1"]


def test_the_link_checks_it_where_nobody_can_record(lines: Lines) -> None:
    link = Link(Redis(), 1024, {**PLAIN_TYPES, "job": TypeOptions("event", 5, 60.0)})
    messages = [*RECORDED, (b"job:1", GOOD), (b"job:1", b"{}"), (b"raw:1", b"x")]
    link.take_plain(True)
    assert taken(link, *messages).heard == [(b"alerts:1", b"{}"), (b"job:1", GOOD), (b"raw:1", b"x")]
    # Recorded again: not looked at any more.
    link.take_plain(False)
    assert sorted(taken(link, *messages).heard) == sorted(messages)
    assert link.statistics().refused_by_type == {
        "alerts": {"not_json": 1, "too_big": 1},
        "ai_stream": {"not_utf8": 1},
        "job": {"not_an_event": 1},
    }


def test_what_is_stamped_is_checked_whatever_its_way_and_keeps_its_place(lines: Lines) -> None:
    types = {**BUILT_IN_TYPES, "job_progress": TypeOptions("event", 5, 60.0)}
    link = Link(Redis(channel_prefix="app:"), 1024, types)
    came = [b"s:7:1:11 " + GOOD, b"r:7:2:12 {}", b"r:7:3:13 " + GOOD, b"u {", b"u " + GOOD, b"s:7:x:14 " + GOOD]
    stamped = [(b"app:job_progress:42", STAMP + message) for message in came]
    hub = taken(link, *stamped, (b"app:alerts:1", STAMP + b"s:8:1:15 x"))
    assert (hub.heard, hub.stamped[0][0]) == ([], b"job_progress:42")
    assert [(name, run.first, run.last, run.positions, run.payloads) for name, run in hub.stamped] == [
        (b"job_progress:42", 1, 3, [b"7:1:11", b"7:3:13"], [GOOD, GOOD]),
        (b"job_progress:42", 0, 0, [], [GOOD]),
        (b"alerts:1", 1, 1, [], []),
    ]
    assert link.statistics().refused_by_type == {
        "job_progress": {"not_an_event": 1, "not_json": 1, "bad_stamp": 1},
        "alerts": {"not_json": 1},
    }
    assert link.statistics().messages == 7
