"""A recorder leaves and another goes on: nothing is missed; and where that fails, nothing is missed in silence."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NoReturn

import pytest
import trio
from attrs import define, field

from broker.config.types import TypeOptions
from broker.history.keys import Keys
from broker.upstream.connection import RedisConnection, pack
from broker.upstream.handover import LISTENING, MARKER, OFFER, Notice, channel_of
from broker.upstream.lease import Lease
from broker.upstream.parting import Parting
from broker.upstream.pipeline import Pipeline
from broker.upstream.recorder import Recorder
from broker.upstream.term import Term
from tests.actors.recording import Recording, in_redis, section_of
from tests.actors.redis_server import RedisServer

KEYS = Keys("")
TYPES = {"kept": TypeOptions(history_length=100_000, history_seconds=600.0)}
CHANNELS = [f"kept:{number}" for number in range(4)]


def recording_at(server: RedisServer, *, lease_seconds: float = 2.0, **changes: Any) -> Recording:
    section = section_of(server, **{"url": f"{server.url}?client_name=recorder", **changes})
    return Recording.at(section, types=TYPES, lease_seconds=lease_seconds)


async def connections(server: RedisServer) -> dict[int, str]:
    """The connections of recorders, by id: `commands`, `ear` of one that records or is about to, `standby`."""
    (clients,) = await in_redis(server, ("CLIENT LIST",))
    return {
        int(each["id"]): "ear" if each["psub"] != "0" else "standby" if each["sub"] != "0" else "commands"
        for each in clients
        if each["name"] == "recorder"
    }


@define(eq=False)
class Publisher:
    """Publishes plainly, 1, 2, 3 on each channel, until it is told to stop."""

    server: RedisServer
    published: int = 0
    _is_over: bool = False
    _ended: trio.Event = field(factory=trio.Event)

    async def serve(self) -> None:
        connection = await RedisConnection.open(section_of(self.server))
        while not self._is_over:
            self.published += 1
            await connection.write(
                b"".join(pack(b"PUBLISH", name.encode(), b"%d" % self.published) for name in CHANNELS)
            )
            answers = 0
            while answers < len(CHANNELS):
                answers += len(await connection.read())
            await trio.sleep(0.002)
        connection.close()
        self._ended.set()

    async def reach(self, more: int) -> None:
        until = self.published + more
        while self.published < until:
            await trio.sleep(0.002)

    async def end(self) -> None:
        self._is_over = True
        await self._ended.wait()


async def history(server: RedisServer, publisher: Publisher) -> list[list[tuple[str, int]]]:
    """How each event of each channel came, and its number, once the last one of all is there."""
    with trio.fail_after(10):
        while True:
            answers = await in_redis(server, *(("XRANGE", KEYS.events(name), "-", "+") for name in CHANNELS))
            found = [
                [(came.decode(), int(event)) for _, fields in entries for came, event in fields.items()]
                for entries in answers
            ]
            if all(events and events[-1][1] == publisher.published for events in found):
                return found
            await trio.sleep(0.01)


def told_gaps(found: list[list[tuple[str, int]]]) -> int:
    """How many holes were told. A fault where something came twice, out of order, or is missing in silence."""
    told = 0
    for events in found:
        assert events[0] == ("r", 1)
        for (_, before), (came, number) in pairwise(events):
            assert number > before, f"twice, or out of order: {number} after {before}"
            told += came.startswith("g")
            assert number == before + 1 or came.startswith("g"), f"{before + 1} to {number - 1} are missed in silence"
    return told


@pytest.fixture
async def publisher(redis_server: RedisServer, nursery: trio.Nursery) -> Publisher:
    return Publisher(redis_server)


async def start(nursery: trio.Nursery, publisher: Publisher, *recordings: Recording, count: int = 20) -> None:
    for recording in recordings:
        await nursery.start(recording.serve)
    nursery.start_soon(publisher.serve)
    await publisher.reach(count)


async def test_nothing_is_missed_nor_doubled_from_hand_to_hand(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher
) -> None:
    recordings = [recording_at(redis_server) for _ in range(6)]
    await start(nursery, publisher, *recordings)
    generation = recordings[0].generation
    for _ in range(5):
        (leaving,) = [each for each in recordings if each.generation is not None]
        recordings.remove(leaving)
        began_at = trio.current_time()
        await leaving.recorder.release()
        assert trio.current_time() - began_at < 1.0
        assert leaving.generation is None
        with trio.fail_after(1):
            while [each.generation for each in recordings].count(None) != len(recordings) - 1:
                await trio.sleep(0.002)
        await publisher.reach(20)
    assert [each.generation for each in recordings] == [generation]
    await publisher.end()
    count = publisher.published
    assert await history(redis_server, publisher) == [[("r", number) for number in range(1, count + 1)]] * 4


async def test_what_comes_right_before_and_behind_the_marker_is_recorded_once(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker, and what surrounds it, in one write; who leaves has yet to read all of that."""
    first, second = (recording_at(redis_server) for _ in range(2))
    for recording in (first, second):
        await nursery.start(recording.serve)
    publisher = Publisher(redis_server)

    def burst() -> list[tuple[str, str, bytes]]:
        publisher.published += 300
        numbers = range(publisher.published - 299, publisher.published + 1)
        return [("PUBLISH", name, b"%d%b" % (number, b" " * 1000)) for number in numbers for name in CHANNELS]

    call = Pipeline.call

    async def call_amid(pipeline: Pipeline, *commands: tuple[Any, ...]) -> list[Any]:
        if commands[0][:2] == ("PUBLISH", channel_of("")) and commands[0][2].startswith(MARKER):
            return (await call(pipeline, *burst(), *commands, *burst()))[1200:1201]
        return await call(pipeline, *commands)

    monkeypatch.setattr(Pipeline, "call", call_amid)
    generation = first.generation
    await first.recorder.release()
    assert await second.wait_generation(seconds=1) == generation
    assert await history(redis_server, publisher) == [[("r", number) for number in range(1, 601)]] * 4
    recorded = [each.recorder.statistics()["recorded"] for each in (first, second)]
    assert recorded == [1200, 1200]


