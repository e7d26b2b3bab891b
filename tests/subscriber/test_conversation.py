"""What is said on one connection, and where the bookmarks are then: the subscriber's rules, without a socket."""

from __future__ import annotations

import json

import pytest

from broker.errors import SubscriberError
from broker.gap import REASONS
from broker.subscriber import Event, Gap
from broker.subscriber.bookmarks import Bookmarks
from broker.subscriber.conversation import Conversation, Farewell, Said, Subscribed, Waiting

SHOWN = "http://b"
NAME = "a:1"


def _talk(*names: str, is_v1: bool = True, **since: str) -> Conversation:
    return Conversation(SHOWN, names or (NAME,), {"a:1": since["at"]} if since else {}, is_v1)


def _said(data: object, *, is_v1: bool = True) -> Said:
    return _talk(is_v1=is_v1).receive(json.dumps(data))


def test_since_is_asked_for_where_it_is_known_and_understood() -> None:
    assert [json.loads(each) for each in _talk("a:1", "a:2", at="1:2:3").requests()] == [
        {"type": "subscribe", "channel": "a:1", "since": "1:2:3"},
        {"type": "subscribe", "channel": "a:2"},
    ]
    assert [json.loads(each) for each in _talk(is_v1=False, at="1:2:3").requests()] == [
        {"type": "subscribe", "channel": "a:1"}
    ]


@pytest.mark.parametrize(
    "raw",
    ['{"type": "gap"}', "null", '"}"', '{"event":{"event":1}}', r'"\ud800"', "[\r\n1 ]", "[" * 10**5 + "]" * 10**5],
)
def test_an_envelope_is_opened_without_touching_the_event(raw: str) -> None:
    event = _talk().receive(f'{{"channel":"a:2","position":"1:2:3","event":{raw}}}')
    assert event == Event(raw, {}, "a:2", "1:2:3")
    event = _talk().receive(f'{{"channel":"a:2","position":null,"event":{raw}}}'.encode())
    assert event == Event(raw, {}, "a:2", None)


def test_what_is_the_brokers_own() -> None:
    subscribed = {"type": "subscribed", "name": NAME, "success": True}
    assert _said({**subscribed, "position": "1:2:3", "recovered": True}) == Subscribed(NAME, "1:2:3", True)
    assert _said({**subscribed, "position": None, "recovered": False}) == Subscribed(NAME, None, False)
    assert _said({**subscribed, "position": "1:2:3"}, is_v1=False) == Subscribed(NAME, None, False)
    gap = {"type": "gap", "channel": NAME, "reason": "overflow", "from": "1:2:3", "to": None, "timestamp": "now"}
    assert _said(gap) == Gap(NAME, "overflow", "1:2:3", None, "now")
    assert _said({**gap, "count": 7}) == Gap(NAME, "overflow", "1:2:3", None, "now", 7)
    assert _said({"type": "error", "code": "upstream_unavailable", "message": "m"}) == Waiting("m")
    assert _said({"type": "heartbeat", "serverTime": "1", "timestamp": "1"}) is None
    farewell = {"type": "disconnected", "message": "Server shutting down", "timestamp": "1"}
    assert _said(farewell) == Farewell(0.0)
    assert _said({**farewell, "reconnectInMs": 1500}) == Farewell(1.5)
    assert _said({**farewell, "reconnectInMs": 1500}, is_v1=False) == Farewell(1.5)
    assert _said({"type": "something that a later version says"}) is None


def test_what_an_older_broker_sends_is_an_event_as_it_is() -> None:
    gap = '{"type":"gap","channel":"a:1"}'
    envelope = '{"channel":"a:1","position":"1:2:3","event":{}}'
    for message in (gap, envelope):
        assert _talk(is_v1=False).receive(message) == Event(message, {}, NAME, None)
        assert _talk("a:1", "a:2", is_v1=False).receive(message) == Event(message, {}, None, None)


@pytest.mark.parametrize(
    "message",
    ['{"channel":"a:1","event":{}}', '{"event":1,"channel":"a:1","position":null}', "[]", "no json"],
)
def test_what_is_not_v1_is_not_passed_over(message: str) -> None:
    with pytest.raises(SubscriberError) as caught:
        _talk().receive(message)
    assert str(caught.value) == f"{SHOWN} does not speak broker.v1: it says {message!a}"


def test_a_gap_in_words() -> None:
    assert str(Gap(NAME, "overflow", None, None, None, 7)) == (
        f"events may be missing on a:1: overflow, 7 events: {REASONS['overflow']}"
    )
    assert str(Gap(NAME, "new", None, None)) == (
        "events may be missing on a:1: new: for a reason that this version has no words for"
    )


# ---- bookmarks ----


def _event(position: str | None) -> Event:
    return Event("{}", {}, NAME, position)


def test_a_bookmark_follows_the_events_and_the_consumer_has_its_own() -> None:
    marks = Bookmarks.at({NAME: "1:1:1"})
    marks.receive(_event("1:2:2"))
    marks.receive(_event(None))
    assert (marks.received, marks.taken) == ({NAME: "1:2:2"}, {NAME: "1:1:1"})
    marks.take(_event("1:2:2"))
    assert (marks.received, marks.taken) == ({NAME: "1:2:2"}, {NAME: "1:2:2"})


def test_a_channel_begins_or_is_forgotten() -> None:
    marks = Bookmarks.at({})
    marks.begin(NAME, "1:1:1")
    assert (marks.received, marks.taken) == ({NAME: "1:1:1"}, {NAME: "1:1:1"})
    marks.begin(NAME, None)
    assert (marks.received, marks.taken) == ({}, {})


@pytest.mark.parametrize(
    ("begin", "end", "received"),
    [
        ("1:2:2", "1:5:5", "1:5:5"),
        (None, "9:5:5", "9:5:5"),
        ("1:2:2", None, "1:2:2"),
        ("1:4:4", "1:5:5", "1:2:2"),  # 3 and 4 are still on their way
    ],
)
def test_a_gap_moves_the_bookmark_where_it_begins_there(begin: str | None, end: str | None, received: str) -> None:
    marks = Bookmarks.at({NAME: "1:2:2"})
    marks.pass_over(Gap(NAME, "trimmed", begin, end))
    assert (marks.received, marks.taken) == ({NAME: received}, {NAME: received})


def test_a_gap_does_not_move_the_consumer_over_what_it_has_yet_to_take() -> None:
    marks = Bookmarks.at({NAME: "1:2:2"})
    marks.receive(_event("1:3:3"))
    marks.pass_over(Gap(NAME, "trimmed", "1:3:3", "1:9:9"))
    assert (marks.received, marks.taken) == ({NAME: "1:9:9"}, {NAME: "1:2:2"})
