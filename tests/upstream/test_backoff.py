"""How long a link waits before it tries again."""

from __future__ import annotations

import pytest

from broker.config.sections import Redis
from broker.upstream import backoff as module
from broker.upstream.backoff import Backoff


def test_the_bound_doubles_to_its_most_and_begins_anew_after_a_connection_that_lived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda least, most: (least, most))
    backoff = Backoff(Redis(backoff_min_seconds=0.1, backoff_max_seconds=1.0))
    assert [backoff.seconds() for _ in range(6)] == [(0, 0.1), (0, 0.2), (0, 0.4), (0, 0.8), (0, 1.0), (0, 1.0)]
    backoff.lived(0.9)
    assert backoff.seconds() == (0, 1.0)
    backoff.lived(1.0)
    assert backoff.seconds() == (0, 0.1)
