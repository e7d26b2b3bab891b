"""The recorder: plain PUBLISHes get history, once, in order, and by one daemon at a time."""

from __future__ import annotations

import pytest
import trio

from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.history.keys import Keys
from broker.history.scripts import PUBLISH
from broker.upstream.connection import RedisConnection
from tests.actors.recording import Recording, in_redis, listening, publish, section_of
from tests.actors.redis_server import RedisServer

KEYS = Keys("")
NOTHING = {
    "isRecorder": False,
    "generation": None,
    "generationsBegun": 0,
    "recorded": 0,
    "unkept": 0,
    "lastUnkeptWhy": None,
    "unknown": 0,
    "refusedWhy": None,
}


async def recorded(server: RedisServer, channel: str, keys: Keys = KEYS) -> list[tuple[str, bytes]]:
    """How each event of a channel's history came, and the event."""

    def run() -> list[tuple[str, bytes]]:
        with server.client() as client:
            entries = client.xrange(keys.events(channel))
        return [(came.decode(), event) for _, fields in entries for came, event in fields.items()]

    return await trio.to_thread.run_sync(run)


async def test_what_is_published_plain_is_kept_and_delivered_with_positions(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, "job_progress:1", b'{"n":1}', b'{"n":2}')
        await publish(redis_server, "alerts", b'{"a":1}')
        await publish(redis_server, "job_progress:1", b'{"n": 3}')
        heard = await listener.wait(4)
        assert sorted(heard) == [
            ("alerts", "r", 1, b'{"a":1}'),
            ("job_progress:1", "r", 1, b'{"n":1}'),
            ("job_progress:1", "r", 2, b'{"n":2}'),
            ("job_progress:1", "r", 3, b'{"n": 3}'),
        ]
    assert await recorded(redis_server, "job_progress:1") == [("r", b'{"n":1}'), ("r", b'{"n":2}'), ("r", b'{"n": 3}')]
    assert recording.recorder.statistics() == {
        **NOTHING,
        "isRecorder": True,
        "generation": recording.generation,
        "generationsBegun": 1,
        "recorded": 4,
    }
    length, top_ms, events_ms = await in_redis(
        redis_server,
        ("XLEN", KEYS.events("job_progress:1")),
        ("PTTL", KEYS.top("job_progress:1")),
        ("PTTL", KEYS.events("job_progress:1")),
    )
    assert length == 3
    assert 86_300_000 < top_ms <= 86_400_000
    assert 3_500_000 < events_ms <= 3_600_000


