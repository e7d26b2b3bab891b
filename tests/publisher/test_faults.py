"""Redis away, frozen, restarted, refusing: no publish takes longer than it may, and every loss is told."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from broker.errors import ConfigError, PublishError
from broker.publisher import AsyncPublisher, Publisher, TrioPublisher
from tests.actors.redis_server import RedisServer, free_port
from tests.publisher.surfaces import REAL, RedisEar, Surface

_TIMEOUT_SECONDS = 0.2
# What a slow machine may add to a deadline.
_SLACK_SECONDS = 0.25
# Long enough for a hundred that are not tried, on such a machine.
_PAUSE_SECONDS = 1.0


@pytest.fixture(params=list(REAL))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def _surface(kind: str, url: str, *, pause_seconds: float = 0.1) -> Iterator[Surface]:
    surface = REAL[kind](url, timeout_seconds=_TIMEOUT_SECONDS, pause_seconds=pause_seconds)
    # Loading redis-py is outside of the timeout, and must be outside of what is measured.
    surface.publish_many([])
    yield surface
    surface.end()


def _timed(surface: Surface, *arguments: object) -> tuple[object, float]:
    begin = time.monotonic()
    result = surface.publish(*arguments)
    return result, time.monotonic() - begin


def _until_published(surface: Surface) -> int:
    """Publish until Redis takes one; how often it did not."""
    deadline = time.monotonic() + 5
    misses = 0
    while not surface.publish("a", "1"):
        assert time.monotonic() < deadline
        misses += 1
        time.sleep(0.02)
    return misses


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "broker.publisher"]


def test_a_frozen_redis_costs_one_timeout_and_then_nothing(
    kind: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with _surface(kind, redis_server.url, pause_seconds=_PAUSE_SECONDS) as surface:
        assert surface.publish("a", "1") is True
        redis_server.freeze()
        result, seconds = _timed(surface, "a", "2")
        assert result is False
        assert _TIMEOUT_SECONDS * 0.9 < seconds < _TIMEOUT_SECONDS + _SLACK_SECONDS
        begin = time.monotonic()
        assert [surface.publish("a", "3") for _ in range(100)] == [False] * 100
        assert time.monotonic() - begin < _PAUSE_SECONDS
        assert surface.statistics().is_paused
        assert surface.statistics().lost == {"unanswered": 1, "paused": 100}
        redis_server.thaw()
        misses = _until_published(surface)
        assert not surface.statistics().is_paused
        assert surface.statistics().published == 2
    begun, ended = _lines(caplog)
    where = f"Redis at {re.escape(redis_server.url)}"
    assert re.fullmatch(f"events are being lost, a first: {where} did not answer: .*", begun)
    url = re.escape(redis_server.url)
    assert re.fullmatch(
        rf"events reach {url} again; {101 + misses} were lost in \d\.\d s \(paused {100 + misses}, unanswered 1\)",
        ended,
    )
    assert {record.levelno for record in caplog.records if record.name == "broker.publisher"} == {logging.WARNING}


def test_a_redis_that_freezes_while_connecting_costs_one_timeout(kind: str, redis_server: RedisServer) -> None:
    redis_server.freeze()
    # A password and a database are two more round trips; none of them may add its own timeout.
    with _surface(kind, redis_server.url.replace("//", "//:password@").replace("/0", "/1")) as surface:
        result, seconds = _timed(surface, "a", "1")
        assert result is False
        assert seconds < _TIMEOUT_SECONDS + _SLACK_SECONDS
        assert surface.statistics().lost == {"unreachable": 1}
        assert "password" not in str(surface.statistics().last_error)


@pytest.mark.parametrize("pauses", [[0.1] * 40, [0.5]], ids=["by the byte", "late and then no more"])
def test_a_peer_that_answers_in_pieces_has_no_more_time(kind: str, pauses: list[float]) -> None:
    """Each byte comes within any single read's timeout, the answer never does."""
    with socket.create_server(("127.0.0.1", 0)) as listener, _dripping(listener, pauses):
        surface = REAL[kind](f"redis://127.0.0.1:{listener.getsockname()[1]}/0", timeout_seconds=0.6)
        surface.publish_many([])
        result, seconds = _timed(surface, "a", "1")
        assert result is False
        assert seconds < 0.6 + _SLACK_SECONDS
        assert surface.statistics().lost == {"unanswered": 1}
        surface.end()


