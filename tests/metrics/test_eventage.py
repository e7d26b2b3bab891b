"""How old an event is, by its own timestamp."""

from __future__ import annotations

import json

import pytest

from broker.eventage import EventAge
from broker.timestamp import timestamp

NOW = 1_700_000_000.0


def age_of(payload: bytes) -> EventAge:
    age = EventAge(lambda: NOW)
    age.note(payload, 5.0)
    return age


def event(at: object) -> bytes:
    return json.dumps({"type": "x", "timestamp": at, "nested": {"timestamp": "no"}}).encode()


@pytest.mark.parametrize("text", ["2023-11-14T22:13:19.750Z", "2023-11-14T23:13:19.75+01:00"])
def test_it_is_measured_from_the_timestamp(text: str) -> None:
    age = age_of(event(text))
    assert (age.histogram.count, age.histogram.total, age.skipped) == (1, 0.25, {})


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (event(timestamp(NOW + 1)), "ahead"),
        (event(timestamp(NOW - 3601)), "old"),
        (event("yesterday"), "unknown"),
        (event("2023-11-14T22:13:19"), "unknown"),
        (event(NOW), "unknown"),
        (b"[1]", "unknown"),
        (b"\xff", "unknown"),
        (b"", "unknown"),
        (b"[" * 15_000, "unknown"),
        (event(timestamp(NOW))[:-1] + b" " * 20_000 + b"}", "unknown"),
    ],
)
def test_what_has_no_age_is_counted_and_not_measured(payload: bytes, reason: str) -> None:
    age = age_of(payload)
    assert (age.histogram.count, age.skipped) == (0, {reason: 1})


def test_few_are_looked_at() -> None:
    assert age_of(event(timestamp(NOW))).due_at == 5.05
