"""Channel names, in both forms, and patterns: the grammar, and what rules make of both."""

from __future__ import annotations

import json
import re

from broker.auth.identity import ANONYMOUS, KEY, OPEN, USER, Identity
from broker.auth.rules import PUBLISH, SUBSCRIBE, RuleBook
from broker.channel import Channel
from broker.config.access import Rules
from broker.config.types import BUILT_IN_TYPES
from broker.errors import ChannelError
from broker.pattern import Pattern
from tests.fuzz.reading import is_one_line
from tests.fuzz.target import Target

BOOK = RuleBook(Rules(user_publish=("*",), anonymous_subscribe=("*",), anonymous_publish=("*",)), BUILT_IN_TYPES)
GRAMMAR = re.compile(rb"[A-Za-z0-9_\-.@=+~]{1,128}(:[A-Za-z0-9_\-.@=+~]{1,128}){0,2}")


def check(data: bytes) -> str:
    """A line each: a user, a pattern, a channel."""
    user, text, name = [*data.decode(errors="surrogateescape").split("\n", 2), "", ""][:3]
    channel = channel_of(name)
    pattern = pattern_of(text)
    said = []
    if channel is not None:
        assert GRAMMAR.fullmatch(channel.name.encode()), channel
        assert Channel.from_name(channel.name).name == channel.name
        if pattern is not None:
            matches = pattern.matches(channel, user)
            said.append(f"matches {matches}")
            assert not (matches and "{sub}" in text) or user in channel.name
            assert not (pattern.matches(channel, None) and "{sub}" in text)
        said.append(rules(channel, text, user))
    return " ".join(said) or f"{channel is not None} {pattern is not None}"


def channel_of(text: str) -> Channel | None:
    """A channel by its name, or as the JSON of a client has it."""
    wire: object = text
    if text[:1] in ("{", "[", '"'):
        try:
            wire = json.loads(text)
        except (ValueError, RecursionError):
            pass
    try:
        return Channel.from_wire(wire)
    except ChannelError as error:
        assert is_one_line(str(error))
        return None


def pattern_of(text: str) -> Pattern | None:
    try:
        return Pattern.parse(text)
    except ValueError as error:
        assert is_one_line(str(error))
        return None


def rules(channel: Channel, pattern: str, user: str) -> str:
    belongs_to = BOOK.owner_of(channel)
    claimed = Identity(USER, user, subscribe=(pattern,), publish=(pattern,))
    said = ""
    for identity in (
        claimed,
        Identity(USER, user),
        Identity(ANONYMOUS),
        Identity(OPEN, user),
        Identity(KEY, name="ci"),
    ):
        for action in (SUBSCRIBE, PUBLISH):
            decision = BOOK.decide(identity, action, channel)
            assert is_one_line(decision.why) and is_one_line(decision.rule)
            if decision.allowed:
                assert channel.type != "broker"
                if action == SUBSCRIBE and identity.kind != OPEN:
                    assert belongs_to in (None, identity.user_id)
                    assert channel.user_id in (None, identity.user_id)
            if identity is claimed:
                said += f"{decision.rule} {decision.allowed} "
    return said


TARGET = Target(
    "channels",
    check,
    (
        b"ann\njob_progress:*\njob_progress:job_123",
        b"ann\nalerts:{sub}\nalerts:ann",
        b"bob\n*:*:{sub}\nlive_metrics:camp_1:ann",
        b"*\n*\nbroker:x",
        b"a:b\na*b*{sub}*c:*\na.b@c=+~-_:x",
        b'ann\n*\n{"type": "alerts", "id": null, "userId": "ann"}',
        b'ann\nalerts:*\n{"type": "alerts", "userId": "bob"}',
        b"ann\n" + b"*a" * 60 + b"b\n" + b"a" * 128,
    ),
    (
        b":", b"::", b"*", b"{sub}", b"**", b"{", b"}", b"alerts", b"broker", b"broker:users", b"ann", b"a" * 128,
        b"a" * 129, b"@", b"~", b"=", b"/", b"%3a", b"\n", '\uff1a'.encode(), '\u0661'.encode(), b'"userId":', b'"id":',
        b'"type":',
    ),
    frozenset({"False False", "False True", "matches True claim subscribe True claim publish True "}),
)  # fmt: skip
