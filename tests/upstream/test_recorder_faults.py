"""The recorder when Redis fails it: nothing is recorded twice, and nothing is missed without a new generation."""

from __future__ import annotations

import random
import re

import pytest
import structlog
import trio

from broker.history.keys import Keys
from tests.actors.recording import Recording, connections, in_redis, kill, listening, publish, section_of
from tests.actors.redis_server import RedisServer

KEYS = Keys("")
CHANNEL = "alerts:1"


@pytest.mark.parametrize("kind", ["ear", "commands"])
async def test_a_connection_that_is_killed_begins_a_new_generation(
    redis_server: RedisServer, nursery: trio.Nursery, kind: str
) -> None:
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)
    assert sorted((await connections(redis_server)).values()) == ["commands", "ear"]
    async with listening(redis_server) as listener:
        await publish(redis_server, CHANNEL, b"1")
        await listener.wait(1)
        await kill(redis_server, kind)
        await recording.wait_begun(2)
        await publish(redis_server, CHANNEL, b"2", b"3")
        assert await listener.wait(3) == [
            (CHANNEL, "r", 1, b"1"),
            (CHANNEL, f"g{recording.generation}", 2, b"2"),
            (CHANNEL, "r", 3, b"3"),
        ]
    assert recording.recorder.statistics()["generationsBegun"] == 2
    assert recording.refused == []


