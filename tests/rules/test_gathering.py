"""When reading rests: at a high rate of single messages, and never otherwise."""

from __future__ import annotations

import pytest

from broker.upstream.gathering import BATCH_MESSAGES, Gathering


def settled(messages: int, interval: float, reads: int = 200) -> float:
    """The pause after `reads` reads of `messages` each, `interval` seconds apart."""
    gathering = Gathering()
    pause = -1.0
    for read in range(1, reads + 1):
        pause = gathering.pause_seconds(messages, 1000.0 + read * interval, 1000.0 + read * interval)
    return pause


@pytest.mark.parametrize(
    ("messages", "interval", "pause"),
    [
        (1, 1.0, 0.0),
        (1, 0.01, 0.0),
        (1, 1 / 400, 0.0),
        (1, 1 / 1000, 0.0006),
        (1, 1 / 10_000, 0.006),
        (1, 1 / 20_000, BATCH_MESSAGES / 20_000),
        (8, 8 / 20_000, BATCH_MESSAGES / 20_000),
        (64, 64 / 100_000, BATCH_MESSAGES / 100_000),
        (8, 8 / 300, 0.0),
        (200, 200 / 50_000, 0.0),  # large batches gather by themselves
    ],
)
def test_the_rate_decides(messages: int, interval: float, pause: float) -> None:
    assert settled(messages, interval) == pytest.approx(pause, rel=1e-3)


def test_the_first_message_never_waits() -> None:
    assert Gathering().pause_seconds(1, 1000.0, 1000.0) == 0.0


def test_an_idle_broker_that_was_busy_does_not_rest_for_long() -> None:
    gathering = Gathering()
    now = 1000.0
    for _ in range(500):
        now += 0.0005
        gathering.pause_seconds(1, now, now)
    now += 5
    assert gathering.pause_seconds(1, now, now) == 0.0


def test_a_gathered_batch_does_not_end_the_gathering() -> None:
    """At any rate that pauses at all, what a pause gathers leads to the next pause."""
    for rate in (1000, 5000, 10_000, 20_000, 50_000):
        gathering = Gathering()
        now, pause = 1000.0, 0.0
        pauses = []
        for _ in range(400):
            messages = max(1, round((pause + 0.0002) * rate))
            now += messages / rate
            pause = gathering.pause_seconds(messages, now, now)
            pauses.append(pause)
        assert all(pauses[-100:]), rate


def test_time_spent_on_delivering_is_time_rested() -> None:
    gathering = Gathering()
    now = 1000.0
    for _ in range(300):
        now += 0.0001
        gathering.pause_seconds(1, now, now)
    now += 0.0001
    assert gathering.pause_seconds(1, now, now + 0.002) == pytest.approx(0.006 - 0.002, rel=1e-2)
    now += 0.0001
    assert gathering.pause_seconds(1, now, now + 0.02) == 0.0
