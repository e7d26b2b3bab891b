"""Who may do what: a table of decisions, and a naive model of them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.identity import ANONYMOUS, KEY, OPEN, USER, Identity
from broker.auth.rules import PUBLISH, SUBSCRIBE, Decision, RuleBook
from broker.channel import Channel
from broker.config.access import Rules
from broker.config.types import BUILT_IN_TYPES, TypeOptions

TYPES = {**BUILT_IN_TYPES, "inbox": TypeOptions(second_part="user")}
RULES = Rules(
    user_subscribe=("job_progress:*", "alerts:{sub}", "*:*:{sub}"),
    user_publish=("chat:*", "typing:{sub}"),
    anonymous_subscribe=("public_*", "inbox:*"),
    anonymous_publish=("votes:*",),
    key_publish=("job_progress:*", "alerts:*"),
)
BOOK = RuleBook(RULES, TYPES)

ANN = Identity(USER, "ann")
SERVICE = Identity(USER, "svc", subscribe=("*",), publish=("alerts:*", "job_progress:*"))
MUTE = Identity(USER, "ann", subscribe=(), publish=())
SELF = Identity(USER, "ann", subscribe=("chat:{sub}", "job_progress:4*"))
ADMIN = Identity(USER, "root", is_admin=True)
ADMIN_KEY = Identity(KEY, name="ops", is_admin=True)
CI = Identity(KEY, name="ci")
STRANGER = Identity(ANONYMOUS)
ANYBODY = Identity(OPEN)
CLAIMS_TO_BE_ANN = Identity(OPEN, "ann")


@pytest.mark.parametrize(
    ("who", "action", "channel", "allowed", "rule"),
    [
        # where authentication is off, everybody may subscribe
        (ANYBODY, SUBSCRIBE, "alerts:ann", True, "open"),
        (CLAIMS_TO_BE_ANN, SUBSCRIBE, "live_metrics:c:bob", True, "open"),
        # but publishing is off unless a rule allows it
        (ANYBODY, PUBLISH, "job_progress:1", False, "rules.anonymous_publish"),
        (ANYBODY, PUBLISH, "votes:1", True, "rules.anonymous_publish"),
        (CLAIMS_TO_BE_ANN, PUBLISH, "chat:1", False, "rules.anonymous_publish"),
        # the daemons' own
        *((who, SUBSCRIBE, "broker:x", False, "reserved") for who in (ANYBODY, SERVICE, ADMIN_KEY)),
        *((who, PUBLISH, "broker:x", False, "reserved") for who in (ANYBODY, SERVICE, ADMIN_KEY)),
        (SERVICE, PUBLISH, "broker", False, "reserved"),
        # users whose token says nothing
        (ANN, SUBSCRIBE, "job_progress:1", True, "rules.user_subscribe"),
        (ANN, SUBSCRIBE, "chat:1", False, "rules.user_subscribe"),
        (ANN, SUBSCRIBE, "alerts:ann", True, "rules.user_subscribe"),
        (ANN, SUBSCRIBE, "live_metrics:c:ann", True, "rules.user_subscribe"),
        (ANN, PUBLISH, "chat:1", True, "rules.user_publish"),
        (ANN, PUBLISH, "job_progress:1", False, "rules.user_publish"),
        (ANN, PUBLISH, "typing:ann", True, "rules.user_publish"),
        (ANN, PUBLISH, "typing:bob", False, "rules.user_publish"),
        # a channel with a userId part belongs to that user alone
        (ANN, SUBSCRIBE, "alerts:bob", False, "owner"),
        (ANN, SUBSCRIBE, "job_progress:1:bob", False, "owner"),
        (ANN, SUBSCRIBE, "inbox:bob", False, "owner"),
        (SERVICE, SUBSCRIBE, "alerts:ann", False, "owner"),
        (SERVICE, SUBSCRIBE, "job_progress:1:ann", False, "owner"),
        (ADMIN, SUBSCRIBE, "alerts:ann", False, "owner"),
        (STRANGER, SUBSCRIBE, "inbox:bob", False, "owner"),
        (STRANGER, SUBSCRIBE, "inbox:None", False, "owner"),
        (CI, SUBSCRIBE, "alerts:ann", False, "owner"),
        (ANN, PUBLISH, "chat:1:bob", False, "owner"),
        (ANN, PUBLISH, "chat:1:ann", True, "rules.user_publish"),
        (STRANGER, PUBLISH, "votes:1:bob", False, "owner"),
        (CLAIMS_TO_BE_ANN, PUBLISH, "votes:1:bob", False, "owner"),
        # services publish for users, by a claim or a key
        (SERVICE, PUBLISH, "alerts:ann", True, "claim publish"),
        (SERVICE, PUBLISH, "job_progress:1:ann", True, "claim publish"),
        (SERVICE, PUBLISH, "chat:1", False, "claim publish"),
        (CI, PUBLISH, "alerts:ann", True, "rules.key_publish"),
        (CI, PUBLISH, "chat:1", False, "rules.key_publish"),
        (CI, SUBSCRIBE, "job_progress:1", False, "api key"),
        (ADMIN_KEY, SUBSCRIBE, "job_progress:1", False, "api key"),
        # claims stand in place of the rules, also when they say nothing at all
        (MUTE, SUBSCRIBE, "job_progress:1", False, "claim subscribe"),
        (MUTE, PUBLISH, "chat:1", False, "claim publish"),
        (SELF, SUBSCRIBE, "job_progress:42", True, "claim subscribe"),
        (SELF, SUBSCRIBE, "job_progress:52", False, "claim subscribe"),
        (SELF, SUBSCRIBE, "alerts:ann", False, "claim subscribe"),
        (SELF, PUBLISH, "chat:1", True, "rules.user_publish"),
        # whoever may use the admin calls may publish
        (ADMIN, PUBLISH, "alerts:ann", True, "admin"),
        (ADMIN_KEY, PUBLISH, "anything", True, "admin"),
        (ADMIN, SUBSCRIBE, "chat:1", False, "rules.user_subscribe"),
        # without a token
        (STRANGER, SUBSCRIBE, "public_x", True, "rules.anonymous_subscribe"),
        (STRANGER, SUBSCRIBE, "public_x:1", False, "rules.anonymous_subscribe"),
        (STRANGER, SUBSCRIBE, "job_progress:1", False, "rules.anonymous_subscribe"),
        (STRANGER, PUBLISH, "votes:1", True, "rules.anonymous_publish"),
        (STRANGER, PUBLISH, "chat:1", False, "rules.anonymous_publish"),
    ],
)  # fmt: skip
def test_decisions(who: Identity, action: str, channel: str, allowed: bool, rule: str) -> None:
    decision = BOOK.decide(who, action, Channel.from_name(channel))
    assert (decision.allowed, decision.rule) == (allowed, rule)


def test_what_is_said() -> None:
    def said(who: Identity, action: str, channel: str) -> Decision:
        return BOOK.decide(who, action, Channel.from_name(channel))

    assert said(ANN, SUBSCRIBE, "job_progress:1") == Decision(
        True, "rules.user_subscribe", "the setting rules.user_subscribe has job_progress:*"
    )
    assert said(ANN, SUBSCRIBE, "alerts:bob") == Decision(False, "owner", "the channel belongs to user bob alone")
    assert said(MUTE, PUBLISH, "chat") == Decision(
        False, "claim publish", "the token's claim publish has no pattern for it (none at all)"
    )
    many = Identity(USER, "ann", subscribe=tuple(f"a{number}" for number in range(12)))
    assert said(many, SUBSCRIBE, "b").why == (
        "the token's claim subscribe has no pattern for it (a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, ...)"
    )


def test_a_channel_written_with_a_user_is_that_users_also_where_its_type_says_otherwise() -> None:
    for_bob = Channel.from_wire({"type": "job_progress", "userId": "bob"})
    assert BOOK.decide(ANN, SUBSCRIBE, for_bob) == Decision(
        False, "owner", "the channel is said to be of user bob, who is somebody else"
    )
    assert BOOK.decide(Identity(USER, "bob"), SUBSCRIBE, for_bob).allowed


def test_what_a_token_has_for_patterns_cannot_begin_a_line() -> None:
    bad = Identity(USER, "ann", subscribe=("a\r\ndata: x", "\u2028\x85\x1b[0m"))
    why = BOOK.decide(bad, SUBSCRIBE, Channel("a")).why
    assert why == r"the token's claim subscribe has no pattern for it (a\r\ndata: x, \u2028\x85\x1b[0m)"


NAMES = st.lists(st.sampled_from(["alerts", "chat", "inbox", "a", "b", "broker"]), min_size=1, max_size=3).map(":".join)
USERS = st.sampled_from(["a", "b", "*", "a:b", ""])
CLAIMS = st.none() | st.lists(
    st.sampled_from(["*", "*:*", "alerts:{sub}", "alerts:a", "chat:*", "bad pattern", "{sub}"]), max_size=3
).map(tuple)
IDENTITIES = st.one_of(
    st.builds(Identity, st.just(USER), USERS, subscribe=CLAIMS, publish=CLAIMS, is_admin=st.booleans()),
    st.builds(Identity, st.just(OPEN), st.none() | USERS),
    st.builds(Identity, st.just(KEY), name=st.just("ci"), is_admin=st.booleans()),
    st.just(Identity(ANONYMOUS)),
)


def owner(name: str) -> str | None:
    parts = name.split(":")
    if len(parts) == 3 or (len(parts) == 2 and parts[0] in ("alerts", "inbox")):
        return parts[-1]
    return None


@given(IDENTITIES, st.sampled_from([SUBSCRIBE, PUBLISH]), NAMES)
def test_what_holds_for_everybody(who: Identity, action: str, name: str) -> None:
    decision = BOOK.decide(who, action, Channel.from_name(name))
    assert decision.why and decision.rule
    if not decision.allowed:
        assert action == PUBLISH or who.kind != OPEN or decision.rule == "reserved"
        return
    assert not name.startswith("broker")
    belongs_to = owner(name)
    if action == SUBSCRIBE:
        assert who.kind == OPEN or belongs_to in (None, who.user_id)
        assert who.kind != KEY
    elif belongs_to not in (None, who.user_id):
        # Into what is another's writes only who was given that right by name.
        assert who.kind == KEY or who.is_admin or who.publish is not None


@given(IDENTITIES, st.sampled_from([SUBSCRIBE, PUBLISH]), NAMES)
def test_without_any_rule_nothing_is_allowed_but_what_tokens_say(who: Identity, action: str, name: str) -> None:
    book = RuleBook(Rules(user_subscribe=(), key_publish=()), TYPES)
    if book.decide(who, action, Channel.from_name(name)).allowed:
        claim = who.subscribe if action == SUBSCRIBE else who.publish
        assert claim or (who.is_admin and action == PUBLISH) or (who.kind == OPEN and action == SUBSCRIBE)


def test_deciding_takes_microseconds() -> None:
    """Typically 3; the bound leaves room for a busy machine."""
    channel = Channel.from_name("live_metrics:c:ann")
    best = min(_seconds(ANN, channel) for _ in range(5))
    assert best < 30e-6


def _seconds(who: Identity, channel: Channel) -> float:
    began = time.thread_time()
    for _ in range(1000):
        BOOK.decide(who, SUBSCRIBE, channel)
    return (time.thread_time() - began) / 1000