async def test_a_redis_that_froze_is_not_recorded_from_as_if_nothing_was(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    recording = Recording.at(section_of(redis_server), lease_seconds=0.5)
    await nursery.start(recording.serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, CHANNEL, b"1")
        await listener.wait(1)
        redis_server.freeze()
        with trio.fail_after(5):
            while recording.generation is not None:
                await trio.sleep(0.01)
        redis_server.thaw()
        generation = await recording.wait_generation()
        await publish(redis_server, CHANNEL, b"2")
        assert await listener.wait(2) == [(CHANNEL, "r", 1, b"1"), (CHANNEL, f"g{generation}", 2, b"2")]


async def test_a_subscription_that_says_nothing_is_given_up(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    recording = Recording.at(section_of(redis_server, ping_seconds=0.1, ping_timeout_seconds=0.2))
    await nursery.start(recording.serve)
    await trio.sleep(0.5)
    assert recording.begun == 1, "it is quiet, but answers"
    with structlog.testing.capture_logs() as lines:
        redis_server.freeze()
        with trio.fail_after(5):
            while recording.generation is not None:
                await trio.sleep(0.01)
        redis_server.thaw()
        await recording.wait_begun(2)
    assert [line["why"] for line in lines if line["event"] == "no longer recording plain PUBLISHes"] == [
        "Redis did not answer PING within 0.2 s"
    ]


async def test_a_lease_that_another_has_is_respected_at_once(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)
    async with listening(redis_server) as listener:
        await in_redis(redis_server, ("SET", KEYS.lease, "another:7", "PX", "30000"))
        await publish(redis_server, CHANNEL, b"1")
        with trio.fail_after(5):
            while recording.generation is not None:
                await trio.sleep(0.005)
        assert listener.stamped == []
    assert recording.recorder.statistics()["unknown"] == 1


async def test_an_earlier_lease_of_the_same_process_records_nothing(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """A call of an earlier term may still be on its way: its generation is not the lease's any more."""
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)
    (holder,) = await in_redis(redis_server, ("GET", KEYS.lease))
    who, _, generation = holder.decode().partition(":")
    assert (re.fullmatch("[0-9a-f]{16}", who) is not None, generation) == (True, str(recording.generation))
    async with listening(redis_server) as listener:
        await in_redis(redis_server, ("SET", KEYS.lease, f"{who}:2", "PX", "30000"))
        await publish(redis_server, CHANNEL, b"1")
        await recording.wait_begun(2)
        await publish(redis_server, CHANNEL, b"2")
        assert await listener.wait(1) == [(CHANNEL, "r", 1, b"2")]


async def test_a_renewal_does_not_take_back_what_ran_out(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    recording = Recording.at(section_of(redis_server), lease_seconds=1.0)
    await nursery.start(recording.serve)
    await in_redis(redis_server, ("DEL", KEYS.lease))
    await recording.wait_begun(2)


async def test_scripts_that_redis_forgot_are_loaded_again(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, CHANNEL, b"1")
        await listener.wait(1)
        await in_redis(redis_server, ("SCRIPT", "FLUSH"))
        await publish(redis_server, CHANNEL, b"2")
        await recording.wait_begun(2)
        await publish(redis_server, CHANNEL, b"3")
        assert await listener.wait(2) == [(CHANNEL, "r", 1, b"1"), (CHANNEL, f"g{recording.generation}", 2, b"3")]
    assert recording.recorder.statistics()["unknown"] == 1


async def test_a_full_redis_delivers_and_does_not_keep(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    await in_redis(redis_server, ("CONFIG", "SET", "maxmemory-policy", "noeviction"))
    recording = Recording.at(section_of(redis_server), lease_seconds=0.5)
    await nursery.start(recording.serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, CHANNEL, b"1")
        await listener.wait(1)
        await in_redis(redis_server, ("CONFIG", "SET", "maxmemory", "1"))
        await publish(redis_server, CHANNEL, b"2", b"3")
        await listener.wait(3)
        # Longer than the lease lasts; and also who comes now can take it.
        await trio.sleep(0.6)
        assert recording.begun == 1
        await kill(redis_server, "commands")
        await recording.wait_begun(2)
        await publish(redis_server, CHANNEL, b"4")
        await listener.wait(4)
        await in_redis(redis_server, ("CONFIG", "SET", "maxmemory", "0"))
        await publish(redis_server, CHANNEL, b"5")
        assert await listener.wait(5) == [
            (CHANNEL, "r", 1, b"1"),
            (CHANNEL, "u", 0, b"2"),
            (CHANNEL, "u", 0, b"3"),
            (CHANNEL, "u", 0, b"4"),
            (CHANNEL, f"g{recording.generation}", 2, b"5"),
        ]
    counts = recording.recorder.statistics()
    assert (counts["recorded"], counts["unkept"], counts["unknown"]) == (2, 3, 0)
    assert counts["lastUnkeptWhy"].startswith("OOM command not allowed")
    assert recording.refused == []


@pytest.mark.parametrize("forbidden", ["-@scripting", "-psubscribe", "resetkeys"])
async def test_a_redis_that_does_not_allow_it_is_told_once(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    monkeypatch.setattr("broker.upstream.recorder._RETRY_SECONDS", 0.05)
    user = ("ACL", "SETUSER", "narrow", "on", ">x", "allcommands", "allkeys", "allchannels")
    await in_redis(redis_server, (*user, forbidden))
    section = section_of(redis_server, url=f"redis://narrow:x@127.0.0.1:{redis_server.port}/0")
    recording = Recording.at(section)
    with structlog.testing.capture_logs() as lines:
        await nursery.start(recording.serve)
        (why,) = recording.refused
        assert "NOPERM" in why or "No permissions" in why or "ACL failure" in why
        assert recording.recorder.statistics()["refusedWhy"] == why
        # Another daemon, which may, does not wait for the lease of one that may not.
        (holder,) = await in_redis(redis_server, ("GET", KEYS.lease))
        assert holder is None
        await in_redis(redis_server, user)
        await recording.wait_generation()
    assert [line["why"] for line in lines if line["log_level"] == "error"] == [why]
    assert (recording.refused, recording.accepted) == ([why], ["accepted"])
    assert recording.recorder.statistics()["refusedWhy"] is None


async def test_a_redis_that_takes_no_writes_is_asked_again_soon(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    recording = Recording.at(section_of(redis_server), lease_seconds=0.5)
    await nursery.start(recording.serve)
    with structlog.testing.capture_logs():
        await in_redis(redis_server, ("CONFIG", "SET", "min-replicas-to-write", "1"))
        with trio.fail_after(5):
            while not recording.refused:
                await trio.sleep(0.01)
        await in_redis(redis_server, ("CONFIG", "SET", "min-replicas-to-write", "0"))
        await recording.wait_begun(2, seconds=3.0)
    (why,) = recording.refused
    assert why.startswith("NOREPLICAS"), why
    assert recording.accepted == ["accepted"]


async def test_a_redis_that_comes_later_is_recorded_from(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    redis_server.kill()
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)
    assert (recording.generation, recording.refused) == (None, [])
    await trio.to_thread.run_sync(redis_server.start)
    await recording.wait_generation()
    # It came back without its data: what daemons tell it is told again.
    await trio.to_thread.run_sync(redis_server.kill)
    await trio.to_thread.run_sync(redis_server.start)
    await recording.wait_generation()
    with trio.fail_after(5):
        while not (await in_redis(redis_server, ("HGET", KEYS.types, "alerts")))[0]:
            await trio.sleep(0.01)
    async with listening(redis_server) as listener:
        await recording.wait_generation()
        await publish(redis_server, CHANNEL, b"1")
        assert await listener.wait(1) == [(CHANNEL, "r", 1, b"1")]


@pytest.mark.parametrize("seed", [1, 2])
async def test_under_kills_nothing_is_recorded_twice_nor_missed_in_silence(
    redis_server: RedisServer, nursery: trio.Nursery, seed: int
) -> None:
    dice = random.Random(seed)
    recordings = [Recording.at(section_of(redis_server), lease_seconds=0.5) for _ in range(2)]
    for recording in recordings:
        await nursery.start(recording.serve)
    channels = [f"ai_stream:{number}" for number in range(3)]
    published = dict.fromkeys(channels, 0)
    killed = 0
    for _ in range(60):
        commands = []
        for _ in range(dice.randrange(1, 30)):
            channel = dice.choice(channels)
            published[channel] += 1
            commands.append(("PUBLISH", channel, b"%d" % published[channel]))
        if dice.random() < 0.4:
            victims = await connections(redis_server)
            if victims:
                victim = ("CLIENT", "KILL", "ID", dice.choice(sorted(victims)))
                commands.insert(dice.randrange(len(commands) + 1), victim)
                killed += 1
        if dice.random() < 0.05:
            commands.append(("SCRIPT", "FLUSH"))
        await in_redis(redis_server, *commands)
        await trio.sleep(dice.choice((0, 0, 0.01, 0.1)))
    # Both live, so each channel's end is recorded by one of them.
    with trio.fail_after(10):
        while sorted(recording.generation is None for recording in recordings) != [False, True]:
            await trio.sleep(0.01)
    assert killed > 10
    told = 0
    for channel in channels:
        history = await in_redis(redis_server, ("XRANGE", KEYS.events(channel), "-", "+"))
        before = 0
        for _, fields in history[0]:
            ((came, event),) = fields.items()
            number = int(event)
            assert number > before, "twice, or out of order"
            if number > before + 1 and before:
                assert came.startswith(b"g"), f"{before + 1} to {number - 1} of {channel} are missed in silence"
                told += 1
            before = number
        assert before > 0
    assert told > 0
