"""Seats of users at two nodes over a real Redis, without daemons."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

from broker.config.access import Limits
from broker.config.sections import Redis
from broker.node import NodeKeys, NodeRecord, new_node_id
from broker.nodes.membership import Membership
from broker.seats import CONNECTIONS_PER_USER, STREAMS_PER_USER, Seat, Seats
from broker.upstream.commands import CommandLink
from tests.actors.redis_server import RedisServer

LIMITS = Limits(connections_per_user=3, streams_per_user=2)


class FakeControl:
    """Takes what would be heard on the control channel."""

    def __init__(self) -> None:
        self.orders: dict[str, Any] = {}


@attrs.define(eq=False)
class Desk:
    """One node's seats and lease."""

    seats: Seats
    membership: Membership
    commands: CommandLink


@asynccontextmanager
async def desk(redis_server: RedisServer, name: str, limits: Limits = LIMITS) -> AsyncIterator[Desk]:
    commands = CommandLink(Redis(url=redis_server.url))
    keys = NodeKeys("p:", new_node_id(name))
    seats = Seats(limits, commands, keys, 1.0)
    control: Any = FakeControl()
    membership = Membership(keys, NodeRecord, commands, control, seats, 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commands.serve)
        nursery.start_soon(seats.serve)
        await nursery.start(membership.serve)
        yield Desk(seats, membership, commands)
        await membership.leave()
        nursery.cancel_scope.cancel()


async def until(condition: Any) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def two(redis_server: RedisServer, limits: Limits = LIMITS) -> AsyncIterator[tuple[Desk, Desk]]:
    async with desk(redis_server, "a", limits) as one, desk(redis_server, "b", limits) as other:
        await until(lambda: one.seats.is_shared and not one.seats.is_telling)
        await until(lambda: other.seats.is_shared and not other.seats.is_telling)
        yield one, other


async def test_who_is_alone_asks_nothing(redis_server: RedisServer) -> None:
    async with desk(redis_server, "a") as one:
        with redis_server.client() as client:
            before = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
            found = [await one.seats.take("ann", "websocket") for _ in range(4)]
            assert [isinstance(seat, Seat) for seat in found] == [True, True, True, False]
            assert found[3] == CONNECTIONS_PER_USER
            renewals = one.membership.renewals
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= renewals
            assert client.keys("p:broker:users:*") == []


async def test_the_limits_hold_over_both_and_name_themselves(redis_server: RedisServer) -> None:
    async with two(redis_server) as (one, other):
        first = await one.seats.take("ann", "sse")
        assert isinstance(await other.seats.take("ann", "sse"), Seat)
        assert await other.seats.take("ann", "sse") == STREAMS_PER_USER
        assert isinstance(await other.seats.take("ann", "websocket"), Seat)
        assert await one.seats.take("ann", "websocket") == CONNECTIONS_PER_USER
        assert isinstance(await one.seats.take("bob", "sse"), Seat)
        assert (dict(one.seats.limits_hit), dict(other.seats.limits_hit)) == (
            {CONNECTIONS_PER_USER: 1},
            {STREAMS_PER_USER: 1},
        )
        assert isinstance(first, Seat)
        first.leave()
        first.leave()  # once is enough
        with redis_server.client() as client:
            name = f"p:broker:users:{one.membership.node}"
            await until(lambda: client.hgetall(name) == {b"ubob": b"1 1", b"begun": b"1", b"told": b"1"})
            assert 0 < client.pttl(name) <= 1000
        assert isinstance(await other.seats.take("ann", "websocket"), Seat)
        assert one.seats.statistics() == {"users": 1, "seats": 1}


async def test_whoever_stops_waiting_holds_no_seat(redis_server: RedisServer) -> None:
    async with two(redis_server) as (one, other):
        redis_server.freeze()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one.seats.take, "ann", "websocket")
            await trio.testing.wait_all_tasks_blocked()
            assert one.seats.statistics()["seats"] == 3
            nursery.cancel_scope.cancel()
        redis_server.thaw()
        assert one.seats.statistics()["seats"] == 0

        async def all_three() -> list[Any]:
            found = [await other.seats.take("ann", "websocket") for _ in range(3)]
            for seat in found:
                if isinstance(seat, Seat):
                    seat.leave()
            return [each for each in found if isinstance(each, str)]

        with trio.fail_after(5):
            while await all_three():
                await trio.sleep(0.05)


async def test_a_frozen_redis_holds_nobody_up_for_long(redis_server: RedisServer) -> None:
    async with two(redis_server) as (one, _):
        redis_server.freeze()
        began_at = trio.current_time()
        assert isinstance(await one.seats.take("ann", "websocket"), Seat)
        assert trio.current_time() - began_at < 1.5
        began_at = trio.current_time()
        assert isinstance(await one.seats.take("ann", "websocket"), Seat)
        assert trio.current_time() - began_at < 0.1
        redis_server.thaw()
        await until(lambda: one.seats.is_shared and not one.seats.is_telling)
        with redis_server.client() as client:
            assert client.hget(f"p:broker:users:{one.membership.node}", "uann") == b"2 0"


async def test_thousands_of_users_are_told_to_who_comes(redis_server: RedisServer) -> None:
    async with desk(redis_server, "a") as one:
        for number in range(3000):
            assert isinstance(one.seats.take_here(f"user {number}", "websocket"), Seat)
        for _ in range(2):
            one.seats.take_here("user 2999", "websocket")
        async with desk(redis_server, "b") as other:
            await until(lambda: one.seats.is_shared and not one.seats.is_telling)
            assert await other.seats.take("user 2999", "websocket") == CONNECTIONS_PER_USER
            assert isinstance(await other.seats.take("user 0", "websocket"), Seat)
            with redis_server.client() as client:
                assert client.hlen(f"p:broker:users:{one.membership.node}") == 3002


async def test_who_may_not_write_decides_alone(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~p:broker:nodes*")
        async with desk(redis_server, "a") as one, desk(redis_server, "b") as other:
            for each in (one, other):
                assert each.membership.why_alone is not None
                assert "NOPERM" in each.membership.why_alone or "permissions" in each.membership.why_alone
                found = [await each.seats.take("ann", "websocket") for _ in range(4)]
                assert [isinstance(seat, Seat) for seat in found] == [True, True, True, False]


def test_ids_are_told_apart() -> None:
    ids = {new_node_id("a.b", 0) for _ in range(50)}
    assert len(ids) == 50
    assert all(id.startswith("a.b:0-") for id in ids)
    assert new_node_id("x y\n").startswith("x-y-:")


async def test_an_odd_answer_leaves_the_count_here_to_decide(redis_server: RedisServer, monkeypatch: Any) -> None:
    async def odd(*arguments: Any) -> Any:
        return [b"no number"]

    async with two(redis_server) as (one, _):
        with monkeypatch.context() as patch:
            patch.setattr(CommandLink, "run", odd)
            found = await one.seats.take("ann", "websocket")
        assert isinstance(found, Seat)
        found.leave()
