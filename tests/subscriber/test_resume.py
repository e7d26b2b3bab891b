"""The subscriber goes on where it was: real daemons, cut connections, restarts; every event once, or a gap."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from broker.errors import SubscriberError
from broker.subscriber import Gap, Notice, Statistics, Subscription, subscribe, subscription
from tests.actors.daemon_process import DaemonProcess
from tests.actors.proxy import Proxy, proxy_to
from tests.actors.redis_server import RedisServer
from tests.actors.stamping import Stamping
from tests.conftest import errors_of

BOUND_SECONDS = 10.0
StartDaemon = Callable[..., DaemonProcess]
Shared = tuple[RedisServer, DaemonProcess]
FLAGS = ("--log-format", "json", "--clients-farewell-seconds", "0.2")
RECOVERED = "subscribed again; nothing is missing"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A Redis and a daemon for all tests that leave them as they are, each with channels of its own."""
    folder = tmp_path_factory.mktemp("shared")
    redis_server = RedisServer(folder)
    redis_server.start()
    flags = (*FLAGS, "--type", "alerts.history_length=5", "--type", "ai_stream.validate=off")
    daemon = DaemonProcess(redis_server.url, folder / "daemon.log", flags)
    daemon.start()
    yield redis_server, daemon
    daemon.stop()
    redis_server.kill()
    assert errors_of(daemon) == []


def _numbered(first: int, last: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(first, last + 1)]


async def _take(events: Subscription, count: int) -> list[str]:
    with trio.fail_after(BOUND_SECONDS):
        return [(await anext(events)).raw for _ in range(count)]


async def _until(holds: Callable[[], object]) -> None:
    with trio.fail_after(BOUND_SECONDS):
        while not holds():
            await trio.sleep(0.005)


def _texts(payloads: list[bytes]) -> list[str]:
    return [payload.decode() for payload in payloads]


def _told(notices: list[Notice], *, but: str = "waiting") -> list[tuple[str, bool, Gap | None]]:
    return [(notice.kind, notice.recovered, notice.gap) for notice in notices if notice.kind != but]


async def _cut_and_publish(proxy: Proxy, notices: list[Notice], service: Stamping, payloads: list[bytes]) -> None:
    """Publish while the subscriber is away, and wait until it is back."""
    proxy.shut()
    await _until(lambda: [notice for notice in notices if notice.kind == "disconnected"])
    service.publish(*payloads)
    proxy.open()
    await _until(lambda: [notice for notice in notices if notice.kind == "reconnected"])


# ---- what comes ----


async def test_an_event_says_where_it_is_from(shared: Shared) -> None:
    redis_server, daemon = shared
    one, other = Stamping(redis_server, "ai_stream:where"), Stamping(redis_server, "alerts:where")
    async with subscribe(daemon.url, [one.channel, other.channel, "plain:where"]) as events:
        assert set(events.positions) == {one.channel, other.channel}
        one.publish(b'{"type":"a"}', b"{}")
        other.publish(b"[]")
        with trio.fail_after(BOUND_SECONDS):
            got = [await anext(events) for _ in range(3)]
        redis_server.publish("plain:where", b'{"type":"b"}')
        with trio.fail_after(BOUND_SECONDS):
            got.append(await anext(events))
    first, second = one.positions()
    (third,) = other.positions()
    assert sorted((event.channel, event.position, event.raw, event.type) for event in got[:3]) == [
        (one.channel, first, '{"type":"a"}', "a"),
        (one.channel, second, "{}", ""),
        (other.channel, third, "[]", ""),
    ]
    assert (got[3].channel, got[3].position, got[3].raw, got[3].type) == ("plain:where", None, '{"type":"b"}', "b")
    assert events.positions == {one.channel: second, other.channel: third}


