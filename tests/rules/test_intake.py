"""Events of WebSocket clients on their way to Redis: in order, bounded, each answered."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from broker import intake
from broker.auth.rules import RuleBook
from broker.channel import Channel
from broker.config.access import Rules
from broker.config.sections import Config
from broker.errorcode import BAD_EVENT, TOO_MANY_PENDING, UPSTREAM_REFUSED, UPSTREAM_UNAVAILABLE
from broker.errors import UpstreamError
from broker.intake import Intake
from broker.publishing import Publishing

NOTE = Channel("note", "1")


class Redis:
    """Takes what a script publishes, while it is there."""

    def __init__(self) -> None:
        self.is_away = False
        self.batches: list[int] = []

    async def run(self, script: Any, keys: tuple[str, ...], *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        payloads = arguments[7::4]
        self.batches.append(len(payloads))
        if self.is_away:
            raise UpstreamError("Redis is gone")
        answers = [b"NOPERM" if b"forbidden" in payload else 1 for payload in payloads]
        return [0, answers.count(1), b"", answers, 0, b""]


def opened() -> tuple[Intake, Redis, list[tuple[str | None, str]]]:
    redis: Any = Redis()
    return Intake(Publishing(redis, Config(), RuleBook(Rules(), {}))), redis, []


async def test_what_came_meanwhile_goes_as_one_and_each_is_answered(nursery: trio.Nursery) -> None:
    taker, redis, told = opened()
    nursery.start_soon(taker.serve)
    for n in range(230):
        taker.take(NOTE, b'{"n":%d}' % n, lambda code, why: told.append((code, why)))
    taker.take(NOTE, b'{"forbidden":1}', lambda code, why: told.append((code, why)))
    taker.take(NOTE, b"{", lambda code, why: told.append((code, why)))
    await wait_all_tasks_blocked()
    assert redis.batches == [100, 100, 31]
    assert [code for code, _ in told] == [BAD_EVENT, *[None] * 230, UPSTREAM_REFUSED]


async def test_without_redis_nobody_waits_behind_another(nursery: trio.Nursery) -> None:
    taker, redis, told = opened()
    redis.is_away = True
    nursery.start_soon(taker.serve)
    for _ in range(500):
        taker.take(NOTE, b"{}", lambda code, why: told.append((code, why)))
    await wait_all_tasks_blocked()
    assert redis.batches == [100]
    assert [code for code, _ in told] == [UPSTREAM_UNAVAILABLE] * 500
    redis.is_away = False
    taker.take(NOTE, b"{}", lambda code, why: told.append((code, why)))
    await wait_all_tasks_blocked()
    assert told[-1] == (None, "")


def test_what_waits_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(intake, "WAITING_MAX_BYTES", 100)
    taker, _, told = opened()
    for _ in range(11):
        taker.take(NOTE, b'{"n":1234}', lambda code, why: told.append((code, why)))
    assert [code for code, _ in told] == [TOO_MANY_PENDING]
