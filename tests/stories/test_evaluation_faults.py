"""Evaluations whose workers are killed, frozen and stopped, and whose Redis freezes or is emptied."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.talking_worker import TalkingWorker
from tests.actors.watcher import greeting, pieces, said, watching


def test_another_worker_takes_over_from_one_that_is_killed_and_the_watcher_is_told(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    first = start_worker(lease_seconds=3.0)
    with watching(daemon, "say=50 every=0.1") as events:
        greeting(events)
        assert next(events).json()["thinking"] == "piece 0"
        second = start_worker(lease_seconds=3.0)
        first.kill()
        found = said(events)
    at = found.index("evaluation_restarted")
    assert found[:at] == pieces(at + 1, 1)
    assert found[at + 1 :] == [*pieces(50), "complete"]
    assert second.await_line("took") == "took 2"


def test_a_second_death_ends_it(hasty: DaemonProcess, start_worker: Callable[..., TalkingWorker]) -> None:
    first = start_worker(lease_seconds=3.0)
    with watching(hasty, "say=100 every=0.1 always") as events:
        greeting(events)
        next(events)
        second = start_worker(lease_seconds=3.0)
        first.kill()
        second.await_line("took 2")
        third = start_worker(lease_seconds=3.0)
        second.kill()
        found = said(events)
    assert found[-1] == "the evaluation was given up: every worker that took it died"
    assert found.count("evaluation_restarted") == 1
    third.kill()
    assert third.rest() == []


def test_the_death_of_the_only_worker_is_told(hasty: DaemonProcess, start_worker: Callable[..., TalkingWorker]) -> None:
    worker = start_worker(lease_seconds=3.0)
    with watching(hasty, "say=100 every=0.1") as events:
        greeting(events)
        next(events)
        worker.kill()
        assert said(events)[-1] == "the evaluation's worker died, and no other took it over within 2 s"


def test_a_worker_that_was_frozen_says_nothing_after_another_took_over(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    first = start_worker(lease_seconds=3.0)
    with watching(daemon, "say=20 every=0.3") as events:
        id = greeting(events)
        next(events)
        start_worker(lease_seconds=3.0)
        first.process.send_signal(signal.SIGSTOP)
        found = []
        for event in events:
            if event.json()["type"] == "evaluation_restarted":
                first.process.send_signal(signal.SIGCONT)
                break
            found.append(event.json()["thinking"])
        assert said(events) == [*pieces(20), "complete"]
    first.await_line("cancelled")
    with watching(daemon, id=id) as events:
        greeting(events)
        assert said(events) == [*pieces(1 + len(found)), "evaluation_restarted", *pieces(20), "complete"]


def test_a_worker_that_is_stopped_gives_back_what_it_has_not_finished(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    first = start_worker(lease_seconds=60.0)
    with watching(daemon, "say=50 every=0.1") as events:
        greeting(events)
        next(events)
        start_worker(lease_seconds=60.0)
        first.end(signal.SIGTERM)
        found = said(events)
    at = found.index("evaluation_restarted")
    assert found[at + 1 :] == [*pieces(50), "complete"]


def test_a_worker_that_is_asked_to_finish_finishes(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    worker = start_worker()
    with watching(daemon, "say=5 every=0.1") as events:
        greeting(events)
        next(events)
        worker.process.send_signal(signal.SIGINT)
        assert said(events) == [*pieces(5, 1), "complete"]
    assert worker.process.wait(10) == 0


def test_a_redis_that_freezes_loses_and_doubles_nothing(
    redis_server: RedisServer, daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    """Longer than any deadline: every connection is given up and made again."""
    start_worker(lease_seconds=20.0)
    with watching(daemon, "say=30 every=0.05") as events:
        greeting(events)
        next(events)
        redis_server.freeze()
        wait_until(lambda: daemon.stats()["status"] == "degraded", seconds=20)
        redis_server.thaw()
        assert said(events) == [*pieces(30, 1), "complete"]


def test_a_redis_that_was_emptied_ends_it(
    redis_server: RedisServer, daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    worker = start_worker()
    with watching(daemon, "say=100 every=0.1") as events:
        greeting(events)
        next(events)
        with redis_server.client() as client:
            client.flushall()
        assert said(events)[-1] == "there is no such evaluation any more"
    worker.await_line("cancelled")
    with watching(daemon, "say=1") as events:
        greeting(events)
        assert said(events) == ["0", "complete"]


@pytest.fixture
def durable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that has what it confirmed when it comes back from kill -9."""
    server = RedisServer(tmp_path, ("--save", "", "--appendonly", "yes", "--appendfsync", "always"))
    server.start()
    yield server
    server.kill()


def test_a_redis_that_was_killed_and_came_back_cost_nobody_anything(
    durable_redis: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    """Away for longer than the grace time, a lease, and the time to start: for who watches, works and waits."""
    flags = ("--evaluations-start-seconds", "2", "--evaluations-grace-seconds", "2")
    daemon = start_daemon(durable_redis.url, *flags, "--redis-ping-timeout-seconds", "1")
    worker = TalkingWorker(durable_redis.url, lease_seconds=3.0, concurrency=1)
    worker.start()
    try:
        with watching(daemon, "say=20 every=0.2") as events, watching(daemon, "say=3") as waiting:
            greeting(events)
            greeting(waiting)
            next(events)
            durable_redis.kill()
            time.sleep(5)
            durable_redis.start()
            assert said(events) == [*pieces(20, 1), "complete"]
            assert said(waiting) == [*pieces(3), "complete"]
    finally:
        worker.close()


def test_a_redis_that_came_back_with_an_older_state_does_not_leave_watchers_hanging(
    redis_server: RedisServer, hasty: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    start_worker(lease_seconds=3.0)
    with watching(hasty, "say=40 every=0.1") as events:
        id = greeting(events)
        next(events)
        with redis_server.client() as client:
            names = [f"broker:{{council_score}}:{name}" for name in ("requests", id, f"{id}:events")]
            kept = {name: client.dump(name) for name in names}
            for _ in range(10):
                next(events)
            with client.pipeline() as pipe:
                pipe.delete(*names)
                for name, dump in kept.items():
                    pipe.restore(name, 0, dump)
                pipe.execute()
        found = said(events)
    # What the first run had said is void; the second says it all.
    assert found[found.index("evaluation_restarted") + 1 :] == [*pieces(40), "complete"]
