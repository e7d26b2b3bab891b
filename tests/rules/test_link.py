"""The link while it has no connection: it is away, and nobody takes it for stuck."""

from __future__ import annotations

import pytest
import trio

from broker.config.sections import Redis
from broker.upstream import link as upstream
from broker.upstream.link import Link


async def test_a_connection_that_takes_for_ever_is_not_stuck(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    class Slow:
        @staticmethod
        async def open(section: Redis) -> None:
            await trio.sleep_forever()

    monkeypatch.setattr(upstream, "RedisConnection", Slow)
    link = Link(Redis(), 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.serve, None)
        await trio.sleep(600)
        assert link.is_away
        assert not link.is_stuck(trio.current_time())
        nursery.cancel_scope.cancel()
