"""The WebSocket conversation, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.channel import Channel
from broker.position import Position, Since, Start
from broker.session import Reply, Session, Subscribe, Unsubscribe

NOW = 1_700_000_000.5
STAMP = "2023-11-14T22:13:20.500Z"


def session(most: int = 3, served: frozenset[str] | None = None) -> Session:
    return Session(most, served)


def said(steps: list[Any]) -> list[Any]:
    """Replies as what they say; other steps as they are."""
    return [json.loads(step.body) if isinstance(step, Reply) else step for step in steps]


def tell(session: Session, command: object) -> list[Any]:
    return said(session.receive_text(json.dumps(command), NOW))


def subscribed(name: str, **ids: str) -> dict[str, object]:
    return {
        "type": "subscribed",
        "channel": name.split(":")[0],
        "id": ids.get("id"),
        "userId": ids.get("userId"),
        "name": name,
        "success": True,
        "timestamp": STAMP,
    }


def test_the_greeting_and_the_heartbeat() -> None:
    assert json.loads(session().greeting("ws_1", NOW)) == {
        "type": "connected",
        "message": "Connected to real-time service",
        "clientId": "ws_1",
        "timestamp": STAMP,
    }
    assert json.loads(session().heartbeat(NOW)) == {"type": "heartbeat", "serverTime": STAMP, "timestamp": STAMP}
    assert json.loads(session().farewell(1500, NOW)) == {
        "type": "disconnected",
        "message": "Server shutting down",
        "reconnectInMs": 1500,
        "timestamp": STAMP,
    }


def test_a_subscribe_is_answered_once_the_channel_is_live() -> None:
    talk = session()
    assert tell(talk, {"type": "subscribe", "channel": {"type": "a", "id": "1"}}) == [Subscribe(Channel("a", "1"))]
    assert talk.channel_names == []
    assert said(talk.joined("a:1", None, NOW)) == [subscribed("a:1", id="1")]
    assert talk.channel_names == ["a:1"]


def test_every_subscribe_gets_its_answer() -> None:
    talk = session()
    tell(talk, {"type": "subscribe", "channel": "a:1"})
    assert tell(talk, {"type": "subscribe", "channel": {"type": "a", "id": "1"}}) == []
    assert said(talk.joined("a:1", None, NOW)) == [subscribed("a:1", id="1")] * 2
    assert tell(talk, {"type": "subscribe", "channel": "a:1"}) == [subscribed("a:1", id="1")]


def test_unsubscribing() -> None:
    talk = session()
    for name in ("a:1", "a:2", "b"):
        tell(talk, {"type": "subscribe", "channel": name})
        talk.joined(name, None, NOW)
    unsubscribed = {**subscribed("a"), "type": "unsubscribed"}
    assert tell(talk, {"type": "unsubscribe", "channel": {"type": "a"}}) == [
        Unsubscribe((Channel("a", "1"), Channel("a", "2"))),
        unsubscribed,
    ]
    assert tell(talk, {"type": "unsubscribe", "channel": "a"}) == [{**unsubscribed, "success": False}]
    assert tell(talk, {"type": "unsubscribe", "channel": "b:1"}) == [
        {**subscribed("b:1", id="1"), "type": "unsubscribed", "success": False}
    ]
    assert talk.channel_names == ["b"]


def test_a_subscribe_that_is_taken_back_before_it_is_live() -> None:
    talk = session()
    tell(talk, {"type": "subscribe", "channel": "a:1"})
    assert tell(talk, {"type": "unsubscribe", "channel": "a:1"})[0] == Unsubscribe((Channel("a", "1"),))
    assert talk.every_channel() == []


def test_the_limit_on_subscriptions_names_itself() -> None:
    talk = session(most=1)
    tell(talk, {"type": "subscribe", "channel": "a:1"})
    assert tell(talk, {"type": "subscribe", "channel": "a:2"}) == [
        {
            "type": "error",
            "code": "too_many_subscriptions",
            "message": "at most 1 subscriptions for each client; unsubscribe from some first",
            "timestamp": STAMP,
        }
    ]


def test_a_type_that_is_not_served() -> None:
    assert tell(session(served=frozenset({"b"})), {"type": "subscribe", "channel": "a:1"})[0]["code"] == (
        "channel_type_refused"
    )


def test_what_redis_refused_is_forgotten() -> None:
    talk = session()
    tell(talk, {"type": "subscribe", "channel": "a:1"})
    assert said(talk.refused("a:1", "NOPERM", NOW))[0]["code"] == "upstream_refused"
    assert tell(talk, {"type": "subscribe", "channel": "a:1"}) == [Subscribe(Channel("a", "1"))]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("[" * 100_000, "bad_json"),
        ("[]", "bad_command"),
        ("null", "bad_command"),
        ("{}", "bad_command"),
        ('{"type":7}', "bad_command"),
        ('{"type":"shout"}', "unknown_command"),
        ('{"type":"subscribe"}', "bad_channel"),
        ('{"type":"unsubscribe","channel":"a b"}', "bad_channel"),
        ('{"type":"subscribe","channel":{"type":"a","id":1e400}}', "bad_json"),
        ('{"type":"subscribe","channel":{"type":"a","id":123456789012345678901234567890}}', "bad_channel"),
    ],
)
def test_what_is_not_understood_gets_a_stable_code(text: str, code: str) -> None:
    (reply,) = said(session().receive_text(text, NOW))
    assert (reply["type"], reply["code"], reply["timestamp"]) == ("error", code, STAMP)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_nothing_that_a_client_says_raises(text: str) -> None:
    for step in session().receive_text(text, NOW):
        assert isinstance(step, Reply | Subscribe | Unsubscribe)


def test_binary_and_ping() -> None:
    assert said(session().receive_binary(NOW))[0]["code"] == "binary_frame"
    assert tell(session(), {"type": "ping"}) == [{"type": "pong", "timestamp": STAMP}]


def test_with_v1_subscribed_tells_where_one_begins() -> None:
    talk = Session(3, None, is_v1=True)
    assert tell(talk, {"type": "subscribe", "channel": "a:1"}) == [Subscribe(Channel("a", "1"))]
    start = Start(b"7:3:11", False, 1)
    at = {"position": "7:3:11", "recovered": False, "replay": 1}
    assert said(talk.joined("a:1", start, NOW)) == [subscribed("a:1", id="1") | at]
    # Once more for the same, and a channel without history.
    nowhere = {"position": None, "recovered": False, "replay": 0}
    assert tell(talk, {"type": "subscribe", "channel": "a:1"}) == [subscribed("a:1", id="1")]
    tell(talk, {"type": "subscribe", "channel": "b"})
    assert said(talk.joined("b", None, NOW)) == [subscribed("b") | nowhere]


def test_with_v1_a_client_says_where_it_was() -> None:
    talk = Session(3, None, is_v1=True)
    was = Since(Position(b"7", 3, b"11"))
    assert tell(talk, {"type": "subscribe", "channel": "a:1", "since": "7:3:11"}) == [Subscribe(Channel("a", "1"), was)]
    (answer,) = said(talk.joined("a:1", Start(b"7:3:11", True), NOW))
    assert (answer["position"], answer["recovered"]) == ("7:3:11", True)
    # What is no position is answered with a gap; what is no text at all is a mistake in the page.
    assert tell(talk, {"type": "subscribe", "channel": "b", "since": "x"}) == [Subscribe(Channel("b"), Since(None))]
    assert tell(talk, {"type": "subscribe", "channel": "c", "since": None}) == [Subscribe(Channel("c"))]
    (error,) = tell(talk, {"type": "subscribe", "channel": "d", "since": 7})
    assert (error["code"], "since" in error["message"]) == ("bad_command", True)
    # Nothing came of it: there is room for one more.
    assert talk.every_channel() == [Channel("a", "1"), Channel("b"), Channel("c")]


def test_with_v1_an_error_names_its_channel() -> None:
    talk = Session(1, frozenset({"a"}), is_v1=True)
    told = [
        tell(talk, {"type": "subscribe", "channel": name})[0] for name in ("a b", {"type": "a b"}, "b:1", "broker:x")
    ]
    assert [(error["code"], error.get("channel")) for error in told] == [
        ("bad_channel", "a b"),
        ("bad_channel", None),
        ("channel_type_refused", "b:1"),
        ("channel_type_refused", "broker:x"),
    ]
    tell(talk, {"type": "subscribe", "channel": "a:1"})
    (error,) = tell(talk, {"type": "subscribe", "channel": "a:2"})
    assert (error["code"], error["channel"]) == ("too_many_subscriptions", "a:2")
    assert [said(steps)[0]["channel"] for steps in (talk.waiting("a:1", NOW), talk.refused("a:1", "no", NOW))] == [
        "a:1",
        "a:1",
    ]


def test_without_it_since_means_nothing() -> None:
    talk = session()
    assert tell(talk, {"type": "subscribe", "channel": "a", "since": 7}) == [Subscribe(Channel("a"))]
    assert said(talk.joined("a", Start(b"7:3:11", True), NOW)) == [subscribed("a")]
