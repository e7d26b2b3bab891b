"""What the daemon and its demo say are events of their classes."""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import websockets.sync.client

from broker import gap
from broker.config.sections import Config
from broker.demo import DemoScript
from broker.events import EVENT_TYPES, Connected, Disconnected, Event, Gap, Heartbeat, Subscribed, decode
from broker.events.rules import fields_of
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer

RECONNECT_MILLISECONDS = round(Config().daemon.reconnect_seconds * 1000)


def without_time(event: Event) -> dict[str, Any]:
    wire = json.loads(event.encode())
    return {name: value for name, value in wire.items() if name not in ("timestamp", "serverTime", "clientId")}


def receive(client: websockets.sync.client.ClientConnection, *types: str) -> Event:
    """The next event of these types. Heartbeats come between others: at most ten."""
    for _ in range(10):
        event = decode(client.recv(timeout=10))
        if event.type in types:
            return event
    raise AssertionError(f"no {types} among ten events")


def ask(client: websockets.sync.client.ClientConnection, command: dict[str, str]) -> Event:
    client.send(json.dumps(command))
    return receive(client, "subscribed", "unsubscribed", "error")


def test_a_whole_conversation(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon(redis_server.url, "--websocket-ping-seconds", "0.3")
    with websockets.sync.client.connect(daemon.ws_url, open_timeout=10) as client:
        connected = decode(client.recv(timeout=10))
        answers = [ask(client, {"type": kind, "channel": "a:1"}) for kind in ("subscribe", "unsubscribe", "shout")]
        answers.append(receive(client, "heartbeat"))
        with httpx.stream("GET", f"{daemon.url}/api/stream?channel=a:1", timeout=10) as stream:
            lines = (line for line in stream.iter_lines() if line.startswith("data: "))
            greeted = decode(next(lines).removeprefix("data: "))
        daemon.process.send_signal(signal.SIGTERM)
        farewell = receive(client, "disconnected")

    assert isinstance(connected, Connected)
    assert (connected.client_id or "").startswith("ws_")
    assert without_time(connected) == {"type": "connected", "message": "Connected to real-time service"}
    said = {answer.type: answer for answer in answers}
    assert isinstance(said["heartbeat"], Heartbeat)
    assert isinstance(said["subscribed"], Subscribed)
    assert (said["subscribed"].subscribed_type, said["subscribed"].name) == ("a", "a:1")
    subscription = {"channel": "a", "id": "1", "name": "a:1", "success": True}
    assert without_time(said["subscribed"]) == {"type": "subscribed", **subscription}
    assert without_time(said["unsubscribed"]) == {"type": "unsubscribed", **subscription}
    assert without_time(said["error"]) == {
        "type": "error",
        "code": "unknown_command",
        "message": "unknown command 'shout'; use subscribe, unsubscribe, authenticate, publish or ping",
    }
    assert without_time(greeted) == {"type": "connected", "message": "SSE connection established"}
    assert isinstance(greeted, Connected)
    assert (greeted.client_id or "").startswith("sse_")
    assert isinstance(farewell, Disconnected)
    said_last = without_time(farewell)
    # Each client's own, at random: docs/protocol.md says how long at most.
    assert 0 <= said_last.pop("reconnectInMs") <= RECONNECT_MILLISECONDS
    assert said_last == {"type": "disconnected", "message": "Server shutting down"}


def test_every_event_of_the_demo() -> None:
    script = DemoScript()
    seen = set()
    for tick in range(400):
        for channel, wire in script.events_at(tick, 1_700_000_000 + tick / 2):
            event = decode(json.dumps(wire))
            seen.add(event.type)
            assert json.loads(event.encode()) == wire
            assert str(event.extra.get("message", wire["message"])).startswith("Demo:")
            # The demo's alerts are on a channel of their own; alerts name no channel but their type's.
            assert event.channel == channel.removesuffix(":demo" if event.type == "alert" else "")
    assert seen == {
        "job_progress", "video_render_progress", "campaign_metrics", "ab_test_result", "live_metric_update", "alert",
    }  # fmt: skip
    assert seen < set(EVENT_TYPES)


POSITIONS = (None, b"4000000000:0:0", b"7:120:4294967295")


@pytest.mark.parametrize("reason", gap.REASONS)
def test_every_gap_that_the_daemon_can_tell(reason: str) -> None:
    for begin, end, count in itertools.product(POSITIONS, POSITIONS, (None, 3)):
        body = gap.Gap(reason, begin, end, 1_700_000_000.25, count, generation=2).body(b"alerts:u@1")
        assert list(json.loads(body)) == ["type", "channel", "reason", "from", "to"] + ["count"] * (
            count is not None
        ) + ["timestamp"]
        event = decode(body)
        assert event == Gap(
            channel="alerts:u@1",
            reason=reason,  # type: ignore[arg-type]
            from_=begin and begin.decode(),
            to=end and end.decode(),
            count=count,
            timestamp="2023-11-14T22:13:20.250Z",
        )
        assert isinstance(event, Gap)
        assert (event.gap_channel, event.extra) == ("alerts:u@1", {})


def test_there_is_no_other_reason_and_the_document_has_them_all() -> None:
    (hint,) = (field.hint for field in fields_of(Gap) if field.attribute == "reason")
    assert get_args(hint) == tuple(gap.REASONS)
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\w.+) \|$", (Path(__file__).parents[2] / "docs/events.md").read_text())
    assert {reason: what for reason, what in rows if reason in gap.REASONS} == gap.REASONS
