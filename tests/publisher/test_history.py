"""What publishers do for channels with history: positions, keys that publish once, and a Redis that will not."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from attrs import frozen

from broker.errors import EventError, PublishError
from broker.publisher import Publisher, RecordingPublisher
from broker.publisher.conversation import CHUNK_EVENTS
from tests.actors.redis_server import RedisServer
from tests.publisher.surfaces import REAL, Ear, RecordedEar, RedisEar, Surface, Sync, unstamped

_STAMP = re.compile(rb"\x01s:(\d{1,10}):(\d+):(\d{1,10}) (.*)", re.DOTALL)
_TYPES = "broker:history:types"
_PAGE = Path(__file__).parents[2] / "docs" / "publishing.md"
# What docs/publishing.md says a publisher's user needs.
_RIGHTS = "+publish +eval +evalsha +exists +get +set +del +pexpire +xadd +hget +hset +hmget ~broker:history:* &*"


@frozen
class Stamped:
    """A message on a channel with history."""

    channel: str
    epoch: bytes
    offset: int
    tag: bytes
    event: bytes

    @classmethod
    def of(cls, heard: tuple[str, bytes]) -> Stamped:
        found = _STAMP.fullmatch(heard[1])
        assert found is not None, heard
        return cls(heard[0], found[1], int(found[2]), found[3], found[4])


@pytest.fixture(scope="module")
def module_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(module_redis: RedisServer) -> RedisServer:
    """A Redis with nothing in it."""
    with module_redis.client() as client:
        client.config_set("maxmemory", "0")
        client.flushall()
        client.script_flush()
    return module_redis


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def ear(server: RedisServer) -> Iterator[RedisEar]:
    ear = RedisEar(server.client())
    yield ear
    ear.close()


@pytest.fixture(params=list(REAL))
def surface(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[Surface]:
    surface = REAL[request.param](server.url, timeout_seconds=2)
    yield surface
    surface.end()


def _limited(client: redis.Redis, server: RedisServer, rules: str) -> str:
    """The URL of a user with these rights only."""
    client.execute_command("ACL", "SETUSER", "service", "reset", "on", ">pw", *rules.split())
    return server.url.replace("//", "//service:pw@")


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "broker.publisher"]


def test_an_event_has_its_position_in_front_and_is_kept(surface: Surface, ear: RedisEar, client: redis.Redis) -> None:
    assert [surface.publish("alerts:1", f'"{n}"', confirm=True) for n in range(3)] == [1, 1, 1]
    heard = [Stamped.of(each) for each in ear.hear_stamped(3)]
    assert [(each.channel, each.offset, each.event) for each in heard] == [
        ("alerts:1", 1, b'"0"'),
        ("alerts:1", 2, b'"1"'),
        ("alerts:1", 3, b'"2"'),
    ]
    # One epoch, which is the first event's tag; a tag for each.
    assert {each.epoch for each in heard} == {heard[0].tag}
    assert len({each.tag for each in heard}) == 3
    assert all(int(each.tag) < 2**30 for each in heard)
    top, events = "broker:history:{alerts:1}:top", "broker:history:{alerts:1}:events"
    assert client.get(top) == b"%b 3 %b 0" % (heard[0].epoch, heard[2].tag)
    assert client.xrange(events) == [(b"%d-%b" % (each.offset, each.tag), {b"s": each.event}) for each in heard]
    assert 86_300_000 < client.pttl(top) <= 86_400_000
    assert 86_300_000 < client.pttl(events) <= 86_400_000


def test_a_batch_is_stamped_in_its_order_whatever_its_channels(surface: Surface, ear: RedisEar) -> None:
    count = 2 * CHUNK_EVENTS + 50
    channels = ["alerts:1", "note:1", "job_progress:1"]
    items = [(channels[n % 3], str(n)) for n in range(count)]
    assert surface.publish_many(items, confirm=True) == [1] * count
    heard = ear.hear_stamped(count)
    assert [(channel, unstamped(message).decode()) for channel, message in heard] == items
    for channel in ("alerts:1", "job_progress:1"):
        offsets = [Stamped.of(each).offset for each in heard if each[0] == channel]
        assert offsets == list(range(1, len(offsets) + 1))
    # A type without history has no stamp.
    assert [message for channel, message in heard if channel == "note:1"] == [b"%d" % n for n in range(1, count, 3)]
    assert surface.statistics().published == count


def test_large_events_go_in_their_order_too(surface: Surface, ear: RedisEar) -> None:
    events = [f'"{n}{"x" * 200_000}"' for n in range(4)]
    assert surface.publish_many([("alerts:1", event) for event in events], confirm=True) == [1] * 4
    assert [(each.offset, each.event.decode()) for each in map(Stamped.of, ear.hear_stamped(4))] == [
        (place, event) for place, event in enumerate(events, 1)
    ]


def test_what_the_daemons_wrote_for_a_type_wins(surface: Surface, ear: RedisEar, client: redis.Redis) -> None:
    client.hset(_TYPES, mapping={"alerts": "0 0", "own": "2 5000", "ai_stream": "nonsense", "long": "9 99000000"})
    for channel in ("alerts:1", "own:1", "own:1", "own:1", "ai_stream:1"):
        assert surface.publish(channel, "1") is True
    assert surface.publish_many([("alerts:1", "2"), ("own:1", "2"), ("ai_stream:1", "2")]) is True
    heard = ear.hear_stamped(8)
    assert [each for each in heard if each[0] != "own:1"] == [
        ("alerts:1", b"1"),
        ("ai_stream:1", b"1"),
        ("alerts:1", b"2"),
        ("ai_stream:1", b"2"),
    ]
    assert [Stamped.of(each).offset for each in heard if each[0] == "own:1"] == [1, 2, 3, 4]
    kept = client.xrange("broker:history:{own:1}:events")
    assert [list(fields.values()) for _, fields in kept] == [[b"1"], [b"2"]]
    assert 0 < client.pttl("broker:history:{own:1}:events") <= 5000
    assert sorted(client.keys()) == [
        b"broker:history:types",
        b"broker:history:{own:1}:events",
        b"broker:history:{own:1}:top",
    ]
    # A position outlives its events, and is not forgotten before them.
    assert 86_000_000 < client.pttl("broker:history:{own:1}:top") <= 86_400_000
    assert surface.publish("long:1", "1") is True
    assert 98_000_000 < client.pttl("broker:history:{long:1}:top") <= 99_000_000


def test_the_prefix_is_in_front_of_the_keys(server: RedisServer, ear: RedisEar, client: redis.Redis) -> None:
    with Publisher(server.url, channel_prefix="app.") as publisher:
        assert publisher.publish("alerts:1", "1", confirm=True) == 1
        assert publisher.publish_many([("alerts:1", "2"), ("alerts:1", "3")], confirm=True) == [1, 1]
    assert [(each.channel, each.offset) for each in map(Stamped.of, ear.hear_stamped(3))] == [
        ("app.alerts:1", 1),
        ("app.alerts:1", 2),
        ("app.alerts:1", 3),
    ]
    assert sorted(client.keys()) == [b"app.broker:history:{alerts:1}:events", b"app.broker:history:{alerts:1}:top"]


@pytest.fixture(params=[*REAL, "recording"])
def both(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[tuple[Surface, Ear]]:
    """A publisher, and what hears it."""
    surface: Surface
    ear: Ear
    if request.param == "recording":
        recording = RecordingPublisher()
        surface, ear = Sync(recording), RecordedEar(recording)
    else:
        surface, ear = REAL[request.param](server.url, timeout_seconds=2), RedisEar(server.client())
    yield surface, ear
    surface.end()
    ear.close()


@pytest.mark.parametrize("kind", ["alerts", "note"])
def test_a_key_publishes_once_on_its_channel(both: tuple[Surface, Ear], kind: str) -> None:
    surface, ear = both
    first, other = f"{kind}:1", f"{kind}:2"
    assert surface.publish(first, "1", confirm=True, idempotency_key="a") == 1
    assert surface.publish(first, "2", confirm=True, idempotency_key="a") == 1
    assert surface.publish(first, "3", idempotency_key="a") is True
    assert surface.publish(other, "4", confirm=True, idempotency_key="a") == 1
    assert surface.publish(first, "5", confirm=True, idempotency_key="b" * 255) == 1
    assert ear.hear(3) == [(first, b"1"), (other, b"4"), (first, b"5")]
    assert (surface.statistics().published, dict(surface.statistics().lost)) == (5, {})


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "ä", "a\n", 7, b"a"], ids=repr)
def test_a_key_that_is_none(both: tuple[Surface, Ear], key: object) -> None:
    surface, ear = both
    with pytest.raises(EventError, match=r"^idempotency_key: 1 to 255 visible ASCII characters"):
        surface.publish("alerts:1", "1", confirm=True, idempotency_key=key)
    assert surface.publish("alerts:1", "1", idempotency_key=key) is False
    assert surface.statistics().lost == {"invalid": 2}
    assert ear.hear(0) == []


def test_a_repeated_key_has_the_first_answer_for_five_minutes(
    surface: Surface, server: RedisServer, client: redis.Redis
) -> None:
    assert surface.publish("alerts:1", "1", confirm=True, idempotency_key="a") == 0
    ear = RedisEar(server.client())
    assert surface.publish("alerts:1", "1", confirm=True, idempotency_key="a") == 0
    assert ear.hear(0) == []
    ear.close()
    (memory,) = client.keys("broker:history:{alerts:1}:once:*")
    assert 290_000 < client.pttl(memory) <= 300_000


def test_a_redis_that_forgets_the_script(surface: Surface, ear: RedisEar, client: redis.Redis) -> None:
    for round_ in range(3):
        assert surface.publish("alerts:1", f'"{round_} one"', confirm=True) == 1
        items = [("alerts:1", f'"{round_} {n}"') for n in range(CHUNK_EVENTS + 2)]
        assert surface.publish_many(items, confirm=True) == [1] * len(items)
        client.script_flush()
    heard = [Stamped.of(each) for each in ear.hear_stamped(None)]
    assert [each.offset for each in heard] == list(range(1, 3 * (CHUNK_EVENTS + 3) + 1))
    assert [each.event.decode() for each in heard] == [
        f'"{round_} {n}"' for round_ in range(3) for n in ["one", *range(CHUNK_EVENTS + 2)]
    ]
    assert surface.statistics().lost == {}


def test_a_redis_that_forgets_the_script_in_the_middle_of_a_batch(server: RedisServer, ear: RedisEar) -> None:
    count = 40 * CHUNK_EVENTS
    is_over = threading.Event()

    def keep_forgetting() -> None:
        with server.client() as client:
            while not is_over.is_set():
                client.script_flush()

    thread = threading.Thread(target=keep_forgetting)
    thread.start()
    try:
        with Publisher(server.url, timeout_seconds=10) as publisher:
            items = [("alerts:1", str(n)) for n in range(count)]
            assert publisher.publish_many(items, confirm=True) == [1] * count
    finally:
        is_over.set()
        thread.join(10)
    heard = [Stamped.of(each) for each in ear.hear_stamped(count)]
    assert [(each.offset, each.event) for each in heard] == [(n + 1, b"%d" % n) for n in range(count)]


def test_a_full_redis_hands_events_on_and_that_is_told(
    surface: Surface, ear: RedisEar, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    assert surface.publish("alerts:1", "1", confirm=True) == 1
    client.config_set("maxmemory", "1mb")
    assert surface.publish("alerts:1", "2", confirm=True) == 1
    items = [("alerts:1", "3"), ("alerts:new", "4"), ("note:1", "5")]
    assert surface.publish_many(items, confirm=True) == [1, 1, 1]
    # With a key it would not be once.
    with pytest.raises(PublishError, match=r"^alerts:1: Redis at .* refused: .*command not allowed when used memory"):
        surface.publish("alerts:1", "6", confirm=True, idempotency_key="k")
    statistics = surface.statistics()
    assert (statistics.published, statistics.unkept, statistics.lost) == (5, 3, {"refused": 1})
    client.config_set("maxmemory", "0")
    assert surface.publish("alerts:1", "7", confirm=True, idempotency_key="k") == 1
    first, *unkept, last = ear.hear_stamped(6)
    assert unkept == [
        ("alerts:1", b"\x01u 2"),
        ("alerts:1", b"\x01u 3"),
        ("alerts:new", b"\x01u 4"),
        ("note:1", b"5"),
    ]
    assert [Stamped.of(each).offset for each in (first, last)] == [1, 2]
    surface.close()
    told, rest = _lines(caplog)
    assert re.fullmatch(
        r"an event was published and is not kept in its channel's history: Redis at .* does not keep it: OOM .*", told
    )
    assert rest == "closed; 2 more events were not kept"


@pytest.mark.parametrize(
    "rules",
    [
        "+publish &*",
        "+@all -eval -evalsha ~* &*",
        "+@all -xadd ~* &*",
        "+@all ~elsewhere:* &*",
    ],
)
@pytest.mark.parametrize("kind", list(REAL))
def test_a_user_without_the_rights_of_the_script_publishes_plain(
    kind: str,
    rules: str,
    server: RedisServer,
    ear: RedisEar,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    surface = REAL[kind](_limited(client, server, rules), timeout_seconds=2)
    assert surface.publish("alerts:1", "1", confirm=True) == 1
    items = [("alerts:1", "2"), ("note:1", "3"), ("job_progress:1", "4")]
    assert surface.publish_many(items, confirm=True) == [1, 1, 1]
    # Nobody would remember it.
    with pytest.raises(PublishError, match=r"^alerts:1: Redis at .* refused: "):
        surface.publish("alerts:1", "5", confirm=True, idempotency_key="k")
    assert surface.publish("alerts:1", "6", confirm=True) == 1
    statistics = surface.statistics()
    assert (statistics.published, statistics.unkept, statistics.lost) == (5, 0, {"refused": 1})
    surface.end()
    assert ear.hear_stamped(5) == [
        ("alerts:1", b"1"),
        ("alerts:1", b"2"),
        ("note:1", b"3"),
        ("job_progress:1", b"4"),
        ("alerts:1", b"6"),
    ]
    assert client.keys() == []
    [line] = _lines(caplog)
    assert re.fullmatch(
        r"events are published plain, and kept only while a daemon runs: "
        r"Redis at .*service:\*\*\*@.* does not let this user run the script: .*",
        line,
    )


def test_a_script_that_was_refused_is_not_asked_for_again(
    server: RedisServer, ear: RedisEar, client: redis.Redis
) -> None:
    with Publisher(_limited(client, server, "+publish &*"), timeout_seconds=2) as publisher:
        assert publisher.publish("alerts:1", "1") is True
        _limited(client, server, "+@all ~* &*")
        assert publisher.publish("alerts:1", "2") is True
        # But where there is no other way.
        assert publisher.publish("alerts:1", "3", confirm=True, idempotency_key="k") == 1
    assert ear.hear_stamped(3)[:2] == [("alerts:1", b"1"), ("alerts:1", b"2")]


def test_a_channel_that_is_not_allowed_is_refused_and_never_kept(
    server: RedisServer, ear: RedisEar, client: redis.Redis
) -> None:
    url = _limited(client, server, "+@all ~* resetchannels &note:* &job_progress:*")
    with Publisher(url, timeout_seconds=2) as publisher:
        with pytest.raises(PublishError, match=r"^alerts:1: .* refused: No permissions to access a channel$"):
            publisher.publish("alerts:1", "1", confirm=True)
        items = [("job_progress:1", "2"), ("alerts:1", "3"), ("note:1", "4"), ("job_progress:1", "5")]
        with pytest.raises(PublishError, match=r"^alerts:1: .* \(3 of 4 events were taken\)$"):
            publisher.publish_many(items, confirm=True)
        with pytest.raises(PublishError):
            publisher.publish("alerts:1", "6", confirm=True, idempotency_key="k")
        _limited(client, server, "+@all ~* &*")
        assert publisher.publish("alerts:1", "7", confirm=True, idempotency_key="k") == 1
    heard = ear.hear_stamped(4)
    assert [(channel, unstamped(message)) for channel, message in heard] == [
        ("job_progress:1", b"2"),
        ("note:1", b"4"),
        ("job_progress:1", b"5"),
        ("alerts:1", b"7"),
    ]
    assert [Stamped.of(heard[place]).offset for place in (0, 2, 3)] == [1, 2, 1]
    assert client.xlen("broker:history:{alerts:1}:events") == 1


def test_the_rights_that_the_documentation_names_are_enough(
    server: RedisServer, ear: RedisEar, client: redis.Redis
) -> None:
    assert _RIGHTS in " ".join(_PAGE.read_text().split())
    # An older history of the channel, which a new one replaces, needs the most of them.
    client.xadd("broker:history:{alerts:1}:events", {"s": "old"}, id="7-7")
    with Publisher(_limited(client, server, _RIGHTS), timeout_seconds=2) as publisher:
        assert publisher.publish("alerts:1", "1", confirm=True, idempotency_key="k") == 1
        assert publisher.publish("alerts:1", "1", confirm=True, idempotency_key="k") == 1
        assert publisher.publish_many([("alerts:1", "2"), ("note:1", "3")], confirm=True) == [1, 1]
        assert publisher.statistics().lost == {}
    first, second, _ = ear.hear_stamped(3)
    assert [Stamped.of(each).offset for each in (first, second)] == [1, 2]
    assert client.xlen("broker:history:{alerts:1}:events") == 2


# Python 3.12 and later warn of every fork beside other threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forked_children_that_are_seeded_alike_have_tags_of_their_own(server: RedisServer, ear: RedisEar) -> None:
    import random

    with Publisher(server.url, timeout_seconds=5) as publisher:
        assert publisher.publish("alerts:0", "0", confirm=True) == 1
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    random.seed(1)
                    status = 0 if publisher.publish("alerts:0", "1", confirm=True) == 1 else 2
                finally:
                    os._exit(status)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    heard = [Stamped.of(each) for each in ear.hear_stamped(5)]
    assert [each.offset for each in heard] == [1, 2, 3, 4, 5]
    assert len({each.tag for each in heard}) == 5
