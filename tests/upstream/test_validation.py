"""A daemon that is told how closely to look at the events of a type."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from broker.events import JobProgress
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import SsePeer, WebSocketPeer, close_all, open_streams, open_websockets, pump
from tests.actors.redis_server import RedisServer

GOOD = JobProgress(job_id="42", status="processing", stage="s", progress=0.5, message="m").encode()
BAD = GOOD.replace(b"0.5", b"40")


@pytest.fixture(autouse=True)
def _peers_leave_first(start_daemon: object) -> object:
    yield
    close_all()


def _peers(daemon: DaemonProcess, channel: str) -> tuple[WebSocketPeer, SsePeer]:
    (websocket,) = open_websockets(daemon.port, 1, channel)
    (stream,) = open_streams(daemon.port, 1, channel)
    return websocket, stream


def test_what_is_no_event_is_dropped_and_counted_and_the_next_one_arrives(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, "--type", "job_progress.validate=event")
    websocket, stream = _peers(daemon, "job_progress:42")
    redis_server.publish("job_progress:42", BAD, b"{}", b"{", GOOD)
    pump((websocket, stream), lambda: len(websocket.parse()) == 3 and len(stream.blocks) == 2)
    assert (websocket.texts[2:], stream.blocks[1:]) == ([GOOD], [b"data: " + GOOD])
    redis = daemon.stats()["redis"]
    assert redis["refusedMessages"] == {"not_an_event": 2, "not_json": 1}
    assert redis["refusedByType"] == {"job_progress": {"not_an_event": 2, "not_json": 1}}
    logged = [json.loads(line) for line in daemon.log().splitlines()]
    assert [(line["reason"], line.get("why")) for line in logged if line["event"] == "message from Redis dropped"] == [
        ("not_an_event", "job_progress: progress must be a number from 0 to 1, not 40"),
        ("not_json", None),
    ]


def test_off_lets_any_text_through(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon(redis_server.url, environ={"BROKER_TYPES": "note.validate=off"})
    websocket, stream = _peers(daemon, "note:1")
    texts = ["é {not JSON", "two\nlines\r", "", "data: x", "last"]
    redis_server.publish("note:1", b"\xff", *(text.encode() for text in texts))
    pump((websocket, stream), lambda: len(websocket.parse()) == 7 and len(stream.blocks) == 6)
    assert [text.decode() for text in websocket.texts[2:]] == texts
    assert [block.decode() for block in stream.blocks[1:]] == [
        "data: é {not JSON",
        "data: two\ndata: lines\ndata: ",
        "data: ",
        "data: data: x",
        "data: last",
    ]
    assert daemon.stats()["redis"]["refusedByType"] == {"note": {"not_utf8": 1}}


def test_a_type_with_options_is_declared(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon(redis_server.url, "--channels-undeclared", "refuse", "--type", "note.validate=json")
    websocket = WebSocketPeer(daemon.port)
    websocket.subscribe("note:1", "memo:1", "alerts:1")
    pump([websocket], lambda: len(websocket.parse()) == 4)
    assert {event["name"] for event in websocket.events("subscribed")} == {"note:1", "alerts:1"}
    assert [event["code"] for event in websocket.events("error")] == ["channel_type_refused"]
