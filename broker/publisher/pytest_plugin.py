"""The pytest fixture `published_events`, for tests of code that publishes.

Say `pytest_plugins = ["broker.publisher.pytest_plugin"]` in the topmost conftest.py. It is no entry
point, so that it loads nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.publisher.asyncio_publisher import AsyncPublisher
from broker.publisher.exchange import Outcome
from broker.publisher.front import Front
from broker.publisher.publication import Publication
from broker.publisher.publisher import Publisher
from broker.publisher.recording import Recorder


@pytest.fixture
def published_events(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What every publisher publishes during the test, those made before it too; nothing reaches Redis.

    Returns:
        a sequence of `RecordedEvent`, with `.on(channel)`, `.types`, `.fail()` and `.recover()`.
    """
    recorder = Recorder()

    def take(publisher: object, batch: Sequence[Publication], deadline: float) -> Outcome:
        return recorder.take(batch)

    async def take_async(publisher: object, batch: Sequence[Publication], deadline: float) -> Outcome:
        return recorder.take(batch)

    def never_throttled(publisher: object, per_second: float) -> float:
        return 0.0

    def always(front: Front, batch: Sequence[Publication], *, urgent: bool) -> bool:
        return True

    # A TrioPublisher is a Publisher in threads.
    monkeypatch.setattr(Publisher, "_exchange", take)
    monkeypatch.setattr(AsyncPublisher, "_exchange", take_async)
    for kind in (Publisher, AsyncPublisher):
        monkeypatch.setattr(kind, "_interval", never_throttled)
    # A publisher that lost its Redis in an earlier test is not paused in this one.
    monkeypatch.setattr(Front, "admits", always)
    return recorder