async def test_who_leaves_alone_does_not_wait(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    recording = recording_at(redis_server)
    await nursery.start(recording.serve)
    began_at = trio.current_time()
    await recording.recorder.release()
    assert trio.current_time() - began_at < 0.2
    (holder,) = await in_redis(redis_server, ("GET", KEYS.lease))
    assert holder is None


async def test_who_is_about_to_leave_takes_nothing(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher
) -> None:
    first, retiring, staying = (recording_at(redis_server) for _ in range(3))
    await start(nursery, publisher, first, retiring, staying)
    retiring.recorder.retire()
    generation = first.generation
    first.recorder.retire()
    await first.recorder.release()
    assert await staying.wait_generation(seconds=1) == generation
    assert retiring.generation is None
    # The others have left before it, and nobody waits: it does not wait for them.
    staying.recorder.retire()
    began_at = trio.current_time()
    await staying.recorder.release()
    assert trio.current_time() - began_at < 0.5
    assert await retiring.wait_generation(seconds=1.5) != generation
    await publisher.reach(5)
    await publisher.end()
    assert told_gaps(await history(redis_server, publisher)) == 4


async def test_who_records_something_else_begins_anew(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher
) -> None:
    """Under the same generation nobody would be told of what it did not record."""
    first = recording_at(redis_server)
    types = {**TYPES, "more": TypeOptions(history_length=10, history_seconds=60.0)}
    second = Recording.at(section_of(redis_server), types=types, lease_seconds=2.0)
    await start(nursery, publisher, first, second)
    generation = first.generation
    await first.recorder.release()
    assert await second.wait_generation(seconds=2) != generation
    await publisher.reach(5)
    await publisher.end()
    assert told_gaps(await history(redis_server, publisher)) == 4


async def test_an_heir_that_dies_is_told(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher
) -> None:
    first = recording_at(redis_server, lease_seconds=0.5)
    await start(nursery, publisher, first)
    ghost = await RedisConnection.open(section_of(redis_server))
    await ghost.write(pack(b"SUBSCRIBE", channel_of("").encode()))
    await ghost.read()

    async def promise_and_die() -> None:
        (_, _, text), *_ = await ghost.read()
        offer = Notice.parse(text)
        assert offer is not None and offer.verb == OFFER
        said = Notice(LISTENING, offer.token, "ghost")
        await in_redis(redis_server, ("PUBLISH", channel_of(""), str(said)))
        ghost.close()

    nursery.start_soon(promise_and_die)
    generation = first.generation
    await first.recorder.release()
    (holder,) = await in_redis(redis_server, ("GET", KEYS.lease))
    assert holder == b"ghost:%d" % generation
    second = recording_at(redis_server, lease_seconds=0.5)
    nursery.start_soon(second.serve)
    assert await second.wait_generation(seconds=2) != generation
    await publisher.reach(5)
    await publisher.end()
    assert told_gaps(await history(redis_server, publisher)) == 4


async def test_who_dies_behind_the_marker_is_told(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (recording_at(redis_server, lease_seconds=0.5) for _ in range(2))
    await start(nursery, publisher, first, second)
    generation = first.generation

    async def die(*_: object) -> NoReturn:
        first.scope.cancel()
        await trio.sleep_forever()

    monkeypatch.setattr(Lease, "pass_on", die)
    nursery.start_soon(first.recorder.release)
    assert await second.wait_generation(seconds=5) != generation
    await publisher.reach(5)
    await publisher.end()
    assert told_gaps(await history(redis_server, publisher)) == 4


async def _kill_connections(server: RedisServer, kind: str) -> None:
    ids = [id for id, what in (await connections(server)).items() if what == kind]
    await in_redis(server, *(("CLIENT", "KILL", "ID", id) for id in ids))


async def _steal(server: RedisServer, kind: str) -> None:
    await in_redis(server, ("SET", KEYS.lease, "another:7", "PX", "300"))


async def _forget_scripts(server: RedisServer, kind: str) -> None:
    await in_redis(server, ("SCRIPT", "FLUSH"))


@pytest.mark.parametrize("step", ["find_heir", "leave"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [(_kill_connections, "ear"), (_kill_connections, "commands"), (_steal, ""), (_forget_scripts, "")],
    ids=["ear", "commands", "lease", "scripts"],
)
async def test_a_fault_on_the_way_is_told(
    redis_server: RedisServer,
    nursery: trio.Nursery,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    fault: Callable[[RedisServer, str], Any],
    kind: str,
) -> None:
    """All connections of that kind break, of both, or Redis loses what it knows."""
    first, second = (recording_at(redis_server, lease_seconds=1.0) for _ in range(2))
    await start(nursery, publisher, first, second)
    generation = first.generation
    taken = getattr(Parting, step)

    async def failing(*arguments: Any) -> Any:
        await fault(redis_server, kind)
        await publisher.reach(2)
        return await taken(*arguments)

    monkeypatch.setattr(Parting, step, failing)
    with trio.fail_after(4):
        await first.recorder.release()
    begun = await second.wait_generation(seconds=5)
    await publisher.reach(5)
    await publisher.end()
    told = told_gaps(await history(redis_server, publisher))
    # Behind the marker who leaves needs its subscription no more.
    assert (begun != generation, told > 0) == (True, True)


async def test_too_much_to_hold_is_told(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.upstream.standby._HELD_BYTES", 100)
    first, second = (recording_at(redis_server, lease_seconds=1.0) for _ in range(2))
    await start(nursery, publisher, first, second)
    generation = first.generation
    pass_on = Lease.pass_on

    async def late(*arguments: Any) -> bool:
        await publisher.reach(10)
        return await pass_on(*arguments)

    monkeypatch.setattr(Lease, "pass_on", late)
    await first.recorder.release()
    assert await second.wait_generation(seconds=5) != generation
    await publisher.reach(5)
    await publisher.end()
    assert told_gaps(await history(redis_server, publisher)) == 4


async def test_what_was_not_recorded_before_the_marker_is_told(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call fails whose answer comes when the term is over already."""
    first, second = (recording_at(redis_server) for _ in range(2))
    await start(nursery, publisher, first, second)
    generation = first.generation
    monkeypatch.setattr(Term, "has_failed", True)
    await first.recorder.release()
    assert await second.wait_generation(seconds=1) != generation
    await publisher.reach(5)
    await publisher.end()
    assert told_gaps(await history(redis_server, publisher)) == 4


async def test_a_slow_passing_on_loses_nothing(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held is given on in order."""
    first, second = (recording_at(redis_server) for _ in range(2))
    await start(nursery, publisher, first, second)
    pass_on = Lease.pass_on

    async def late(*arguments: Any) -> bool:
        await trio.sleep(0.5)
        return await pass_on(*arguments)

    monkeypatch.setattr(Lease, "pass_on", late)
    await first.recorder.release()
    await second.wait_generation(seconds=1)
    await publisher.reach(5)
    await publisher.end()
    count = publisher.published
    assert await history(redis_server, publisher) == [[("r", number) for number in range(1, count + 1)]] * 4


async def test_a_user_who_may_not_hear_recorders_records_all_the_same(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher
) -> None:
    user = ("ACL", "SETUSER", "narrow", "on", ">x", "allcommands", "allkeys", "resetchannels", "&kept", "&kept:*")
    await in_redis(redis_server, user)
    url = f"redis://narrow:x@127.0.0.1:{redis_server.port}/0"
    first, second = (recording_at(redis_server, url=url) for _ in range(2))
    await start(nursery, publisher, first, second)
    generation = first.generation
    began_at = trio.current_time()
    await first.recorder.release()
    assert trio.current_time() - began_at < 0.5
    assert await second.wait_generation(seconds=2) != generation
    await publisher.reach(5)
    await publisher.end()
    assert told_gaps(await history(redis_server, publisher)) == 4
    assert (first.refused, second.refused) == ([], [])


@pytest.mark.parametrize("seed", range(4))
async def test_under_kills_nothing_is_missed_in_silence(
    redis_server: RedisServer, nursery: trio.Nursery, publisher: Publisher, seed: int
) -> None:
    dice = random.Random(seed)
    recordings = [recording_at(redis_server, lease_seconds=0.5) for _ in range(2)]
    await start(nursery, publisher, *recordings)

    async def cut_one() -> None:
        await trio.sleep(dice.random() * 0.02)
        victims = sorted(await connections(redis_server))
        await in_redis(redis_server, ("CLIENT", "KILL", "ID", dice.choice(victims)))

    async def leave(recorder: Recorder) -> None:
        recorder.retire()
        await recorder.release()

    for _ in range(4):
        with trio.fail_after(10):
            while not (leaving := [each for each in recordings if each.generation is not None]):
                await trio.sleep(0.005)
        added = recording_at(redis_server, lease_seconds=0.5)
        await nursery.start(added.serve)
        recordings = [each for each in recordings if each is not leaving[0]] + [added]
        async with trio.open_nursery() as faults:
            faults.start_soon(leave, leaving[0].recorder)
            if dice.random() < 0.8:
                faults.start_soon(cut_one)
        await publisher.reach(dice.randrange(30))
    with trio.fail_after(10):
        while all(each.generation is None for each in recordings):
            await trio.sleep(0.005)
    await publisher.reach(10)
    await publisher.end()
    told_gaps(await history(redis_server, publisher))
