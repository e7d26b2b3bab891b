"""The command link: every call gets its own replies or is told why not, whatever happens to Redis meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
import pytest
import trio
import trio.testing

from broker.command import Script
from broker.config.sections import Redis
from broker.errors import UpstreamError
from broker.upstream import commands as module
from broker.upstream.commands import CommandLink
from tests.actors.redis_server import RedisServer, free_port

TWICE = Script("return {KEYS[1], ARGV[1], ARGV[1]}")
COUNT = Script("return redis.call('INCR', KEYS[1])")


def link_to(server: RedisServer, *, answer_seconds: float = 5.0) -> CommandLink:
    section = Redis(
        url=server.url,
        ping_timeout_seconds=answer_seconds,
        connect_seconds=1.0,
        backoff_min_seconds=0.02,
        backoff_max_seconds=0.05,
    )
    return CommandLink(section)


async def in_thread(call: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(call)


def value_of(server: RedisServer, key: str) -> bytes | None:
    with server.client() as client:
        found = client.get(key)
        assert found is None or isinstance(found, bytes)
        return found


def clients_of(server: RedisServer) -> int:
    """Who is connected to Redis, besides who asks."""
    with server.client() as client:
        return int(client.info("clients")["connected_clients"]) - 1


async def failure_of(call: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(UpstreamError) as caught, trio.fail_after(10):
        await call()
    return str(caught.value)


async def poll(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not await in_thread(condition):
            await trio.sleep(0.01)


async def test_many_tasks_get_their_own_replies_in_order(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    found: dict[int, list[Any]] = {}

    async def ask(number: int) -> None:
        size = number % 7 + 1
        found[number] = await link.execute(*(("ECHO", f"{number}.{part}") for part in range(size)))
        found[number] += await link.execute(("ECHO", b"x" * 30_000), ("ECHO", number))

    with trio.fail_after(10):
        async with trio.open_nursery() as asking:
            for number in range(200):
                asking.start_soon(ask, number)
    assert found == {
        number: [
            *(f"{number}.{part}".encode() for part in range(number % 7 + 1)),
            b"x" * 30_000,
            str(number).encode(),
        ]
        for number in range(200)
    }
    assert await in_thread(lambda: clients_of(redis_server)) == 1


async def test_an_error_reply_is_a_value_among_the_replies(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    first, error, last = await link.execute(("SET", "a", "é"), ("INCR", "a"), ("GET", "a"))
    assert (first, last) == (b"OK", "é".encode())
    assert isinstance(error, hiredis.ReplyError)
    assert str(error) == "ERR value is not an integer or out of range"
    assert await link.execute(("INCR", "b")) == [1]


async def test_a_script_runs_before_and_after_redis_forgot_it(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)

    def calls() -> dict[str, int]:
        with redis_server.client() as client:
            stats = client.info("commandstats")
        return {name: int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha")}

    for _ in range(3):
        assert await link.run(TWICE, ("k",), b"\x00\xff") == [b"k", b"\x00\xff", b"\x00\xff"]
    assert await in_thread(calls) == {"eval": 1, "evalsha": 3}
    with redis_server.client() as client:
        await in_thread(client.script_flush)
    assert await link.run(TWICE, ("k",), 7) == [b"k", b"7", b"7"]
    assert await in_thread(calls) == {"eval": 2, "evalsha": 4}


async def test_a_script_that_fails_is_an_upstream_error(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    said = await failure_of(lambda: link.run(Script("return redis.call('NONSENSE')"), ()))
    assert said.startswith("Redis refused a script: ERR Unknown command called from script"), said
    assert await link.run(COUNT, ("n",)) == 1


async def test_nothing_connects_before_the_first_call(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert await in_thread(lambda: clients_of(redis_server)) == 0
    await link.execute(("PING",))
    assert await in_thread(lambda: clients_of(redis_server)) == 1


async def test_a_frozen_redis_fails_the_call_and_no_later_one_gets_its_reply(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    link = link_to(redis_server, answer_seconds=0.3)
    nursery.start_soon(link.serve)
    assert await link.execute(("ECHO", "warm")) == [b"warm"]
    redis_server.freeze()
    began = trio.current_time()
    assert await failure_of(lambda: link.execute(("ECHO", "late"))) == "Redis did not answer within 0.3 s"
    assert 0.3 <= trio.current_time() - began < 1.0
    redis_server.thaw()
    with trio.fail_after(5):
        for number in range(20):
            assert await link.execute(("ECHO", number)) == [str(number).encode()]


async def test_whoever_shares_the_frozen_connection_is_told_that_it_is_not_known(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    link = link_to(redis_server, answer_seconds=0.4)
    nursery.start_soon(link.serve)
    await link.execute(("PING",))
    redis_server.freeze()
    said: list[str] = []

    async def ask() -> None:
        said.append(await failure_of(lambda: link.execute(("INCR", "n"))))

    nursery.start_soon(ask)
    await trio.sleep(0.1)
    await ask()
    redis_server.thaw()
    assert said == [
        "Redis did not answer within 0.4 s",
        "Redis did not answer within 0.4 s; whether it took the command is not known",
    ]


async def test_redis_killed_with_calls_in_flight(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    await link.execute(("PING",))
    redis_server.freeze()
    said: list[str] = []

    async def ask() -> None:
        said.append(await failure_of(lambda: link.execute(("INCR", "n"))))

    async with trio.open_nursery() as asking:
        for _ in range(3):
            asking.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.02)
        # While it is still frozen, so that it answers nothing before it goes.
        assert redis_server._process is not None
        redis_server._process.kill()
    assert len(said) == 3
    assert all(words.endswith("; whether it took the command is not known") for words in said), said


async def test_what_was_not_sent_goes_out_once_when_redis_is_back(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    await link.execute(("PING",))
    await in_thread(redis_server.kill)
    await poll(lambda: link._broken is not None and "closed" in link._why_away)
    replies: list[list[Any]] = []

    async def ask() -> None:
        replies.append(await link.execute(("INCR", "n")))

    with trio.fail_after(5):
        async with trio.open_nursery() as asking:
            for _ in range(5):
                asking.start_soon(ask)
            await trio.sleep(0.1)
            assert replies == []
            await in_thread(redis_server.start)
    assert sorted(replies) == [[1], [2], [3], [4], [5]]


async def test_a_call_that_was_given_up_before_it_was_sent_is_never_sent(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """Its caller was told that nothing happened: so nothing may."""
    await in_thread(redis_server.kill)
    link = link_to(redis_server, answer_seconds=0.3)
    nursery.start_soon(link.serve)
    said = await failure_of(lambda: link.execute(("INCR", "n")))
    assert said.startswith(f"Redis cannot be reached: Redis at {redis_server.url} cannot be reached: "), said
    with trio.move_on_after(0.1):
        await link.execute(("INCR", "n"))
    assert (len(link._waiting), link._waiting_bytes) == (0, 0)
    await in_thread(redis_server.start)
    assert await in_thread(lambda: value_of(redis_server, "n")) is None
    assert await link.execute(("INCR", "n")) == [1]


async def test_a_cancelled_call_does_not_shift_the_replies(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    await link.execute(("PING",))
    redis_server.freeze()
    found: list[list[Any]] = []

    async def ask(number: int) -> None:
        found.append(await link.execute(("ECHO", number), ("ECHO", -number)))

    async with trio.open_nursery() as asking:
        asking.start_soon(ask, 1)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.05) as given_up:
            await link.execute(("ECHO", "given"), ("ECHO", "up"))
        assert given_up.cancelled_caught
        asking.start_soon(ask, 2)
        await trio.testing.wait_all_tasks_blocked()
        redis_server.thaw()
    assert sorted(found) == [[b"1", b"-1"], [b"2", b"-2"]]


async def test_the_queue_is_bounded_in_calls_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` does not run, so nothing leaves the queue."""
    monkeypatch.setattr(module, "_CALLS_MAX", 3)
    monkeypatch.setattr(module, "_BYTES_MAX", 1000)
    link = CommandLink(Redis(url="redis://127.0.0.1:1/0", ping_timeout_seconds=0.1))
    full = "too many commands wait for Redis; try again in a moment"
    assert await failure_of(lambda: link.execute(("ECHO", b"x" * 1000))) == full
    link.post(COUNT, ("n",))
    assert len(link._waiting) == 0  # nothing is posted where there is no connection
    link._is_connected = True
    link.post(TWICE, (), b"x" * 1000)
    assert (len(link._waiting), link._waiting_bytes) == (0, 0)
    for _ in range(3):
        link.post(COUNT, ("n",))
    assert await failure_of(lambda: link.execute(("PING",))) == full
    link.post(COUNT, ("n",))
    assert len(link._waiting) == 3
    assert link._waiting_bytes == sum(len(call.data) for call in link._waiting)


