"""Messages of WebSocket clients: whatever JSON they are, the session answers with events and steps that rules allow."""

from __future__ import annotations

import json
from typing import Any

from broker import session as codes
from broker.auth.identity import ANONYMOUS, OPEN, USER, Identity
from broker.auth.rules import PUBLISH, SUBSCRIBE, RuleBook
from broker.channel import Channel
from broker.config.access import Rules
from broker.config.types import BUILT_IN_TYPES
from broker.frames import text_frame
from broker.position import Start
from broker.session import Authenticate, Publish, Reply, Session, Subscribe, Unsubscribe
from tests.fuzz.reading import frames_of, json_of, object_of
from tests.fuzz.target import Target

RULES = RuleBook(
    Rules(user_subscribe=("*",), user_publish=("chat:*",), anonymous_subscribe=("public:*",)), BUILT_IN_TYPES
)
CODES = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}
ANSWERS = {"connected", "subscribed", "unsubscribed", "published", "authenticated", "pong", "error"}
SUBSCRIPTIONS_MAX = 3
CHANNEL_SHOWN = 400


def sessions() -> list[Session]:
    return [
        Session(SUBSCRIPTIONS_MAX, None, is_v1=True, identity=Identity(OPEN, "ann"), rules=RULES),
        Session(
            SUBSCRIPTIONS_MAX,
            frozenset({"chat", "alerts", "public"}),
            identity=Identity(USER, "ann", publish=("*",), expires_at=1e300),
            rules=RULES,
        ),
        Session(SUBSCRIPTIONS_MAX, None, identity=Identity(USER, "ann"), rules=RULES),
        Session(SUBSCRIPTIONS_MAX, None, identity=Identity(ANONYMOUS), rules=RULES, needs_token=True),
        Session(SUBSCRIPTIONS_MAX, None, identity=Identity(ANONYMOUS), rules=RULES, claimed_user="ann"),
    ]


def check(data: bytes) -> str:
    text = data.decode(errors="replace")
    said = []
    for session in sessions():
        # Messages stand on lines of their own; one that holds line ends is one of the session's too.
        for message in (text, *text.split("\n")[:5]):
            said.append(take(session, message))
    return "/".join(sorted(set(said))[:3])


def take(session: Session, message: str) -> str:
    outcome = ""
    for step in session.receive_text(message, 0.0):
        if isinstance(step, Reply):
            outcome = check_reply(step)
        elif isinstance(step, Subscribe):
            outcome = "subscribe"
            check_allowed(session, SUBSCRIBE, step.channel)
            name = step.channel.name
            start = Start(b"1:2:3", True) if len(name) % 2 else None
            later = session.joined(name, start, 0.0) if len(name) % 3 else session.refused(name, "no", 0.0)
            for reply in later:
                assert isinstance(reply, Reply)
                check_reply(reply)
        elif isinstance(step, Unsubscribe):
            outcome = "unsubscribe"
            for channel in step.channels:
                assert Channel.from_name(channel.name).name == channel.name
        elif isinstance(step, Publish):
            outcome = "publish"
            check_allowed(session, PUBLISH, step.channel)
            check_published(step.payload, message)
            for reply in session.published(step.channel, 0.0):
                assert isinstance(reply, Reply)
                check_reply(reply)
        else:
            assert isinstance(step, Authenticate)
            outcome = "authenticate"
            assert step.token and repr(step) == "Authenticate()"
            identity = Identity(USER, step.token[:5] or None, subscribe=("chat:*",))
            objection = session.objection(identity)
            later = session.not_authenticated(objection, 0.0) if objection else session.authenticated(identity, 0.0)
            for reply in later:
                if isinstance(reply, Reply):
                    check_reply(reply)
            for channel in session.every_channel():
                check_allowed(session, SUBSCRIBE, channel)
    assert len(session.every_channel()) <= SUBSCRIPTIONS_MAX
    return outcome


def check_reply(reply: Reply) -> str:
    event = object_of(reply.body)
    assert event["type"] in ANSWERS
    assert frames_of(text_frame(reply.body)) == [(1, reply.body)]
    if event["type"] != "error":
        return str(event["type"])
    assert event["code"] in CODES and event["message"]
    assert set(event) - {"channel"} == {"type", "code", "message", "timestamp"}
    assert 0 < len(event.get("channel", "a")) <= CHANNEL_SHOWN
    return str(event["code"])


def check_allowed(session: Session, action: str, channel: Channel) -> None:
    assert Channel.from_name(channel.name).name == channel.name
    assert session.rules.decide(session.identity, action, channel).allowed
    assert not (session.needs_token and session.identity.kind == ANONYMOUS)


def check_published(payload: bytes, message: str) -> None:
    """What is published is the event that was looked at: one object, which stands in the message as it is."""
    assert payload.decode() in message
    assert isinstance(json_of(payload), dict), payload


def command(**members: Any) -> bytes:
    return json.dumps(members).encode()


TARGET = Target(
    "commands",
    check,
    (
        b'{"type":"ping"}',
        command(type="subscribe", channel="chat:1"),
        command(type="subscribe", channel={"type": "job_progress", "id": "1", "userId": "ann"}, since="1:2:3"),
        command(type="subscribe", channel={"type": "alerts", "id": None, "userId": "ann"}, since=None),
        command(type="unsubscribe", channel={"type": "chat"}),
        command(type="publish", channel="chat:1", event={"type": "x", "a": [1, {"b": None}]}),
        b'{"type":"publish","channel":"chat:1","event": {"a":\t1}, "event":"no object"}',
        b'{"type":"publish","channel":"chat:1","event":"no object","ev\\u0065nt":{}}',
        command(type="authenticate", token="eyJhbGciOiJIUzI1NiJ9.e30.AA"),
        command(type="authenticate", token="ann") + b"\n" + command(type="subscribe", channel="chat:2"),
        b"\n".join(command(type="subscribe", channel=f"chat:{number}") for number in range(5)),
        b'{"type":"subscribe","type":"ping","channel":"a","channel":"b"}',
        b"[1,2]",
        b'"text"',
        b"1e400",
    ),
    (
        b'"type"', b'"channel"', b'"event"', b'"token"', b'"since"', b'"userId"', b'"id"', b'"subscribe"', b'"publish"',
        b'"unsubscribe"', b'"authenticate"', b'"ping"', b'"broker:x"', b'"chat:1"', b'"alerts:ann"', b'"alerts:bob"',
        b'"public:1"', b"{}", b"[]", b"null", b"true", b":", b",", b'"ev\\u0065nt":', b'"event":1,', b"{", b"}", b"\n",
        b'"\\ud800"', b"1" * 5000, b"1e999", b"-", b"NaN", b"Infinity",
    ),
    frozenset({"bad_json", "pong", "forbidden/publish/unauthenticated", "forbidden/subscribe/subscribed"}),
)  # fmt: skip
