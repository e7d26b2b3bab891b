"""Server-Sent Events in the envelope of `broker.v1`: events say their channel and position, and `since` is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import httpx_sse
import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer

Blocks = Iterator[httpx_sse.ServerSentEvent]


@contextmanager
def stream(daemon: DaemonProcess, *channels: str, since: tuple[str, ...] = (), last_id: str = "") -> Iterator[Blocks]:
    query = [("protocol", "broker.v1"), *(("channel", name) for name in channels), *(("since", text) for text in since)]
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with httpx.Client(trust_env=False, timeout=10) as http:
        url = f"{daemon.url}/api/stream"
        with httpx_sse.connect_sse(http, "GET", url, params=query, headers=headers) as source:
            yield source.iter_sse()


def take(blocks: Blocks, count: int) -> list[tuple[str, Any]]:
    return [(block.event, json.loads(block.data)) for _, block in zip(range(count), blocks, strict=False)]


@pytest.fixture
def publish(daemon: DaemonProcess) -> Callable[[str, Any], None]:
    def publish(channel: str, event: Any) -> None:
        httpx.post(
            f"{daemon.url}/api/publish", json={"channel": channel, "event": event}, trust_env=False
        ).raise_for_status()

    return publish


def test_each_event_says_where_it_is_and_since_goes_on_from_there(
    daemon: DaemonProcess, publish: Callable[[str, Any], None]
) -> None:
    with stream(daemon, "job_progress:1", "alerts", "ai_stream:x") as blocks:
        ((_, connected),) = take(blocks, 1)
        assert connected["keepAliveMs"] == 15000
        starts = {start.pop("name"): start for start in connected["channels"]}
        assert [(name, start["recovered"], start["replay"]) for name, start in starts.items()] == [
            ("job_progress:1", False, 1),
            ("alerts", False, 0),
            ("ai_stream:x", False, 0),
        ]
        publish("alerts", {"n": 1})
        publish("job_progress:1", {"n": 2})
        publish("job_progress:1", {"n": 3})
        events = [event for _, event in take(blocks, 3)]
    assert [(event["channel"], event["event"]) for event in events] == [
        ("alerts", {"n": 1}),
        ("job_progress:1", {"n": 2}),
        ("job_progress:1", {"n": 3}),
    ]
    # From where the first was, on one channel; anew on the other, with what is replayed there.
    publish("alerts", {"n": 4})
    with stream(daemon, "alerts", "job_progress:1", since=(f"alerts,{events[0]['position']}",)) as blocks:
        ((_, connected),) = take(blocks, 1)
        assert [(start["name"], start["position"], start["recovered"]) for start in connected["channels"]] == [
            ("alerts", events[0]["position"], True),
            ("job_progress:1", events[1]["position"], False),
        ]
        found = [event for _, event in take(blocks, 2)]
    assert sorted((event["channel"], event["event"]["n"]) for event in found) == [("alerts", 4), ("job_progress:1", 3)]
    assert events[2] in found


def test_what_since_cannot_give_is_told(daemon: DaemonProcess, publish: Callable[[str, Any], None]) -> None:
    with stream(daemon, "job_progress:2", since=("job_progress:2,1:1:1",)) as blocks:
        (_, connected), (kind, gap) = take(blocks, 2)
    assert [(start["position"], start["recovered"]) for start in connected["channels"]] == [("1:1:1", False)]
    assert (kind, gap["channel"], gap["reason"]) == ("gap", "job_progress:2", "epoch_changed")
    # EventSource asks for the same address again: then its Last-Event-ID counts.
    publish("job_progress:2", {"n": 1})
    with stream(daemon, "job_progress:2", since=("job_progress:2,1:1:1",), last_id=gap["to"]) as blocks:
        (_, connected), (kind, event) = take(blocks, 2)
    assert (connected["channels"][0]["recovered"], kind, event["event"]) == (True, "message", {"n": 1})


def test_a_channel_without_history_and_an_event_for_a_user(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, "--type", "ai_stream.history_length=0")
    with stream(daemon, "ai_stream:x", since=("ai_stream:x,0:0:0",)) as blocks:
        (_, connected), (kind, gap) = take(blocks, 2)
        assert connected["channels"] == [{"name": "ai_stream:x", "position": None, "recovered": False, "replay": 0}]
        assert (kind, gap["reason"]) == ("gap", "no_history")
        redis_server.publish("ai_stream:x", b'{"chunk":\n"a"}')
        assert take(blocks, 1) == [
            ("message", {"channel": "ai_stream:x", "position": None, "event": {"chunk": "a"}}),
        ]


@pytest.mark.parametrize(
    ("query", "status", "channel"),
    [
        ("channel=alerts&channel=b%20c", 400, "b c"),
        ("channel=alerts&protocol=broker.v2", 400, None),
        ("channel=alerts&since=alerts:1,1:1:1", 400, None),
        ("channel=job_progress:1&channel=nothing:1", 404, "nothing:1"),
    ],
)
def test_a_refusal_names_the_channel(declared: DaemonProcess, query: str, status: int, channel: str | None) -> None:
    answer = httpx.get(f"{declared.url}/api/stream?{query}", trust_env=False)
    assert (answer.status_code, answer.json().get("channel")) == (status, channel)


@pytest.fixture
def declared(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    return start_daemon(redis_server.url, "--channels-undeclared", "refuse")
