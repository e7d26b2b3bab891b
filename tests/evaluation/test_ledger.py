"""The ledger in a real Redis: each step, and each step repeated, out of turn, or by the wrong worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from broker.config.sections import Redis
from broker.errors import UpstreamError
from broker.ledger.evaluation import OVER, QUEUED, RUNNING, Answered, Sight, Taken, Watched, new_id
from broker.ledger.ledger import Ledger
from broker.upstream.commands import CommandLink
from tests.actors.redis_server import RedisServer

KIND = "council_score"
ID = "0" * 32


@asynccontextmanager
async def opened(server: RedisServer, prefix: str = "") -> AsyncIterator[Ledger]:
    commands = CommandLink(Redis(url=server.url))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commands.serve)
        ledger = Ledger(commands, prefix)
        await ledger.open_group(KIND)
        yield ledger
        nursery.cancel_scope.cancel()


async def start(ledger: Ledger, id: str = ID, *, grace: float = 10, pending: int = 5) -> bool:
    return await ledger.start(KIND, id, b'{"a":1}', "u", grace_seconds=grace, keep_seconds=60, pending_max=pending)


async def take(ledger: Ledger, worker: str = "w1", *, lease: float = 5) -> Taken:
    ((id, entry),) = await ledger.wait(worker, KIND, 5, 1)
    taken = await ledger.take(worker, KIND, id, entry, lease)
    assert taken is not None
    return taken


async def sight(ledger: Ledger, offset: int = 0, most: int = 100) -> Sight:
    found = await ledger.follow(KIND, ID, offset, most)
    assert found is not None
    return found


async def test_a_request_is_taken_by_one_worker_and_answered_in_order(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        assert await ledger.follow(KIND, ID, 0, 10) is None
        assert await start(ledger)
        first = await sight(ledger)
        assert (first.state, first.attempt, first.offset, first.workers, first.events) == (QUEUED, 0, 0, 0, ())
        await ledger.live("w1", KIND)
        assert (await sight(ledger)).workers == 1
        taken = await take(ledger)
        assert (taken.id, taken.attempt, taken.deaths, taken.offset) == (ID, 1, 0, 0)
        assert (taken.parameters, taken.user_id, taken.watched.is_wanted) == (b'{"a":1}', "u", True)
        assert await ledger.wait("w2", KIND, 5, 0.05) == []
        assert await ledger.append(KIND, ID, 1, 0, [b"1", b"2"])
        assert await ledger.append(KIND, ID, 1, 2, [b"3", b"4"], "complete")
        seen = await sight(ledger)
        assert (seen.state, seen.attempt, seen.lease_seconds, seen.offset) == (OVER, 1, 5.0, 4)
        assert seen.events == (
            Answered(1, "", b"1"),
            Answered(2, "", b"2"),
            Answered(3, "", b"3"),
            Answered(4, "complete", b"4"),
        )
        assert (await sight(ledger, 1, 2)).events == seen.events[1:3]
        assert await ledger.take("w2", KIND, ID, taken.entry, 5) is None


async def test_what_is_published_twice_is_there_once(redis_server: RedisServer) -> None:
    """Whoever did not hear the answer asks again, with what has gathered meanwhile."""
    async with opened(redis_server) as ledger:
        await start(ledger)
        await take(ledger)
        for events in ([b"1", b"2"], [b"1", b"2"], [b"1", b"2", b"3"]):
            assert await ledger.append(KIND, ID, 1, 0, events)
        assert await ledger.append(KIND, ID, 1, 0, [b"1", b"2", b"3", b"4"], "error")
        assert await ledger.append(KIND, ID, 1, 0, [b"1", b"2", b"3", b"4"], "error")
        assert [(answered.event, answered.name) for answered in (await sight(ledger)).events] == [
            (b"1", ""), (b"2", ""), (b"3", ""), (b"4", "error"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("attempt", "offset", "events"),
    [(0, 1, [b"x"]), (2, 1, [b"x"]), (1, 2, [b"x"]), (1, 0, [])],
    ids=["an earlier attempt", "a later one", "a hole", "nothing, behind what is not the end"],
)
async def test_who_is_not_at_its_turn_publishes_nothing(
    redis_server: RedisServer, attempt: int, offset: int, events: list[bytes]
) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        await take(ledger)
        await ledger.append(KIND, ID, 1, 0, [b"1"])
        assert not await ledger.append(KIND, ID, attempt, offset, events)
        assert (await sight(ledger)).offset == 1


async def test_nothing_follows_the_end(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        await ledger.append(KIND, ID, 1, 0, [b"1"], "error")
        assert not await ledger.append(KIND, ID, 1, 1, [b"2"])
        assert not await ledger.append(KIND, ID, 1, 0, [b"1", b"2"])
        assert await ledger.beat("w1", taken) is None
        await ledger.release(taken)
        assert await ledger.wait("w2", KIND, 5, 0.05) == []
        assert (await sight(ledger)).state == OVER


async def test_a_lease_that_ran_out_is_another_workers(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        first = await take(ledger)
        assert await ledger.claim("w2", KIND, 60, 5) == []
        ((id, entry),) = await ledger.claim("w2", KIND, 0, 5)
        second = await ledger.take("w2", KIND, id, entry, 5)
        assert second is not None
        assert (second.attempt, second.deaths, second.entry) == (2, 1, first.entry)
        assert await ledger.beat("w1", first) is None
        assert await ledger.beat("w2", second) is not None
        assert not await ledger.append(KIND, ID, 1, 0, [b"1"])
        assert await ledger.append(KIND, ID, 2, 0, [b"1"])


async def test_a_beat_keeps_the_lease(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        await trio.sleep(0.2)
        assert await ledger.beat("w1", taken) is not None
        assert await ledger.claim("w2", KIND, 0.2, 5) == []


async def test_what_is_given_back_is_no_death(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        first = await take(ledger)
        await ledger.release(first)
        second = await take(ledger, "w2")
        assert (second.attempt, second.deaths) == (2, 0)
        assert second.entry != first.entry
        await ledger.release(first)
        assert await ledger.beat("w2", second) is not None


async def test_who_retires_gives_back_what_it_never_began(redis_server: RedisServer) -> None:
    """An entry that Redis delivered to a reader who did not live to read it."""
    async with opened(redis_server) as ledger:
        await start(ledger)
        assert len(await ledger.wait("w1", KIND, 5, 1)) == 1
        await ledger.live("w1", KIND)
        await ledger.retire("w1", KIND)
        assert (await take(ledger, "w2")).deaths == 0
        with redis_server.client() as client:
            (consumer,) = client.xinfo_consumers("broker:{council_score}:requests", "workers")
            assert consumer["name"] == b"w2"
            assert client.zcard("broker:{council_score}:workers") == 0


async def test_consumers_that_were_left_behind_are_removed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        await ledger.wait("dead, with an entry", KIND, 1, 1)
        await ledger.wait("dead", KIND, 1, 0.01)
        monkeypatch.setattr("broker.ledger.ledger._FORGOTTEN_SECONDS", -1.0)
        await ledger.open_group(KIND)
        with redis_server.client() as client:
            consumers = client.xinfo_consumers("broker:{council_score}:requests", "workers")
            assert [consumer["name"] for consumer in consumers] == [b"dead, with an entry"]


async def test_as_many_may_be_pending_as_may_be(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        assert await start(ledger, new_id(), pending=2)
        assert await start(ledger, new_id(), pending=2)
        assert not await start(ledger, ID, pending=2)
        assert await ledger.follow(KIND, ID, 0, 1) is None


async def test_a_request_that_nobody_took_or_waits_for_makes_room(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.ledger.ledger._UNTAKEN_SECONDS", 0.1)
    async with opened(redis_server) as ledger:
        assert await start(ledger, "1" * 32, grace=0.1, pending=2)
        assert await start(ledger, grace=0.1, pending=2)
        assert not await start(ledger, new_id(), pending=2)
        for _ in range(6):
            await trio.sleep(0.05)
            await sight(ledger)  # somebody waits for one of the two
        assert await start(ledger, "2" * 32, pending=2)
        assert not await start(ledger, new_id(), pending=2)
        assert [id for id, _ in await ledger.wait("w1", KIND, 5, 1)] == [ID, "2" * 32]


async def test_what_was_asked_is_not_kept_with_the_answer(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        await take(ledger)
        with redis_server.client() as client:
            assert client.pttl(f"broker:{{council_score}}:{ID}") in range(58_000, 60_001)
            await ledger.append(KIND, ID, 1, 0, [b"1"], "complete")
            assert client.hget(f"broker:{{council_score}}:{ID}", "parameters") is None


async def test_only_who_watches_keeps_it_wanted(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger, grace=0.2)
        taken = await take(ledger)
        await trio.sleep(0.25)
        assert (await ledger.follow(KIND, ID, 0, 1, watching=False)) is not None
        beat = await ledger.beat("w1", taken)
        assert beat is not None
        assert (beat.is_wanted, beat.grace_seconds) == (False, 0.2)
        assert beat.unwatched_seconds >= 0.25
        ledger.touch(KIND, ID)
        await sight(ledger)  # a command behind it: so the touch is done
        beat = await ledger.beat("w1", taken)
        assert beat is not None
        assert beat.is_wanted
        ledger.touch(KIND, "1" * 32)
        assert await ledger.follow(KIND, "1" * 32, 0, 1) is None


async def test_a_redis_that_was_emptied_says_so_and_can_be_used_again(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        with redis_server.client() as client:
            client.flushall()
        with pytest.raises(UpstreamError, match="NOGROUP"):
            await ledger.wait("w1", KIND, 1, 0.05)
        with pytest.raises(UpstreamError, match="NOGROUP"):
            await ledger.claim("w1", KIND, 1, 1)
        await ledger.open_group(KIND)
        await start(ledger)
        assert (await take(ledger)).id == ID


async def test_a_prefix_is_in_front_of_every_key_and_channel(redis_server: RedisServer) -> None:
    async with opened(redis_server, "test:") as ledger:
        await start(ledger)
        await take(ledger)
        await ledger.live("w1", KIND)
        with redis_server.client() as client, client.pubsub() as pubsub:
            pubsub.subscribe(f"test:council_score:{ID}")
            assert pubsub.get_message(timeout=5)
            await ledger.append(KIND, ID, 1, 0, [b"1"])
            message = pubsub.get_message(timeout=5)
            assert message is not None
            assert message["data"] == b"1"
            assert sorted(client.keys("*")) == [
                b"test:broker:{council_score}:%b" % name
                for name in (ID.encode(), b"%b:events" % ID.encode(), b"requests", b"workers")
            ]


SEEN = {"attempt": 0, "waited_seconds": 0, "silent_seconds": 0, "lease_seconds": 10, "offset": 0, "events": ()}


@pytest.mark.parametrize(
    ("facts", "trouble"),
    [
        ({"state": QUEUED, "workers": 0, "waited_seconds": 9.9}, None),
        (
            {"state": QUEUED, "workers": 0, "waited_seconds": 10},
            "no evaluation worker is running: none took the request within 10 s",
        ),
        (
            {"state": QUEUED, "workers": 0, "waited_seconds": 10, "attempt": 1},
            "the evaluation's worker stopped, and no other took it over within 10 s",
        ),
        ({"state": QUEUED, "workers": 1, "waited_seconds": 119}, None),
        (
            {"state": QUEUED, "workers": 1, "waited_seconds": 120},
            "all evaluation workers are busy: none took the request within 120 s",
        ),
        ({"state": RUNNING, "workers": 0, "waited_seconds": 999, "silent_seconds": 19.9}, None),
        (
            {"state": RUNNING, "workers": 0, "silent_seconds": 20.1},
            "the evaluation's worker died, and no other took it over within 10 s",
        ),
        ({"state": OVER, "workers": 0, "waited_seconds": 999, "silent_seconds": 999}, None),
    ],
)
def test_when_a_watcher_must_give_up(facts: dict[str, object], trouble: str | None) -> None:
    assert Sight(**{**SEEN, **facts}).trouble(10, 120) == trouble  # type: ignore[arg-type]


def test_it_is_wanted_until_the_grace_time_is_over() -> None:
    assert Watched(9.9, 10).is_wanted
    assert not Watched(10, 10).is_wanted