async def test_an_event_is_as_it_was_published(shared: Shared) -> None:
    redis_server, daemon = shared
    service = Stamping(redis_server, "ai_stream:exact")
    payloads = [
        '{"type": "a",\r\n  "n": 1.50, "n": 2 } ',
        '{"channel":"x","position":"1:2:3","event":{"event":1}}',
        '{"type":"gap","channel":"ai_stream:exact","reason":"trimmed","from":null,"to":"1:2:3"}',
        '{"type":"subscribed","name":"ai_stream:exact","success":true}',
        '{"type":"error","code":"upstream_refused"}',
        '"\\ud800"',
        '"é\U0001f680}"',
        "null",
        "[" * 400 + "]" * 400,
    ]
    async with subscribe(daemon.url, [service.channel]) as events:
        service.publish(*(payload.encode() for payload in payloads), b"no json")
        assert await _take(events, len(payloads) + 1) == [*payloads, '"no json"']


# ---- a connection that is cut ----


async def test_what_was_published_while_it_was_away_comes_once_and_in_order(shared: Shared) -> None:
    redis_server, daemon = shared
    service = Stamping(redis_server, "ai_stream:cut")
    notices: list[Notice] = []
    async with proxy_to(daemon.port) as proxy:
        async with subscribe(proxy.url, [service.channel], on_notice=notices.append) as events:
            service.publish(*_numbered(1, 3))
            assert await _take(events, 2) == _texts(_numbered(1, 2))
            await _cut_and_publish(proxy, notices, service, _numbered(4, 600))
            service.publish(*_numbered(601, 602))
            assert await _take(events, 600) == _texts(_numbered(3, 602))
            assert _told(notices) == [("disconnected", False, None), ("reconnected", True, None)]
            assert notices[-1].text == RECOVERED
            assert notices[-1].seconds > 0
            assert events.statistics() == Statistics(602, 0, 1, 1, {})


