"""What comes from the other end of a client of ours: a daemon, or whatever answers in its place."""

from __future__ import annotations

import json

from broker.doctor.eventreader import EventReader
from broker.doctor.finding import CheckFailed
from broker.errors import SubscriberError
from broker.subscriber.conversation import Authenticated, Conversation, Farewell, Subscribed
from broker.subscriber.event import Event
from broker.subscriber.gap import Gap
from broker.subscriber.loss import _detail
from tests.fuzz.target import Target


def check(data: bytes) -> str:
    """Messages of a WebSocket, a line each; a stream; the body of a refusal."""
    said = [talk(data.split(b"\n")[:5], is_v1) for is_v1 in (True, False)]
    assert _detail(data).isprintable()
    return f"{' '.join(said)} {stream(data)}"


def talk(messages: list[bytes], is_v1: bool) -> str:
    conversation = Conversation("the broker", ("a:1", "b"), {"b": "1:2:3"}, is_v1)
    first, *rest = messages
    outcome = "greeted"
    try:
        greeting = conversation.greet(first)
        assert greeting.seconds is None or isinstance(greeting.seconds, float)
    except SubscriberError as error:
        assert str(error)
        outcome = "refused"
    for message in rest or messages:
        try:
            found = conversation.receive(message)
        except SubscriberError as error:
            assert str(error)
            return f"{outcome} broken"
        outcome = type(found).__name__
        if isinstance(found, Event):
            check_event(found, message, is_v1)
        elif isinstance(found, Subscribed):
            assert found.channel in ("a:1", "b")
        elif isinstance(found, Farewell):
            assert found.wait_seconds >= 0
        elif isinstance(found, Gap):
            assert str(found)
        elif isinstance(found, Authenticated):
            assert found.seconds is None or isinstance(found.seconds, float)
    for request in conversation.requests():
        json.loads(request)
    return outcome


def check_event(event: Event, message: bytes, is_v1: bool) -> None:
    """It is what stands in the message, to the letter."""
    text = message.decode(errors="replace")
    assert event.raw in text if is_v1 else event.raw == text
    assert isinstance(event.type, str) and isinstance(event.data, dict)
    assert event.is_to_user == (is_v1 and event.channel is None)


def stream(data: bytes) -> str:
    at = len(data) * 5 // 11
    found = []
    for pieces in ([data], [data[:at], data[at:]]):
        reader = EventReader()
        try:
            found.append([event for piece in pieces for event in reader.feed(piece)])
        except CheckFailed:
            return "endless"
    return str(min(len(found[0]), 3))


GREETING = b'{"type":"connected","clientId":"ws_1","timestamp":"2026-01-31T12:00:00.000Z"}\n'

TARGET = Target(
    "answers",
    check,
    (
        GREETING + b'{"type":"subscribed","name":"a:1","success":true,"position":"1:2:3","recovered":true}',
        GREETING + b'{"channel":"a:1","position":"1:2:3","event":{"type":"x"}}',
        GREETING + b'{"channel":null,"position":null,"event":"text"}\n{"type":"x"}',
        GREETING + b'{"type":"gap","channel":"b","reason":"trimmed","from":"1:2:3","to":null,"count":3}',
        GREETING + b'{"type":"error","code":"upstream_unavailable","message":"wait"}',
        GREETING + b'{"type":"error","code":"forbidden","message":"no"}',
        GREETING + b'{"type":"heartbeat","serverTime":"t","timestamp":"t"}',
        GREETING + b'{"type":"disconnected","message":"Server shutting down","timestamp":"t","reconnectInMs":500}',
        b'{"type":"connected","clientId":"ws_1","timestamp":"2026-01-31T12:00:00Z","expiresAt":"2026-01-31T13:00:00Z"}',
        GREETING + b'{"type":"authenticated","timestamp":"2026-01-31T12:00:00Z","expiresAt":"2026-01-31T13:00:00"}',
        b'{"error":"x","detail":"one\\nline","hint":"y"}',
        b"id: 1:2:3\ndata: {}\n\n: hello\r\n\r\nevent: gap\rdata: a\rdata: b\r\r",
        b"<html>\n",
    ),
    (
        b'"type"', b'"connected"', b'"subscribed"', b'"clientId"', b'"ws_', b'"name"', b'"success"', b"true",
        b'"position"', b'{"channel":"a:1","position":null,"event":', b'"gap"', b'"error"', b'"code"', b'"message"',
        b'"heartbeat"', b'"serverTime"', b'"timestamp"', b'"disconnected"', b'"Server shutting down"',
        b'"reconnectInMs"', b'"expiresAt"', b'"2026-01-31"', b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31"', b"null",
        b"\n", b"data: ", b"\n\n", b"\r\r", b'"detail"', b'"event":', b"}",
    ),
    frozenset({"Event Event 0", "Subscribed Subscribed 0", "Gap Event 0", "Farewell Farewell 0"}),
    max_bytes=4_000,
)  # fmt: skip
