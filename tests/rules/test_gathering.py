"""When reading rests: at a high rate of single messages, and never otherwise."""

from __future__ import annotations

import pytest

from broker.upstream.gathering import PAUSE_SECONDS, Gathering


def settled(messages: int, interval: float, reads: int = 200) -> float:
    """The pause after `reads` reads of `messages` each, `interval` seconds apart."""
    gathering = Gathering()
    pause = -1.0
    for read in range(1, reads + 1):
        pause = gathering.pause_seconds(messages, 1000.0 + read * interval)
    return pause


@pytest.mark.parametrize(
    ("messages", "interval", "pause"),
    [
        (1, 1.0, 0.0),
        (1, 0.01, 0.0),
        (1, 1 / 400, 0.0),
        (1, 1 / 1000, PAUSE_SECONDS),
        (1, 1 / 10_000, PAUSE_SECONDS),
        (8, 8 / 5000, PAUSE_SECONDS),
        (8, 8 / 300, 0.0),
        (100, 100 / 50_000, 0.0),  # large batches gather by themselves
    ],
)
def test_the_rate_decides(messages: int, interval: float, pause: float) -> None:
    assert settled(messages, interval) == pause


def test_the_first_message_never_waits() -> None:
    assert Gathering().pause_seconds(1, 1000.0) == 0.0


def test_an_idle_broker_that_was_busy_does_not_rest_for_long() -> None:
    gathering = Gathering()
    now = 1000.0
    for _ in range(500):
        now += 0.0005
        gathering.pause_seconds(1, now)
    now += 5
    assert gathering.pause_seconds(1, now) == 0.0


def test_the_rest_is_short() -> None:
    assert PAUSE_SECONDS <= 0.002
