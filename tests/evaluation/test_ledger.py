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


async def release(ledger: Ledger, taken: Taken, worker: str = "w1") -> None:
    await ledger.release(worker, taken.kind, taken.id, taken.entry)


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
        assert await ledger.append(KIND, ID, taken.run, 0, [b"1", b"2"])
        assert await ledger.append(KIND, ID, taken.run, 2, [b"3", b"4"], "complete")
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
        run = (await take(ledger)).run
        for events in ([b"1", b"2"], [b"1", b"2"], [b"1", b"2", b"3"]):
            assert await ledger.append(KIND, ID, run, 0, events)
        assert await ledger.append(KIND, ID, run, 0, [b"1", b"2", b"3", b"4"], "error")
        assert await ledger.append(KIND, ID, run, 0, [b"1", b"2", b"3", b"4"], "error")
        assert [(answered.event, answered.name) for answered in (await sight(ledger)).events] == [
            (b"1", ""), (b"2", ""), (b"3", ""), (b"4", "error"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("run", "offset", "events"),
    [("", 1, [b"x"]), ("another", 1, [b"x"]), (None, 2, [b"x"]), (None, 0, [])],
    ids=["before it was taken", "another's", "a hole", "nothing, behind what is not the end"],
)
async def test_who_is_not_at_its_turn_publishes_nothing(
    redis_server: RedisServer, run: str | None, offset: int, events: list[bytes]
) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        await ledger.append(KIND, ID, taken.run, 0, [b"1"])
        assert not await ledger.append(KIND, ID, taken.run if run is None else run, offset, events)
        assert (await sight(ledger)).offset == 1


async def test_nothing_follows_the_end(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        await ledger.append(KIND, ID, taken.run, 0, [b"1"], "error")
        assert not await ledger.append(KIND, ID, taken.run, 1, [b"2"])
        assert not await ledger.append(KIND, ID, taken.run, 0, [b"1", b"2"])
        assert await ledger.beat("w1", taken) is None
        await release(ledger, taken)
        assert await ledger.wait("w2", KIND, 5, 0.05) == []
        assert (await sight(ledger)).state == OVER


async def test_a_lease_that_ran_out_is_another_workers(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        first = await take(ledger, lease=0.1)
        await trio.sleep(0.15)
        assert await ledger.claim("w2", KIND, 60, 5) == []
        ((id, entry),) = await ledger.claim("w2", KIND, 0.1, 5)
        second = await ledger.take("w2", KIND, id, entry, 5)
        assert second is not None
        assert (second.attempt, second.deaths, second.entry) == (2, 1, first.entry)
        assert await ledger.beat("w1", first) is None
        assert await ledger.beat("w2", second) is not None
        assert not await ledger.append(KIND, ID, first.run, 0, [b"1"])
        assert await ledger.append(KIND, ID, second.run, 0, [b"1"])
        seen = await sight(ledger)
        assert (seen.run, seen.began, seen.offset) == (second.run, 0, 1)


async def test_who_has_a_shorter_lease_takes_from_nobody_who_lives(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        first = await take(ledger, lease=60)
        ((id, entry),) = await ledger.claim("w2", KIND, 0, 5)
        assert await ledger.take("w2", KIND, id, entry, 5) is None
        await ledger.release("w2", KIND, id, entry)
        assert await ledger.held("w1", KIND) == [(id, entry)]
        assert await ledger.beat("w1", first) is not None


async def test_who_slept_since_it_read_the_entry_takes_nothing(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        ((id, entry),) = await ledger.wait("w1", KIND, 5, 1)
        ((_, same),) = await ledger.claim("w2", KIND, 0, 5)
        taken = await ledger.take("w2", KIND, id, same, 0)
        assert taken is not None
        assert await ledger.take("w1", KIND, id, entry, 5) is None
        await ledger.release("w1", KIND, id, entry)
        assert await ledger.beat("w2", taken) is not None


async def test_a_dead_workers_entry_is_found_behind_many_that_live(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        for _ in range(25):
            await start(ledger, new_id(), pending=100)
        live = await ledger.wait("w1", KIND, 25, 1)
        await start(ledger, pending=100)
        assert len(await ledger.wait("dead", KIND, 1, 1)) == 1
        await ledger.live("w2", KIND)
        await trio.sleep(0.2)
        with redis_server.client() as client:
            client.xclaim("broker:{council_score}:requests", "workers", "w1", 0, [entry for _, entry in live])
        found = [await ledger.claim("w2", KIND, 0.15, 1) for _ in range(4)]
        assert [id for claimed in found for id, _ in claimed] == [ID]


async def test_a_time_without_redis_counts_for_nobody(redis_server: RedisServer) -> None:
    """As an outage of a minute looks to whoever comes first when Redis is back."""
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        assert await ledger.beat("w1", taken) is not None
        with redis_server.client() as client:
            for key, names in ((f"{ID}", ("asked", "watched", "beat")), ("pulse", ("seen", "back"))):
                for name in names:
                    client.hincrby(f"broker:{{council_score}}:{key}", name, -60_000)
        assert await ledger.claim("w2", KIND, 0.05, 5) == []
        beat = await ledger.beat("w1", taken)
        assert beat is not None
        assert beat.is_wanted
        seen = await sight(ledger)
        assert max(seen.waited_seconds, seen.silent_seconds) < 1


async def test_a_time_in_which_nobody_came_for_anything_is_not_one_without_redis(redis_server: RedisServer) -> None:
    """A request whose watcher has left, and a worker that comes later: the daemon has kept time."""
    async with opened(redis_server) as ledger:
        await ledger.pulse(KIND)
        await start(ledger)
        with redis_server.client() as client:
            client.hincrby(f"broker:{{council_score}}:{ID}", "watched", -11_000)
            client.hincrby("broker:{council_score}:pulse", "back", -60_000)
        await ledger.pulse(KIND)
        assert not (await take(ledger)).watched.is_wanted


async def test_an_end_that_a_watcher_said_is_not_taken_for_ones_own(redis_server: RedisServer) -> None:
    """The worker was silent for too long; a watcher ended its run, and it wakes up."""
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        assert await ledger.append(KIND, ID, taken.run, 0, [b"given up"], "error")
        assert not await ledger.append(KIND, ID, taken.run, 0, [b"done"], "complete")
        assert [answered.event for answered in (await sight(ledger)).events] == [b"given up"]


async def test_two_workers_that_took_it_before_and_after_redis_forgot_are_told_apart(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        with redis_server.client() as client:
            names = [f"broker:{{council_score}}:{name}" for name in ("requests", ID)]
            kept = {name: client.dump(name) for name in names}
            first = await take(ledger)
            assert await ledger.append(KIND, ID, first.run, 0, [b"a1"])
            client.delete(*names, f"broker:{{council_score}}:{ID}:events")
            for name, dump in kept.items():
                client.restore(name, 0, dump)
        second = await take(ledger, "w2")
        assert (first.attempt, second.attempt) == (1, 1)
        assert await ledger.append(KIND, ID, second.run, 0, [b"b1"])
        assert not await ledger.append(KIND, ID, first.run, 1, [b"a2"])
        assert await ledger.beat("w1", first) is None


async def test_a_refused_publish_does_not_lose_the_event(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], categories=["+@all"], reset_channels=True)
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        assert await ledger.append(KIND, ID, taken.run, 0, [b"1", b"2"])
        assert [answered.event for answered in (await sight(ledger)).events] == [b"1", b"2"]


async def test_a_page_is_bounded_in_bytes(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        taken = await take(ledger)
        await ledger.append(KIND, ID, taken.run, 0, [b"x" * 20, b"123", b"456", b"78901"])
        offset, pages = 0, []
        while (seen := await ledger.follow(KIND, ID, offset, 100, 10)) and seen.events:
            pages.append([answered.offset for answered in seen.events])
            offset = seen.events[-1].offset
        assert pages == [[1], [2, 3], [4]]


async def test_asking_again_starts_nothing_twice(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        assert await start(ledger)
        assert await start(ledger)
        assert len(await ledger.wait("w1", KIND, 5, 1)) == 1


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
        await release(ledger, first)
        second = await take(ledger, "w2")
        assert (second.attempt, second.deaths) == (2, 0)
        assert second.entry != first.entry
        await release(ledger, first)
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


async def test_who_retires_between_taking_and_beginning_counts_as_no_death(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger)
        await take(ledger)
        await ledger.retire("w1", KIND)
        second = await take(ledger, "w2")
        assert (second.attempt, second.deaths) == (2, 0)


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
        taken = await take(ledger)
        with redis_server.client() as client:
            assert client.pttl(f"broker:{{council_score}}:{ID}") in range(58_000, 60_001)
            await ledger.append(KIND, ID, taken.run, 0, [b"1"], "complete")
            assert client.hget(f"broker:{{council_score}}:{ID}", "parameters") is None


async def test_only_who_watches_keeps_it_wanted(redis_server: RedisServer) -> None:
    async with opened(redis_server) as ledger:
        await start(ledger, grace=0.2)
        taken = await take(ledger)
        await trio.sleep(0.25)
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
        await ledger.open_group(KIND)
        await start(ledger)
        assert (await take(ledger)).id == ID


async def test_a_prefix_is_in_front_of_every_key_and_channel(redis_server: RedisServer) -> None:
    async with opened(redis_server, "test:") as ledger:
        await start(ledger)
        taken = await take(ledger)
        await ledger.live("w1", KIND)
        with redis_server.client() as client, client.pubsub() as pubsub:
            pubsub.subscribe(f"test:council_score:{ID}")
            assert pubsub.get_message(timeout=5)
            await ledger.append(KIND, ID, taken.run, 0, [b"1"])
            message = pubsub.get_message(timeout=5)
            assert message is not None
            assert message["data"] == b"1"
            assert sorted(client.keys("*")) == [
                b"test:broker:{council_score}:%b" % name
                for name in (ID.encode(), b"%b:events" % ID.encode(), b"pulse", b"requests", b"workers")
            ]


SEEN = {
    "attempt": 0,
    "waited_seconds": 0,
    "silent_seconds": 0,
    "lease_seconds": 10,
    "offset": 0,
    "events": (),
    "run": "",
    "began": 0,
}


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
        ({"state": RUNNING, "workers": 1, "silent_seconds": 129.9}, None),
        (
            {"state": RUNNING, "workers": 1, "silent_seconds": 130.1},
            "the evaluation's worker died, and no other took it over within 120 s",
        ),
        ({"state": OVER, "workers": 0, "waited_seconds": 999, "silent_seconds": 999}, None),
    ],
)
def test_when_a_watcher_must_give_up(facts: dict[str, object], trouble: str | None) -> None:
    assert Sight(**{**SEEN, **facts}).trouble(10, 120) == trouble  # type: ignore[arg-type]


def test_it_is_wanted_until_the_grace_time_is_over() -> None:
    assert Watched(9.9, 10).is_wanted
    assert not Watched(10, 10).is_wanted