@contextmanager
def _dripping(listener: socket.socket, pauses: list[float]) -> Iterator[None]:
    def drip() -> None:
        peer, _ = listener.accept()
        with peer:
            for seconds in pauses:
                if stop.wait(seconds):
                    return
                try:
                    peer.send(b"+")
                except OSError:
                    return
            stop.wait(10)

    stop = threading.Event()
    thread = threading.Thread(target=drip)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_redis_that_is_not_there(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    with _surface(kind, url) as surface:
        assert surface.publish("a", "1") is False
        with pytest.raises(PublishError) as caught:
            surface.publish("a:1", "1", confirm=True)
        with pytest.raises(PublishError, match=r"\(0 of 2 events were taken\)$"):
            surface.publish_many([("a:1", "1"), ("b", "1")], confirm=True)
        assert surface.statistics().lost == {"unreachable": 4}
        assert surface.statistics().last_error is not None
    shown = url.replace("secret", "***")
    assert str(caught.value).startswith(f"a:1: Redis at {shown} cannot be reached: Error 111 connecting to ")
    begun, ended = _lines(caplog)
    assert begun.startswith(f"events are being lost, a first: Redis at {shown} cannot be reached: ")
    assert re.fullmatch(rf"closed while {re.escape(shown)} was away; 1 events were lost in \d\.\d s", ended)


def test_what_may_have_arrived_is_not_called_lost(kind: str, redis_server: RedisServer) -> None:
    with _surface(kind, redis_server.url) as surface:
        assert surface.publish("a", "1") is True
        redis_server.freeze()
        with pytest.raises(PublishError, match=r"did not answer: .* \(it may have arrived\)$"):
            surface.publish("a", "1", confirm=True)
        redis_server.thaw()
        _until_published(surface)
        redis_server.freeze()
        with pytest.raises(PublishError, match=r"\(0 of 2 events were confirmed; the others may have arrived\)$"):
            surface.publish_many([("a", "1"), ("a", "2")], confirm=True)
        redis_server.thaw()


def test_confirm_asks_redis_also_in_the_pause(kind: str, redis_server: RedisServer) -> None:
    redis_server.kill()
    with _surface(kind, redis_server.url, pause_seconds=60) as surface:
        assert surface.publish("a", "1") is False
        redis_server.start()
        assert surface.publish("a", "1") is False
        assert surface.publish("a", "1", confirm=True) == 0
        assert surface.publish("a", "1") is True
        assert surface.statistics().lost == {"unreachable": 1, "paused": 1}


def test_the_end_of_a_job_asks_redis_also_in_the_pause(kind: str, redis_server: RedisServer) -> None:
    with _surface(kind, redis_server.url, pause_seconds=60) as surface:
        ears: list[RedisEar] = []

        def come_back() -> None:
            redis_server.start()
            ears.append(RedisEar(redis_server.client()))

        redis_server.kill()
        surface.run_job("42", [("progress", 0.5), ("call", come_back), ("progress", 0.6)])
        # Perhaps behind the progress, if that was held back.
        assert json.loads(ears[0].hear(None)[-1][1])["status"] == "completed"
        ears[0].close()
        assert surface.statistics().lost["unreachable"] >= 1


def test_a_restart_between_two_events_costs_none(kind: str, redis_server: RedisServer) -> None:
    with _surface(kind, redis_server.url) as surface:
        assert surface.publish("a", "1") is True
        redis_server.kill()
        redis_server.start()
        assert surface.publish("a", "2", confirm=True) == 0
        assert surface.statistics().lost == {}


def test_nothing_is_published_twice_by_a_redis_that_was_frozen(kind: str, redis_server: RedisServer) -> None:
    with _surface(kind, redis_server.url) as surface:
        assert surface.publish("a", "1") is True
        with redis_server.client() as client:
            ear = RedisEar(client)
            redis_server.freeze()
            assert surface.publish("a", "2") is False
            redis_server.thaw()
            _until_published(surface)
            heard = [payload for _, payload in ear.hear(None)]
            ear.close()
    # 2 was sent and not answered: it may arrive, once.
    assert heard in ([b"1"], [b"2", b"1"])


def test_a_refusal_is_told_and_does_not_pause(
    kind: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "service", "on", ">pw", "+publish", "resetchannels", "&ok:*")
    url = redis_server.url.replace("//", "//service:pw@")
    with _surface(kind, url) as surface:
        assert surface.publish("no:1", "1") is False
        assert not surface.statistics().is_paused
        assert surface.publish("ok:1", "1") is True
        assert surface.publish_many([("ok:1", "1"), ("no:1", "2"), ("ok:1", "3")]) is False
        with pytest.raises(PublishError, match=r"^no:1: Redis at .* refused: .* \(2 of 3 events were taken\)$"):
            surface.publish_many([("ok:1", "1"), ("no:1", "2"), ("ok:1", "3")], confirm=True)
        assert surface.statistics().published == 5
        assert surface.statistics().lost == {"refused": 3}
    first, plain, rest = _lines(caplog)
    # It may publish on some channels, and run no script.
    assert re.fullmatch(r"events are published plain, and kept only while a daemon runs: Redis at .*evalsha.*", plain)
    assert re.fullmatch(r"an event for no:1 was not published: Redis at .*service:\*\*\*@.* refused: .*", first)
    assert rest == "closed; 1 more events were lost: refused"


def test_a_wrong_password_is_told_without_it(kind: str, redis_server: RedisServer) -> None:
    with _surface(kind, redis_server.url.replace("//", "//service:hunter2@")) as surface:
        with pytest.raises(PublishError, match="refuses the connection") as caught:
            surface.publish("a", "1", confirm=True)
        assert "hunter2" not in str(caught.value)


def test_connecting_says_no_more_than_it_must(kind: str, redis_server: RedisServer) -> None:
    with redis_server.client() as client, client.monitor() as monitor:
        with _surface(kind, redis_server.url) as surface:
            surface.publish("a", "1")
            surface.publish("a", "2")
        # What a script does is shown behind it; a Redis that does not know it is given the whole, once.
        told = [monitor.next_command() for _ in range(7)]
        asked = [each["command"].split(" ", 1)[0] for each in told if each["client_type"] != "lua"]
        done = [each["command"] for each in told if each["client_type"] == "lua"]
        assert asked == ["EVALSHA", "EVAL", "EVALSHA"]
        assert done == ["HGET broker:history:types a", "PUBLISH a 1", "HGET broker:history:types a", "PUBLISH a 2"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1", "argument url: 'http://127.0.0.1' must start with redis://, rediss:// or unix://"),
        ("redis://host:port/0", "argument url: 'redis://host:port/0' has no usable host and port"),
        ("", "argument url: is empty"),
    ],
)
def test_a_malformed_url_is_said_at_once(url: str, said: str) -> None:
    for publisher in (Publisher, AsyncPublisher, TrioPublisher):
        with pytest.raises(ConfigError) as caught:
            publisher(url, timeout_seconds=0)
        assert str(caught.value).startswith(said)
        assert str(caught.value).endswith("argument timeout_seconds: 0 is not a time of at least 0.01 s")


