"""A daemon that is told how closely to look at the events of a type."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from attrs import frozen

from broker.events import JobProgress
from broker.history.call import publish
from broker.history.keys import Keys
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


@frozen
class Item:
    """What is published with a stamp."""

    channel: str
    payload: bytes


REFUSED = [
    ("not_an_event", "job_progress: progress must be a number from 0 to 1, not 40"),
    ("not_json", None),
]


def _logged(daemon: DaemonProcess) -> list[tuple[str, str | None]]:
    """Why messages were dropped, by the lines of the log."""
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    return [(line["reason"], line.get("why")) for line in lines if line["event"] == "message from Redis dropped"]


def _refused(daemon: DaemonProcess) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    redis = daemon.own_stats()["redis"]
    return redis["refusedMessages"], redis["refusedByType"]


def _heard(websocket: WebSocketPeer, stream: SsePeer, events: int) -> tuple[list[bytes], list[tuple[int, bytes]]]:
    """What came behind the greetings, over the stream with its offset, once there are so many events."""
    pump((websocket, stream), lambda: len(websocket.parse()) >= 2 + events and len(stream.blocks) >= 1 + events)
    blocks = [re.fullmatch(rb"id: [0-9]+:([0-9]+):[0-9]+\ndata: (.*)", block) for block in stream.blocks[1:]]
    return websocket.texts[2:], [(int(block[1]), block[2]) for block in blocks if block]


def test_what_is_no_event_is_dropped_and_counted_and_the_next_one_arrives(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, "--type", "job.validate=event")
    websocket, stream = _peers(daemon, "job:42")
    redis_server.publish("job:42", BAD, b"{}", b"{", GOOD)
    pump((websocket, stream), lambda: len(websocket.parse()) == 3 and len(stream.blocks) == 2)
    assert (websocket.texts[2:], stream.blocks[1:]) == ([GOOD], [b"data: " + GOOD])
    assert _refused(daemon) == ({"not_an_event": 2, "not_json": 1}, {"job": {"not_an_event": 2, "not_json": 1}})
    assert _logged(daemon) == REFUSED


def test_with_history_the_recorder_drops_what_is_plain_and_every_daemon_what_a_publisher_stamped(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    recorder, other = (start_daemon(redis_server.url, "--type", "job_progress.validate=event") for _ in range(2))
    assert [daemon.own_stats()["history"]["isRecorder"] for daemon in (recorder, other)] == [True, False]
    peers = [_peers(daemon, "job_progress:42") for daemon in (recorder, other)]
    redis_server.publish("job_progress:42", BAD, b"{}", b"{", GOOD)
    assert [_heard(*pair, 1) for pair in peers] == [([GOOD], [(1, GOOD)])] * 2
    counts = {"not_an_event": 2, "not_json": 1}
    assert (_refused(recorder), _refused(other)) == ((counts, {"job_progress": counts}), ({}, {}))
    assert (_logged(recorder), _logged(other)) == (REFUSED, [])
    assert recorder.own_stats()["history"]["recorded"] == 1

    with redis_server.client() as client:
        for payload in (BAD, b"{}", b"{", GOOD):
            client.execute_command(*publish(Keys(""), Item("job_progress:42", payload), None, 0).whole())
    # Those that were dropped have their offsets, and nobody is told of a gap.
    assert [_heard(*pair, 2) for pair in peers] == [([GOOD, GOOD], [(1, GOOD), (5, GOOD)])] * 2
    twice = {reason: 2 * count for reason, count in counts.items()}
    assert (_refused(recorder)[0], _refused(other)[0]) == (twice, counts)
    assert _logged(other) == REFUSED
    assert recorder.own_stats()["history"]["recorded"] == 1


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
