"""What every publisher promises, the one for tests included."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broker.auth import rules
from broker.errors import ChannelError, EventError, PublishError
from broker.events import Connected, JobProgress
from broker.publisher import RecordingPublisher, publication
from broker.publisher.publication import USERS_CHANNEL
from tests.actors.redis_server import RedisServer
from tests.publisher.surfaces import REAL, Ear, RecordedEar, RedisEar, Surface, Sync, unstamped

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_EVENT = JobProgress(job_id="42", status="processing", stage="rendering", progress=0.4, message="half way")
_DICT = {"type": "note", "timestamp": "2026-01-31T12:00:00.000Z", "n": 1}


@pytest.fixture(scope="module")
def module_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=[*REAL, "recording"])
def both(request: pytest.FixtureRequest, module_redis: RedisServer) -> Iterator[tuple[Surface, Ear]]:
    """A publisher, and what hears it."""
    surface: Surface
    ear: Ear
    if request.param == "recording":
        recording = RecordingPublisher(event_max_bytes=1000)
        surface, ear = Sync(recording), RecordedEar(recording)
    else:
        surface = REAL[request.param](module_redis.url, event_max_bytes=1000, timeout_seconds=2)
        ear = RedisEar(module_redis.client())
    yield surface, ear
    surface.end()
    ear.close()


def test_an_event_goes_to_its_channel(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    assert surface.publish(_EVENT) is True
    assert surface.publish(_EVENT, confirm=True) == 1
    assert ear.hear(2) == [("job_progress:42", _EVENT.encode())] * 2


def test_a_channel_and_any_kind_of_event(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    raw = '{ "b":1.0,\n "a":"\u00e4" }'
    assert [surface.publish("a:1", event) for event in (_EVENT, _DICT, raw, raw.encode())] == [True] * 4
    assert ear.hear(4) == [
        ("a:1", _EVENT.encode()),
        ("a:1", json.dumps(_DICT, separators=(",", ":")).encode()),
        ("a:1", raw.encode()),
        ("a:1", raw.encode()),
    ]


def test_a_mapping_gets_a_timestamp_and_nothing_else(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    given = {"type": "note", "deep": {"ids": (1, 2)}}
    surface.publish("a", given)
    [(_, payload)] = ear.hear(1)
    event = json.loads(payload)
    assert _TIMESTAMP.fullmatch(event.pop("timestamp"))
    assert event == {"type": "note", "deep": {"ids": [1, 2]}}
    assert given == {"type": "note", "deep": {"ids": (1, 2)}}


def test_many_go_in_order(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    assert surface.publish_many([]) is True
    assert surface.publish_many([], confirm=True) == []
    assert surface.publish_many([_EVENT, ("a:1", _DICT)]) is True
    assert surface.publish_many((("a:1", f"{n}") for n in range(50)), confirm=True) == [1] * 50
    heard = ear.hear(52)
    assert heard[:2] == [
        ("job_progress:42", _EVENT.encode()),
        ("a:1", json.dumps(_DICT, separators=(",", ":")).encode()),
    ]
    assert heard[2:] == [("a:1", str(n).encode()) for n in range(50)]


_CIRCLE: dict[str, Any] = {"type": "x"}
_CIRCLE["itself"] = _CIRCLE

_WRONG = [
    (("a b", _DICT), ChannelError, "channel 'a b' has a character that is not allowed; use letters, digits and _"),
    ((7, _DICT), ChannelError, "a channel is a text, such as job_progress:42, not int"),
    (("a",), EventError, "there is no event for channel a; write publish(channel, event)"),
    ((_EVENT, _DICT), EventError, "two events were given; publish(event) or publish(channel, event)"),
    (("a", 7), EventError, "int is no event; publish an event, a mapping, or JSON as text or bytes"),
    (("a", {"n": 1}), EventError, "type: an event needs a type, a text such as job_progress"),
    (("a", {"type": "x", "it": object()}), EventError, "the event cannot be written as JSON: TypeError: "),
    (("a", {"type": "x", "it": "\ud800"}), EventError, "the event cannot be written as JSON: UnicodeEncodeError: "),
    (("a", _CIRCLE), EventError, "the event cannot be written as JSON: RecursionError: "),
    (("a", "{nothing"), EventError, "the event is not JSON; publish an event, a mapping, or one JSON value"),
    (("a", b'"\xff"'), EventError, "the event is not UTF-8"),
    (("a", "\ud800"), EventError, "the event has half of a surrogate pair, which UTF-8 cannot write"),
    (("a", {"type": "x" * 1000}), EventError, "the event has 1050 bytes; at most 1000, or the daemon drops it"),
    (("a", '"' + "x" * 999 + '"'), EventError, "the event has 1001 bytes; at most 1000, or the daemon drops it"),
    (
        (JobProgress(job_id="a b", status="queued", stage="", progress=0, message=""),),
        ChannelError,
        "channel 'a b' has a ",
    ),
    ((Connected(message="hello"),), EventError, "connected: has no channel"),
    (("broker:users", _DICT), ChannelError, "channels of type broker are the daemons' own; publish to another"),
    (("broker", _DICT), ChannelError, "channels of type broker are the daemons' own; publish to another"),
]


def test_what_is_no_event_is_counted_and_only_raised_when_asked(
    both: tuple[Surface, Ear], caplog: pytest.LogCaptureFixture
) -> None:
    surface, ear = both
    for count, (arguments, error, said) in enumerate(_WRONG):
        with pytest.raises(error) as caught:
            surface.publish(*arguments, confirm=True)
        assert str(caught.value).startswith(said)
        assert surface.publish(*arguments) is False
        assert surface.statistics().lost == {"invalid": 2 * count + 2}
        assert surface.statistics().last_error == str(caught.value)
    assert ear.hear(0) == []
    # The first at once; the others are held back for a while, and told when the publisher closes.
    surface.close()
    assert [record.getMessage() for record in caplog.records] == [
        "an event for a b was not published: channel 'a b' has a character that is not allowed; "
        "use letters, digits and _ - . @ = + ~",
        f"closed; {len(_WRONG) - 1} more events were lost: invalid",
    ]


def test_an_event_for_a_user_goes_to_the_daemons(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    raw = b'{ "type":"note",\n "a":"\\u00e4" }'
    user = 'ann "7", \u00e4:*'
    assert surface.publish_to_user("7", _EVENT) is True
    assert surface.publish_to_user(user, raw, confirm=True) == 1
    assert surface.publish_to_user("u" * 256, _DICT, confirm=False) is True
    assert surface.publish_to_user("7", {"type": "note"}) is True
    heard = ear.hear(4)
    assert [channel for channel, _ in heard] == ["broker:users"] * 4
    assert [payload for _, payload in heard[:3]] == [
        b'{"user":"7","event":%b}' % _EVENT.encode(),
        b'{"user":"ann \\"7\\", %b:*","event":%b}' % ("\u00e4".encode(), raw),
        b'{"user":"%b","event":%b}' % (b"u" * 256, json.dumps(_DICT, separators=(",", ":")).encode()),
    ]
    assert _TIMESTAMP.fullmatch(json.loads(heard[3][1])["event"]["timestamp"])
    assert (surface.statistics().published, surface.statistics().lost_total) == (4, 0)


_NO_USER = "user: 1 to 256 characters, none of them a control character"
_NOT_FOR_A_USER = [
    *(
        ((user, _DICT), _NO_USER)
        for user in ("", "u" * 257, "a\nb", "a\x00", "\x7f", "a\x85", "a\u2028", "a\u2029", "\ud800", None, 7, b"u")
    ),
    (("u", "1"), "the event is not a JSON object, which is all that a user can be sent"),
    (("u", ' [{"type": "x"}]'), "the event is not a JSON object, which is all that a user can be sent"),
    (("u", '{"type": "x"}, {}'), "the event is not JSON; publish an event, a mapping, or one JSON value"),
    (("u", '{"a":1}}'), "the event is not JSON; publish an event, a mapping, or one JSON value"),
    (("u", None), "NoneType is no event; publish an event, a mapping, or JSON as text or bytes"),
    (("u", {"n": 1}), "type: an event needs a type, a text such as job_progress"),
    (("u", {"type": "x" * 1000}), "the event has 1050 bytes; at most 1000, or the daemon drops it"),
]


def test_what_is_for_no_user_is_counted_and_only_raised_when_asked(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    for count, (arguments, said) in enumerate(_NOT_FOR_A_USER):
        with pytest.raises(EventError) as caught:
            surface.publish_to_user(*arguments, confirm=True)
        assert str(caught.value).startswith(said)
        assert surface.publish_to_user(*arguments) is False
        assert surface.statistics().lost == {"invalid": 2 * count + 2}
    assert ear.hear(0) == []


def test_a_closed_publisher_loses_what_is_for_a_user(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    surface.close()
    assert surface.publish_to_user("7", _DICT) is False
    with pytest.raises(PublishError, match=r"^broker:users: the publisher is closed$"):
        surface.publish_to_user("7", _DICT, confirm=True)
    assert dict(surface.statistics().lost) == {"closed": 2}
    assert ear.hear(0) == []


def test_a_test_sees_what_was_sent_to_a_user() -> None:
    with RecordingPublisher() as publisher:
        publisher.publish_to_user("7", _DICT)
        publisher.publish("a", _DICT)
        assert publisher.published.to_user("7") == [_DICT]
        assert publisher.published.to_user("8") == []
        assert publisher.published.channels == ["broker:users", "a"]
        assert [event.user for event in publisher.published] == ["7", None]


def test_the_channel_of_the_daemons_is_of_the_type_that_no_rule_allows() -> None:
    assert f"{rules.RESERVED_TYPE}:users" == USERS_CHANNEL
    assert publication.RESERVED_TYPE == rules.RESERVED_TYPE


def test_one_that_is_wrong_refuses_the_batch(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    with pytest.raises(EventError, match=r"^item 1: int is no event"):
        surface.publish_many([("a", _DICT), ("a", 7)], confirm=True)
    with pytest.raises(EventError, match=r"^item 0: expected an event or"):
        surface.publish_many(["a"], confirm=True)
    with pytest.raises(EventError, match="at most 10000 events"):
        surface.publish_many([("a", "1")] * 10_001, confirm=True)
    assert surface.publish_many([("a", _DICT), ("a", 7)]) is False
    assert surface.statistics().lost == {"invalid": 2 + 1 + 10_001 + 2}
    assert ear.hear(0) == []


class _Trap(dict[str, object]):
    """A mapping that raises when it is looked at."""

    def get(self, *_: object) -> object:
        raise RuntimeError("no")


@pytest.mark.parametrize("items", [None, 5, [("a", _Trap())]], ids=["none", "number", "trap"])
def test_nothing_that_is_given_raises(both: tuple[Surface, Ear], items: Any) -> None:
    surface, ear = both
    assert surface.publish_many(items) is False
    with pytest.raises(EventError, match="what was given cannot be published: "):
        surface.publish_many(items, confirm=True)
    assert surface.statistics().lost == {"invalid": 2}
    assert ear.hear(0) == []


def test_a_job_without_an_id_publishes_nothing(both: tuple[Surface, Ear]) -> None:
    """As of a Celery task that was called directly."""
    surface, ear = both
    surface.run_job(None, [])
    assert ear.hear(0) == []
    assert surface.statistics().lost_total > 0


def test_a_closed_publisher_loses_and_says_so(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    assert surface.publish("a", "1") is True
    surface.close()
    surface.close()
    assert surface.publish("a", "2") is False
    with pytest.raises(PublishError, match=r"^a: the publisher is closed$"):
        surface.publish("a", "3", confirm=True)
    assert (surface.statistics().published, dict(surface.statistics().lost)) == (1, {"closed": 2})
    assert ear.hear(1) == [("a", b"1")]


def _told(heard: list[tuple[str, bytes]]) -> list[tuple[Any, ...]]:
    events = []
    for channel, payload in heard:
        event = json.loads(payload)
        assert (channel, event["type"], event["jobId"]) == ("job_progress:42", "job_progress", "42")
        events.append((event["status"], event["progress"], event["stage"], event["message"], event.get("metadata")))
    return events


def test_a_job_that_completes(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    steps = [("start", "loading", "one moment"), ("progress", 0.4, "rendering"), ("progress", 0.9, None, "soon")]
    surface.run_job(42, steps, metadata={"worker": "w1"})
    worker = {"worker": "w1"}
    assert _told(ear.hear(5)) == [
        ("queued", 0, "queued", "", worker),
        ("processing", 0, "loading", "one moment", worker),
        ("processing", 0.4, "rendering", "one moment", worker),
        ("processing", 0.9, "rendering", "soon", worker),
        ("completed", 1, "completed", "completed", worker),
    ]


@pytest.mark.parametrize("error", [ValueError("secret"), KeyboardInterrupt(), GeneratorExit(), SystemExit(0)])
def test_a_job_that_fails_tells_the_class_and_lets_it_go_on(both: tuple[Surface, Ear], error: BaseException) -> None:
    surface, ear = both
    if isinstance(surface, Sync):
        with pytest.raises(type(error)) as caught:
            surface.run_job(42, [("progress", 0.4, "rendering"), ("raise", error)])
        assert caught.value is error
    else:
        # In a loop of its own what is not an Exception would take the loop down with it; it is caught inside.
        async def raises() -> None:
            async with surface.publisher.job(42) as job:  # type: ignore[attr-defined]
                await job.progress(0.4, "rendering")
                raise error

        async def catches() -> BaseException | None:
            try:
                await raises()
            except BaseException as raised:
                return raised
            return None

        assert surface.run(catches) is error  # type: ignore[attr-defined]
    assert _told(ear.hear(3)) == [
        ("queued", 0, "queued", "", None),
        ("processing", 0.4, "rendering", "", None),
        ("failed", 0.4, "rendering", f"failed: {type(error).__name__}", None),
    ]


@pytest.mark.parametrize(
    ("describe", "message"),
    [(lambda error: f"no luck: {error}", "no luck: x"), (lambda _: 1 / 0, "failed: ValueError")],
)
def test_the_message_of_a_failure_is_the_callers(both: tuple[Surface, Ear], describe: Any, message: str) -> None:
    surface, ear = both
    with pytest.raises(ValueError, match=r"^x$"):
        surface.run_job(42, [("raise", ValueError("x"))], describe=describe)
    assert _told(ear.hear(2))[1] == ("failed", 0, "queued", message, None)


def test_wrong_progress_never_reaches_the_business_code(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    surface.run_job(42, [("progress", 1.5), ("progress", float("nan")), ("progress", "half"), ("progress", 0.5)])
    assert [told[:2] for told in _told(ear.hear(3))] == [("queued", 0), ("processing", 0.5), ("completed", 1)]
    assert surface.statistics().lost == {"invalid": 3}
    surface.run_job("a b", [("progress", 0.5)])
    assert surface.statistics().lost == {"invalid": 6}
    assert ear.hear(0) == []


def test_progress_is_throttled_and_what_is_held_goes_out_by_itself(both: tuple[Surface, Ear]) -> None:
    surface, ear = both
    if isinstance(ear, RecordedEar):
        pytest.skip("nothing is throttled in tests")
    hasty = [("progress", n / 100) for n in range(1, 60)]
    in_time: list[Any] = []

    def listen() -> None:
        # While the job takes its long step: the value held back comes though no further call is made.
        for _ in range(3):
            in_time.append(json.loads(unstamped(ear.pubsub.get_message(timeout=5)["data"]))["progress"])
        in_time.append("too late" if is_awake.is_set() else "in time")

    is_awake = threading.Event()
    ears = threading.Thread(target=listen)
    ears.start()
    surface.run_job(
        42, [*hasty, ("wait", 1.6), ("call", is_awake.set), ("progress", 0.7), ("progress", 0.8)], per_second=1
    )
    ears.join()
    assert in_time == [0, 0.01, 0.59, "in time"]
    # Whether 0.7 comes depends on the clock; the last value always does, and before the end.
    assert [told[:2] for told in _told(ear.hear(None))][-2:] == [("processing", 0.8), ("completed", 1)]