def test_a_url_that_only_redis_py_can_judge_is_a_loss(kind: str) -> None:
    with _surface(kind, "redis://127.0.0.1:1/0?colour=red") as surface:
        assert surface.publish("a", "1") is False
        assert "has a URL that cannot be used" in str(surface.statistics().last_error)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER_REDIS_URL", "REDIS_URL", "BROKER_REDIS_CHANNEL_PREFIX", "BROKER_EMBEDDED_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (Publisher().destination.url, Publisher().destination.channel_prefix) == ("redis://127.0.0.1:6399/0", "")
    monkeypatch.setenv("REDIS_URL", "redis://shared/0")
    assert AsyncPublisher().destination.url == "redis://shared/0"
    monkeypatch.setenv("BROKER_REDIS_URL", "redis://ours/0")
    monkeypatch.setenv("BROKER_REDIS_CHANNEL_PREFIX", "app:")
    assert (TrioPublisher().destination.url, TrioPublisher().destination.channel_prefix) == ("redis://ours/0", "app:")
    assert Publisher("redis://mine/0", channel_prefix="").destination.channel_prefix == ""


def test_the_prefix_is_put_in_front(kind: str, redis_server: RedisServer) -> None:
    ear = RedisEar(redis_server.client())
    surface = REAL[kind](redis_server.url, channel_prefix="app.")
    assert surface.publish("a:1", "1", confirm=True) == 1
    assert ear.hear(1) == [("app.a:1", b"1")]
    surface.end()
    ear.close()


