"""Evaluations through a real daemon and a real worker: asked for, watched, left and come back to."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable

import httpx
import httpx_sse
import websockets.sync.client

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.actors.talking_worker import TalkingWorker
from tests.actors.watcher import PATH, greeting, pieces, said, watching


def test_curl_reads_a_whole_evaluation(daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]) -> None:
    worker = start_worker()
    url = f"{daemon.url}{PATH}?videoUrl=https://v/1&transcript=say%3D2&features=%7B%22a%22%3A1%7D&userId=u"
    done = subprocess.run(["curl", "-sN", "--max-time", "20", url], capture_output=True, text=True, check=True)
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in done.stdout.strip().split("\n\n")]
    id = blocks[0]["id"].removesuffix(":0")
    assert [block["id"] for block in blocks] == [f"{id}:{offset}" for offset in range(4)]
    assert [block.get("event") for block in blocks] == [None, None, None, "complete"]
    assert [json.loads(block["data"])["type"] for block in blocks] == [
        "connected", "council_score_stream", "council_score_stream", "complete",
    ]  # fmt: skip
    parameters = {"videoUrl": "https://v/1", "transcript": "say=2", "features": {"a": 1}}
    assert json.loads(blocks[3]["data"])["data"] == {"pid": worker.process.pid, "parameters": parameters}


def test_a_transcript_longer_than_a_url_goes_by_post(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    start_worker()
    body = {"videoUrl": "https://v/1", "transcript": "say=2 " + "word " * 100_000, "userId": "u7"}
    with (
        httpx.Client(trust_env=False, timeout=20) as http,
        httpx_sse.connect_sse(http, "POST", f"{daemon.url}{PATH}", json=body) as source,
    ):
        events = source.iter_sse()
        greeting(events)
        assert daemon.stats()["sse"]["clients"][0]["userId"] == "u7"
        assert said(events) == [*pieces(2), "complete"]


def test_the_work_is_cancelled_when_nobody_watches_any_more(
    hasty: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    worker = start_worker()
    with watching(hasty, "say=100 every=0.1") as events:
        id = greeting(events)
        last = next(events).id
    worker.await_line("cancelled")
    with watching(hasty, last=last) as events:
        assert greeting(events) == id
        found = said(events)
    assert found[-1] == "cancelled: nobody watched the evaluation any more"
    assert found[:-1] == pieces(len(found), 1)


def test_who_comes_back_in_time_goes_on_where_it_left_off(
    redis_server: RedisServer,
    start_daemon: Callable[..., DaemonProcess],
    start_worker: Callable[..., TalkingWorker],
) -> None:
    """On the same daemon and on another, also when the first was killed."""
    first, second = start_daemon(redis_server.url), start_daemon(redis_server.url)
    worker = start_worker()
    with watching(first, "say=30 every=0.1") as events:
        id = greeting(events)
        before = [next(events) for _ in range(3)]
    with watching(first, last=before[-1].id) as events:
        assert greeting(events) == id
        before += [next(events) for _ in range(3)]
        first.stop(signal.SIGKILL)
    with watching(second, last=before[-1].id) as events:
        assert greeting(events) == id
        assert said(events) == [*pieces(30, 6), "complete"]
    assert [event.json()["thinking"] for event in before] == [f"piece {number}" for number in range(6)]
    worker.await_line("took 1")
    worker.await_line("done")


def test_a_second_browser_watches_by_the_id_and_a_websocket_by_the_channel(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    worker = start_worker()
    with watching(daemon, "say=8 every=0.1") as events:
        id = greeting(events)
        with websockets.sync.client.connect(daemon.ws_url) as websocket:
            websocket.send(json.dumps({"type": "subscribe", "channel": f"council_score:{id}"}))
            for _ in range(4):
                next(events)
            with watching(daemon, id=id) as others:
                assert greeting(others) == id
                assert said(others) == [*pieces(8), "complete"]
            assert said(events) == [*pieces(8, 4), "complete"]
            texts = [json.loads(websocket.recv(timeout=5)) for _ in range(4)]
            assert [text["type"] for text in texts[:2]] == ["connected", "subscribed"]
            assert {text["type"] for text in texts[2:]} == {"council_score_stream"}
    worker.await_line("took 1")


def test_a_finished_evaluation_can_be_read_again_and_is_not_begun_again(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    worker = start_worker()
    with watching(daemon, "say=3") as events:
        id = greeting(events)
        ids = [event.id for event in events]
    with watching(daemon, last=ids[1]) as events:
        assert greeting(events) == id
        assert said(events) == ["2", "complete"]
    with httpx.Client(trust_env=False) as http:
        url = f"{daemon.url}{PATH}?videoUrl=a&transcript=say"
        assert http.get(url, headers={"Last-Event-ID": ids[-1]}).status_code == 204
        assert http.get(f"{daemon.url}{PATH}/{'0' * 32}").status_code == 404
    worker.await_line("took 1")
    worker.kill()
    assert worker.rest() == ["done"]


def test_without_a_worker_the_watcher_is_told_so(hasty: DaemonProcess, redis_server: RedisServer) -> None:
    with watching(hasty, "say=1") as events:
        greeting(events)
        assert said(events) == ["no evaluation worker is running: none took the request within 2 s"]
    with redis_server.client() as client:
        assert client.xlen("broker:{council_score}:requests") == 0


def test_who_waits_for_a_busy_worker_waits_longer(
    redis_server: RedisServer,
    start_daemon: Callable[..., DaemonProcess],
    start_worker: Callable[..., TalkingWorker],
) -> None:
    flags = ("--evaluations-start-seconds", "1", "--evaluations-queue-seconds", "3")
    daemon = start_daemon(redis_server.url, *flags)
    start_worker(concurrency=1)
    with watching(daemon, "say=20 every=0.1") as first:
        greeting(first)
        next(first)
        with watching(daemon, "say=50 every=0.1") as second:
            greeting(second)
            assert said(first) == [*pieces(20, 1), "complete"]
            assert next(second).json()["thinking"] == "piece 0"
            with watching(daemon, "say=1") as third:
                greeting(third)
                assert said(third) == ["all evaluation workers are busy: none took the request within 3 s"]


def test_as_many_as_may_wait_may_wait(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon(redis_server.url, "--evaluations-pending-max", "1")
    with watching(daemon, "say=1") as events:
        greeting(events)
        why = "1 evaluations are waiting or running, as many as may; try again later"
        with watching(daemon, "say=1") as others:
            assert said(others) == [why]
        with httpx.Client(trust_env=False) as http:
            refused = http.post(f"{daemon.url}{PATH}", json={"videoUrl": "a", "transcript": "b"})
            assert (refused.status_code, refused.headers["Retry-After"], refused.json()["detail"]) == (503, "5", why)
        assert daemon.stats()["evaluations"] == {
            "started": {"council_score": 1},
            "refusedPending": {"council_score": 2},
        }


def test_a_handler_that_fails_is_told_without_its_secrets(
    daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    start_worker()
    with watching(daemon, "say=1 fail") as events:
        greeting(events)
        assert said(events) == ["0", "the model said no"]
    with watching(daemon, "say=1 break") as events:
        greeting(events)
        assert said(events) == ["0", "internal error of the evaluation worker; it is in its log"]


def test_nothing_of_a_finished_evaluation_stays_but_its_answer(
    redis_server: RedisServer, daemon: DaemonProcess, start_worker: Callable[..., TalkingWorker]
) -> None:
    worker = start_worker()
    with watching(daemon, "say=3") as events:
        id = greeting(events)
        list(events)
    worker.end(signal.SIGTERM)
    with redis_server.client() as client:
        # The daemon keeps history, and a lease among the nodes.
        others = (b"broker:history:", b"broker:nodes")
        assert sorted(key for key in client.keys("*") if not key.startswith(others)) == [
            *(f"broker:{{council_score}}:{name}".encode() for name in (id, f"{id}:events", "pulse", "requests")),
            b"broker:{creative_evaluation}:pulse",
        ]
        assert client.xlen("broker:{council_score}:requests") == 0
        assert client.xinfo_consumers("broker:{council_score}:requests", "workers") == []
        assert 3500 < client.ttl(f"broker:{{council_score}}:{id}") <= 3600
        assert 3500 < client.ttl(f"broker:{{council_score}}:{id}:events") <= 3600
    assert daemon.stats()["delivery"]["endings"] == {"complete": 1}