async def test_what_is_posted_is_done_and_what_cannot_be_is_not_told(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    await link.execute(("PING",))
    link.post(Script("return redis.call('NONSENSE')"), ())
    link.post(COUNT, ("n",))
    assert await link.execute(("GET", "n")) == [b"1"]
    await in_thread(redis_server.kill)
    link.post(COUNT, ("n",))
    link.post(COUNT, ("n",))
    await in_thread(redis_server.start)
    # It goes with the dead connection or over the next one: who asks behind it is answered.
    with trio.fail_after(5):
        assert (await link.execute(("ECHO", "x"))) == [b"x"]


async def test_a_redis_that_refuses_is_quoted_without_its_password(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    section = Redis(url=redis_server.url.replace("redis://", "redis://me:hunter2@"), ping_timeout_seconds=0.3)
    link = CommandLink(section)
    nursery.start_soon(link.serve)
    said = await failure_of(lambda: link.execute(("PING",)))
    assert "refused the connection" in said
    assert "hunter2" not in said


async def test_a_wrong_answer_ends_the_connection_and_the_next_call_is_its_own(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """A reply too many, or one too few, would shift every reply behind it."""
    link = link_to(redis_server)
    nursery.start_soon(link.serve)
    await link.execute(("PING",))
    assert await link.execute(("SUBSCRIBE", "a", "b")) == [[b"subscribe", b"a", 1]]
    assert await link.execute(("ECHO", "own")) == [b"own"]
    link._answer_seconds = 0.3
    assert await failure_of(lambda: link.execute(("CLIENT", "REPLY", "OFF"))) == "Redis did not answer within 0.3 s"
    assert await link.execute(("ECHO", "own")) == [b"own"]


async def test_cancelling_serve_ends_it_at_once_and_closes_the_connection(redis_server: RedisServer) -> None:
    link = link_to(redis_server)
    with trio.fail_after(2):
        async with trio.open_nursery() as life:
            life.start_soon(link.serve)
            await link.execute(("PING",))
            redis_server.freeze()
            life.start_soon(link.execute, ("PING",))
            await trio.testing.wait_all_tasks_blocked(0.02)
            life.cancel_scope.cancel()
    redis_server.thaw()
    await poll(lambda: clients_of(redis_server) == 0)


async def test_a_port_where_nobody_is_costs_little(nursery: trio.Nursery) -> None:
    """The link waits between its attempts."""
    link = CommandLink(Redis(url=f"redis://127.0.0.1:{free_port()}/0", ping_timeout_seconds=0.5))
    opened = 0
    original = module.RedisConnection.open

    async def counted(section: Redis) -> Any:
        nonlocal opened
        opened += 1
        return await original(section)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.RedisConnection, "open", counted)
        nursery.start_soon(link.serve)
        await failure_of(lambda: link.execute(("PING",)))
    assert 1 <= opened < 20
