"""The pipeline: answers come in order and to whom they belong, whatever the kernel takes of a write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from broker.config.sections import Redis
from broker.errors import UpstreamError
from broker.upstream.commands import packed
from broker.upstream.connection import RedisConnection
from broker.upstream.pipeline import Pipeline
from tests.actors.redis_server import RedisServer


@asynccontextmanager
async def open_pipeline(server: RedisServer, *, answer_seconds: float = 5.0) -> AsyncIterator[Pipeline]:
    connection = await RedisConnection.open(Redis(url=server.url))
    try:
        async with trio.open_nursery() as nursery:
            pipeline = Pipeline(connection, answer_seconds)
            nursery.start_soon(pipeline.serve)
            yield pipeline
            nursery.cancel_scope.cancel()
    finally:
        connection.close()


async def test_answers_come_in_order_and_an_error_is_one_of_them(redis_server: RedisServer) -> None:
    async with open_pipeline(redis_server) as pipeline:
        first, error, last = await pipeline.call(("SET", "a", "é"), ("INCR", "a"), ("GET", "a"))
        assert (first, str(error), last) == (b"OK", "ERR value is not an integer or out of range", "é".encode())


async def test_what_the_kernel_does_not_take_follows_in_order(redis_server: RedisServer) -> None:
    answers: list[Any] = []
    async with open_pipeline(redis_server) as pipeline:
        redis_server.freeze()
        for number in range(40):
            pipeline.add(packed(("ECHO", b"%d" % number * 200_000)), answers.append)
            pipeline.flush()
            await trio.lowlevel.checkpoint()
        with trio.move_on_after(0.05) as full:
            await pipeline.wait_room()
        assert full.cancelled_caught
        redis_server.thaw()
        for number in range(40, 400):  # while the kernel takes the rest, bit by bit
            pipeline.add(packed(("ECHO", b"%d" % number)), answers.append)
            pipeline.flush()
            await trio.lowlevel.checkpoint()
        with trio.fail_after(10):
            await pipeline.wait_room()
            assert await pipeline.call(("ECHO", "last")) == [b"last"]
    assert answers == [b"%d" % number * (200_000 if number < 40 else 1) for number in range(400)]


async def test_an_answer_that_is_overdue_ends_it(redis_server: RedisServer) -> None:
    with pytest.raises(ExceptionGroup) as caught, trio.fail_after(5):
        async with open_pipeline(redis_server, answer_seconds=0.2) as pipeline:
            assert await pipeline.call(("PING",)) == [b"PONG"]
            await trio.sleep(0.5)  # who asks nothing is owed no answer
            redis_server.freeze()
            await pipeline.call(("PING",))
    redis_server.thaw()
    assert caught.group_contains(UpstreamError, match="Redis did not answer within 0.2 s")


async def test_a_connection_that_is_lost_ends_it(redis_server: RedisServer) -> None:
    with pytest.raises(ExceptionGroup) as caught, trio.fail_after(5):
        async with open_pipeline(redis_server) as pipeline:
            await trio.to_thread.run_sync(redis_server.kill)
            await pipeline.call(("PING",))
    assert caught.group_contains(UpstreamError)