async def test_many_cuts_of_many_channels(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection is cut while it is sent what is being published."""
    monkeypatch.setattr(subscription, "BACKOFF_MAX_SECONDS", 0.05)
    redis_server, daemon = shared
    services = [Stamping(redis_server, f"ai_stream:many{number}") for number in range(4)]
    notices: list[Notice] = []
    names = [service.channel for service in services]
    cuts, burst = 5, 15

    def publish(first: int) -> None:
        for number in range(first, first + burst):
            for service in services:
                service.publish(*_numbered(number, number))

    got: dict[str | None, list[str]] = {name: [] for name in names}
    async with proxy_to(daemon.port) as proxy:
        async with subscribe(proxy.url, names, on_notice=notices.append) as events:
            with trio.fail_after(BOUND_SECONDS):
                for cut in range(cuts):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(trio.to_thread.run_sync, publish, 1 + cut * burst)
                        event = await anext(events)
                        got[event.channel].append(event.raw)
                        proxy.cut()
                    while events.statistics().reconnects <= cut:
                        await trio.sleep(0.005)
                for _ in range(cuts * burst * len(names) - cuts):
                    event = await anext(events)
                    got[event.channel].append(event.raw)
            assert events.statistics() == Statistics(cuts * burst * len(names), 0, cuts, cuts, {})
    assert got == {name: _texts(_numbered(1, cuts * burst)) for name in names}


async def test_a_slow_consumer_loses_nothing(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event that waits for room in the buffer when the connection breaks comes again."""
    redis_server, daemon = shared
    monkeypatch.setattr(subscription, "BUFFER_CHARACTERS", 100_000)
    service = Stamping(redis_server, "ai_stream:slow")
    notices: list[Notice] = []
    payloads = [json.dumps({"n": n, "fill": "x" * 50_000}).encode() for n in range(100)]
    async with proxy_to(daemon.port) as proxy:
        async with subscribe(proxy.url, [service.channel], on_notice=notices.append) as events:
            service.publish(*payloads)
            await _until(lambda: events._characters > 100_000)
            proxy.cut()
            assert await _take(events, 100) == _texts(payloads)
            assert _told(notices) == [("disconnected", False, None), ("reconnected", True, None)]


async def test_what_is_trimmed_is_a_gap(shared: Shared) -> None:
    redis_server, daemon = shared
    service, other = Stamping(redis_server, "alerts:trim"), Stamping(redis_server, "ai_stream:trim")
    notices: list[Notice] = []
    async with proxy_to(daemon.port) as proxy:
        async with subscribe(proxy.url, [service.channel, other.channel], on_notice=notices.append) as events:
            service.publish(*_numbered(1, 3))
            assert await _take(events, 3) == _texts(_numbered(1, 3))
            where = events.positions
            await _cut_and_publish(proxy, notices, service, _numbered(4, 20))
            assert await _take(events, 5) == _texts(_numbered(16, 20))
            await _until(lambda: len(_told(notices)) == 3)
            kept = service.positions()
            epoch = kept[0].partition(":")[0]
            notice = next(notice for notice in notices if notice.gap)
            gap = notice.gap
            assert gap is not None
            assert gap == Gap(service.channel, "trimmed", where[service.channel], f"{epoch}:15:0", gap.timestamp)
            assert isinstance(gap.timestamp, str)
            assert notice.text == (
                "events may be missing on alerts:trim: trimmed: "
                "what was missed is longer, or longer ago, than the history that is kept"
            )
            back = next(notice for notice in notices if notice.kind == "reconnected")
            assert (back.text, back.recovered) == ("subscribed again; events may be missing on alerts:trim", False)
            assert events.statistics() == Statistics(8, 0, 1, 0, {"trimmed": 1})
            assert events.positions == {**where, service.channel: kept[-1]}
            proxy.cut()  # the gap is behind it
            await _until(lambda: events.statistics() == Statistics(8, 0, 2, 1, {"trimmed": 1}))
            assert notices[-1].text == RECOVERED


async def test_a_channel_without_history_has_a_gap_after_each_cut(shared: Shared) -> None:
    _, daemon = shared
    notices: list[Notice] = []
    async with proxy_to(daemon.port) as proxy:
        async with subscribe(proxy.url, ["plain:gap", "alerts:gap"], on_notice=notices.append) as events:
            proxy.cut()
            await _until(lambda: events.statistics().reconnects == 1)
            proxy.cut()
            await _until(lambda: events.statistics().reconnects == 2)
            gap = Gap("plain:gap", "no_history", None, None)
            once = [("disconnected", False, None), ("gap", False, gap), ("reconnected", False, None)]
            assert _told(notices) == once * 2
            assert events.statistics() == Statistics(0, 0, 2, 0, {"no_history": 2})


# ---- a stored position ----


async def test_a_stored_position_is_gone_on_from(shared: Shared) -> None:
    redis_server, daemon = shared
    service, other = Stamping(redis_server, "ai_stream:stored"), Stamping(redis_server, "ai_stream:other")
    notices: list[Notice] = []
    async with subscribe(daemon.url, [service.channel]) as events:
        service.publish(*_numbered(1, 5))
        await _take(events, 2)
        await _until(lambda: events.statistics().waiting == 3)
        where = events.positions  # what the consumer has yet to take is not in it
    assert where == {service.channel: service.positions()[1]}
    other.publish(b"{}")
    service.publish(*_numbered(6, 7))
    async with subscribe(daemon.url, [service.channel, other.channel], since=where, on_notice=notices.append) as events:
        assert await _take(events, 5) == _texts(_numbered(3, 7))
        assert notices == []
        assert events.positions == {service.channel: service.positions()[-1], other.channel: other.positions()[-1]}


async def test_a_quiet_channels_position_can_be_stored(shared: Shared) -> None:
    redis_server, daemon = shared
    service = Stamping(redis_server, "ai_stream:quiet")
    async with subscribe(daemon.url, [service.channel]) as events:
        where = events.positions
    service.publish(*_numbered(1, 2))
    async with subscribe(daemon.url, [service.channel], since=where) as events:
        assert await _take(events, 2) == _texts(_numbered(1, 2))


@pytest.mark.parametrize(
    ("channel", "position", "reason"),
    [
        ("ai_stream:foreign", "not a position", "unknown_position"),
        ("ai_stream:foreign", "7:1:1", "epoch_changed"),
        ("plain:foreign", "7:1:1", "no_history"),
    ],
)
async def test_a_foreign_position_is_a_gap(shared: Shared, channel: str, position: str, reason: str) -> None:
    _, daemon = shared
    notices: list[Notice] = []
    async with subscribe(daemon.url, [channel], since={channel: position}, on_notice=notices.append) as events:
        await _until(lambda: notices)
        assert [(notice.kind, notice.gap and notice.gap.reason) for notice in notices] == [("gap", reason)]
        # What is behind the gap is known now, where anything is.
        assert (events.positions[channel] == position) == (reason == "no_history")


@pytest.mark.parametrize(
    ("since", "says"),
    [
        ({"b": "1:2:3"}, "a position for b, which is not subscribed to; name it among the channels"),
        ({"a": ""}, "not a position for a: ''; take one as the broker gave it"),
        ({"a": None}, "not a position for a: None; take one as the broker gave it"),
        ({"a b": "1:2:3"}, "channel 'a b' has a character that is not allowed"),
    ],
)
def test_what_cannot_be_a_position_is_refused(since: dict[str, str], says: str) -> None:
    with pytest.raises(SubscriberError) as caught:
        subscribe("http://127.0.0.1:1", ["a"], since=since)
    assert says in str(caught.value)


# ---- a daemon and a Redis that go away ----


async def test_a_restarted_daemon_goes_on_where_the_other_was(
    redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "BACKOFF_MAX_SECONDS", 0.1)
    first = start_daemon(redis_server.url)
    services = [Stamping(redis_server, name) for name in ("ai_stream:1", "alerts:1")]
    names = [service.channel for service in services]
    notices: list[Notice] = []
    got: dict[str | None, list[str]] = {name: [] for name in names}

    async def take(count: int) -> None:
        with trio.fail_after(BOUND_SECONDS):
            for _ in range(count):
                event = await anext(events)
                got[event.channel].append(event.raw)

    async with subscribe(first.url, names, on_notice=notices.append) as events:
        for service in services:
            service.publish(*_numbered(1, 3))
        await take(6)
        await trio.to_thread.run_sync(first.stop, signal.SIGKILL)
        for service in services:
            service.publish(*_numbered(4, 60))
        listen = f"127.0.0.1:{first.port}"
        second = DaemonProcess(redis_server.url, tmp_path / "second.log", FLAGS, listen=listen)
        await trio.to_thread.run_sync(second.start)
        try:
            await take(2 * 57)
            for service in services:
                service.publish(*_numbered(61, 61))
            await take(2)
        finally:
            await trio.to_thread.run_sync(second.stop)
    assert got == {name: _texts(_numbered(1, 61)) for name in names}
    assert _told(notices)[:2] == [("disconnected", False, None), ("reconnected", True, None)]
    assert errors_of(second) == []


async def test_a_redis_that_lost_its_history_is_a_gap(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    service = Stamping(redis_server, "ai_stream:1")
    notices: list[Notice] = []
    async with subscribe(daemon.url, [service.channel], on_notice=notices.append) as events:
        service.publish(*_numbered(1, 3))
        assert await _take(events, 3) == _texts(_numbered(1, 3))
        was = events.positions[service.channel]
        await trio.to_thread.run_sync(redis_server.kill)
        await trio.to_thread.run_sync(redis_server.start)
        await _until(lambda: notices)
        service.publish(b'{"n":4}')
        assert await _take(events, 1) == ['{"n":4}']
        # The connection to the broker has never been lost.
        (notice,) = notices
        assert (notice.kind, notice.seconds) == ("gap", 0.0)
        assert notice.gap is not None
        assert (notice.gap.reason, notice.gap.begin) == ("epoch_changed", was)