def test_more_threads_than_connections_wait_their_turn(redis_server: RedisServer) -> None:
    with Publisher(redis_server.url, connections_max=2, timeout_seconds=5) as publisher:
        results: list[bool] = []
        threads = [
            threading.Thread(target=lambda: results.extend(publisher.publish("a", "1") for _ in range(50)))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert results == [True] * 500
        assert publisher.statistics().published == 500
        with redis_server.client() as client:
            clients = client.client_list()
        assert len(clients) <= 2 + 1


def test_who_waits_for_a_connection_waits_no_longer_than_the_timeout(redis_server: RedisServer) -> None:
    with Publisher(redis_server.url, connections_max=1, timeout_seconds=_TIMEOUT_SECONDS) as publisher:
        publisher.publish("a", "1")
        redis_server.freeze()
        seconds: list[float] = []

        def publish() -> None:
            begin = time.monotonic()
            publisher.publish("a", "2")
            seconds.append(time.monotonic() - begin)

        threads = [threading.Thread(target=publish) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        redis_server.thaw()
        assert max(seconds) < _TIMEOUT_SECONDS + _SLACK_SECONDS
        assert publisher.statistics().lost_total == 5


def test_asyncio_cancellation_is_counted_and_leaves_no_answer_behind(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with AsyncPublisher(redis_server.url, timeout_seconds=5) as publisher:
            assert await publisher.publish("a", "1")
            redis_server.freeze()
            task = asyncio.create_task(publisher.publish("a", "2"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            redis_server.thaw()
            assert await publisher.publish_many([("a", "3"), ("a", "4")], confirm=True) == [0, 0]
            assert publisher.statistics().lost == {"cancelled": 1}

    asyncio.run(main())


async def test_trio_cancellation_does_not_wait_and_every_event_is_counted_once(redis_server: RedisServer) -> None:
    async with TrioPublisher(redis_server.url, timeout_seconds=_TIMEOUT_SECONDS, threads_max=2) as publisher:
        assert await publisher.publish("a", "1")
        redis_server.freeze()
        begin = time.monotonic()
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(publisher.publish, "a", "2")
        assert time.monotonic() - begin < 0.2
        # Two are in threads, which end by themselves; eight never began.
        with trio.fail_after(5):
            while publisher.statistics().lost_total < 10:
                await trio.sleep(0.01)
        assert publisher.statistics().lost == {"cancelled": 8, "unanswered": 2}
        redis_server.thaw()


async def test_a_cancelled_trio_job_says_that_it_failed(redis_server: RedisServer) -> None:
    ear = RedisEar(redis_server.client())
    async with TrioPublisher(redis_server.url) as publisher:
        with trio.CancelScope() as scope:
            async with publisher.job("42") as job:
                await job.start()
                scope.cancel()
                await trio.sleep_forever()
    assert [b'"failed: Cancelled"' in payload for _, payload in ear.hear(3)] == [False, False, True]
    ear.close()


def test_a_cancelled_asyncio_job_says_that_it_failed_and_leaves_no_task(redis_server: RedisServer) -> None:
    async def main() -> None:
        async def work() -> None:
            async with publisher.job("42", per_second=1) as job:
                await job.start()
                await job.progress(0.5)
                held.set()
                await asyncio.sleep(60)

        async with AsyncPublisher(redis_server.url) as publisher:
            held = asyncio.Event()
            task = asyncio.create_task(work())
            await held.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    ear = RedisEar(redis_server.client())
    asyncio.run(main())
    assert [b'"failed: CancelledError"' in payload for _, payload in ear.hear(4)] == [False, False, False, True]
    ear.close()


def test_one_async_publisher_serves_several_loops_and_leaves_no_connection(redis_server: RedisServer) -> None:
    publisher = AsyncPublisher(redis_server.url)
    for _ in range(3):
        assert asyncio.run(publisher.publish("a", "1", confirm=True)) == 0
    with redis_server.client() as client:
        # Redis may need a moment to notice.
        deadline = time.monotonic() + 5
        while len(client.client_list()) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert publisher.statistics().published == 3