async def test_a_history_has_the_length_of_its_type(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    types = {"few": TypeOptions(history_length=3, history_seconds=100_000.0)}
    await nursery.start(Recording.at(section_of(redis_server), types=types).serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, "few:1", *(b"%d" % number for number in range(10)))
        await listener.wait(10)
    assert await recorded(redis_server, "few:1") == [("r", b"7"), ("r", b"8"), ("r", b"9")]
    # A position is kept as long as the events are, though `history.position_seconds` is less.
    (top_ms,) = await in_redis(redis_server, ("PTTL", KEYS.top("few:1")))
    assert 99_000_000 < top_ms <= 100_000_000


async def test_what_came_stamped_is_not_recorded_again(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)
    channel = "job_progress:1"
    call = ("EVAL", PUBLISH.text, 3, KEYS.types, KEYS.top(channel), KEYS.events(channel), channel, "job_progress")
    async with listening(redis_server) as listener:
        await publish(redis_server, channel, b"1")
        await listener.wait(1)
        await in_redis(redis_server, (*call, "0 0", "2", "77", "86400000", "0"))
        await publish(redis_server, channel, b"3")
        assert await listener.wait(3) == [(channel, "r", 1, b"1"), (channel, "s", 2, b"2"), (channel, "r", 3, b"3")]
    assert await recorded(redis_server, channel) == [("r", b"1"), ("s", b"2"), ("r", b"3")]
    assert recording.recorder.statistics()["recorded"] == 2


async def test_what_has_no_history_or_is_not_fit_is_left_alone(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    types = {**BUILT_IN_TYPES, "text": TypeOptions(validate="off", history_length=5, history_seconds=60.0)}
    recording = Recording.at(section_of(redis_server), types=types, message_max_bytes=1024)
    await nursery.start(recording.serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, "council_score:1", b"1")
        await publish(redis_server, "custom:1", b"1")
        await publish(redis_server, "job_progress_more:1", b"1")
        await publish(redis_server, "alerts:1", b"{", b'"%b"' % (b"x" * 1023), b"\xff", b"1")
        await publish(redis_server, "alerts:not allowed", b"1")
        await publish(redis_server, "alerts:1:2:3", b"1")
        await publish(redis_server, "text:1", b"{", b"\xff")
        assert sorted(await listener.wait(2)) == [("alerts:1", "r", 1, b"1"), ("text:1", "r", 1, b"{")]
    assert recording.refusals.counts() == {
        "alerts": {"not_json": 1, "too_big": 1, "not_utf8": 1, "not_a_channel": 2},
        "text": {"not_utf8": 1},
    }
    (keys,) = await in_redis(redis_server, ("KEYS", "*"))
    channels = ("alerts:1", "text:1")
    names = [*map(KEYS.top, channels), *map(KEYS.events, channels), KEYS.lease, KEYS.generation, KEYS.types]
    assert sorted(keys) == sorted(map(str.encode, names))


async def test_every_daemon_tells_redis_how_much_is_kept(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    first = Recording.at(section_of(redis_server))
    await nursery.start(first.serve)
    types = {"alerts": TypeOptions(), "few": TypeOptions(history_length=3, history_seconds=1.5)}
    second = Recording.at(section_of(redis_server), types=types)
    await nursery.start(second.serve)
    assert (first.begun, second.generation) == (1, None)
    (kept,) = await in_redis(redis_server, ("HGETALL", KEYS.types))
    assert kept == {
        b"job_progress": b"100 3600000",
        b"video_render": b"100 3600000",
        b"ai_stream": b"1000 900000",
        b"campaign_metrics": b"100 3600000",
        b"ab_test_results": b"100 3600000",
        b"live_metrics": b"100 3600000",
        b"council_score": b"0 0",
        b"creative_evaluation": b"0 0",
        b"alerts": b"0 0",
        b"few": b"3 1500",
    }


async def test_without_any_history_only_that_is_told(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    recording = Recording.at(section_of(redis_server), types={"alerts": TypeOptions()})
    await nursery.start(recording.serve)
    keys, kept, clients = await in_redis(redis_server, ("KEYS", "*"), ("HGETALL", KEYS.types), ("PUBSUB", "NUMPAT"))
    assert (keys, kept, clients) == ([KEYS.types.encode()], {b"alerts": b"0 0"}, 0)
    assert recording.recorder.statistics() == NOTHING
    await recording.recorder.release()


async def test_a_prefix_is_taken_literally(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    prefix = "a[b]*?\\:"
    await nursery.start(Recording.at(section_of(redis_server, channel_prefix=prefix)).serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, "abxx:alerts:1", b"0")
        await publish(redis_server, "alerts:1", b"0")
        await publish(redis_server, f"{prefix}alerts:1", b"1")
        assert await listener.wait(1) == [(f"{prefix}alerts:1", "r", 1, b"1")]
    assert await recorded(redis_server, "alerts:1", Keys(prefix)) == [("r", b"1")]


async def test_a_burst_keeps_its_order_on_every_channel(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    types = {"ai_stream": TypeOptions(history_length=10_000, history_seconds=60.0)}
    recording = Recording.at(section_of(redis_server), types=types)
    await nursery.start(recording.serve)
    channels = [f"ai_stream:{number}" for number in range(3)]
    commands = [("PUBLISH", channels[number % 3], b"%d" % number) for number in range(4800)]
    # More than a read brings, and more than Redis is sent at once.
    large = [b'"%d%b"' % (number, b"x" * 400_000) for number in range(8)] + [b'"%b"' % (b"x" * 900_000)]
    async with listening(redis_server) as listener:
        await in_redis(redis_server, *commands)
        await publish(redis_server, channels[0], *large)
        heard = await listener.wait(4809)
    for index, channel in enumerate(channels):
        expected = [b"%d" % number for number in range(index, 4800, 3)] + (large if index == 0 else [])
        assert [entry for entry in heard if entry[0] == channel] == [
            (channel, "r", offset, event) for offset, event in enumerate(expected, 1)
        ]
    assert recording.recorder.statistics()["recorded"] == 4809


async def test_a_call_to_redis_holds_two_hundred_events_at_most(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    recording = Recording.at(section_of(redis_server))
    await nursery.start(recording.serve)

    async def calls() -> int:
        (stats,) = await in_redis(redis_server, ("INFO", "commandstats"))
        return int(stats["cmdstat_evalsha"]["calls"])

    before = await calls()
    async with listening(redis_server) as listener:
        await publish(redis_server, "alerts:1", *[b"1"] * 3000)
        await listener.wait(3000)
    assert await calls() - before >= 15


async def test_what_comes_before_the_generation_has_begun_is_recorded_under_it(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RedisConnection.write

    async def write_and_publish(connection: RedisConnection, data: bytes) -> None:
        """Between the subscription and the first look at what Redis says about it."""
        await write(connection, data)
        if b"job_progress:*" in data:
            while (await in_redis(redis_server, ("PUBSUB", "NUMPAT"))) != [15]:
                await trio.sleep(0.005)
            await publish(redis_server, "alerts:1", b"1", b"2")

    async with listening(redis_server) as listener:
        monkeypatch.setattr(RedisConnection, "write", write_and_publish)
        await nursery.start(Recording.at(section_of(redis_server)).serve)
        await publish(redis_server, "alerts:1", b"3")
        assert await listener.wait(3) == [("alerts:1", "r", offset, b"%d" % offset) for offset in (1, 2, 3)]


async def test_another_takes_over_from_one_that_died(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    first, second = (Recording.at(section_of(redis_server), lease_seconds=2.0) for _ in range(2))
    await nursery.start(first.serve)
    await nursery.start(second.serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, "alerts:1", b"1", b"2")
        await listener.wait(2)
        first.scope.cancel()
        await second.wait_generation(seconds=3.0)
        await publish(redis_server, "alerts:1", b"3", b"4")
        await publish(redis_server, "alerts:2", b"1")
        heard = await listener.wait(5)
    assert [entry for entry in heard if entry[0] == "alerts:1"] == [
        ("alerts:1", "r", 1, b"1"),
        ("alerts:1", "r", 2, b"2"),
        ("alerts:1", f"g{second.generation}", 3, b"3"),
        ("alerts:1", "r", 4, b"4"),
    ]
    # Of a channel of which nothing was recorded before, nothing can be said to be missing.
    assert [entry for entry in heard if entry[0] == "alerts:2"] == [("alerts:2", "r", 1, b"1")]
    assert second.recorder.statistics() == {
        **NOTHING,
        "isRecorder": True,
        "generation": second.generation,
        "generationsBegun": 1,
        "recorded": 3,
    }


async def test_who_leaves_lets_who_waits_go_on_where_it_stops(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    first, second = (Recording.at(section_of(redis_server), lease_seconds=4.0) for _ in range(2))
    await nursery.start(first.serve)
    await nursery.start(second.serve)
    async with listening(redis_server) as listener:
        await publish(redis_server, "alerts:1", b"1")
        await listener.wait(1)
        began_at = trio.current_time()
        generation = first.generation
        await first.recorder.release()
        assert trio.current_time() - began_at < 0.5
        # It looks every second; but it was told.
        assert await second.wait_generation(seconds=0.5) == generation
        (holder,) = await in_redis(redis_server, ("GET", KEYS.lease))
        assert holder.endswith(b":%d" % generation)
        await publish(redis_server, "alerts:1", b"2")
        assert await listener.wait(2) == [("alerts:1", "r", 1, b"1"), ("alerts:1", "r", 2, b"2")]
    assert second.recorder.statistics() == {
        **NOTHING,
        "isRecorder": True,
        "generation": generation,
        "recorded": 1,
    }
    # For good: it does not come back, whatever happens to the other.
    assert first.recorder.statistics() == {**NOTHING, "generationsBegun": 1, "recorded": 1}
    await second.recorder.release()
    (holder,) = await in_redis(redis_server, ("GET", KEYS.lease))
    assert holder is None


async def test_who_waits_can_leave_and_takes_nobodys_lease(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    first, second = (Recording.at(section_of(redis_server)) for _ in range(2))
    await nursery.start(first.serve)
    await nursery.start(second.serve)
    (before,) = await in_redis(redis_server, ("GET", KEYS.lease))
    await second.recorder.release()
    (after,) = await in_redis(redis_server, ("GET", KEYS.lease))
    assert before == after
    assert first.begun == 1
