"""What is said to Redis to publish, and in which order, whatever it answers."""

from __future__ import annotations

from typing import Any

import pytest

from broker.history.keys import Keys
from broker.history.scripts import PUBLISH, PUBLISH_ALL
from broker.publisher.conversation import CHUNK_BYTES, CHUNK_EVENTS, Conversation, Scripting
from broker.publisher.exchange import Outcome, Refusal
from broker.publisher.publication import Publication

_UNKNOWN = Refusal("No matching script", is_unknown_script=True)
_DENIED = Refusal("may not", is_denial=True)


def _about(*payloads: bytes, scripting: Scripting | None = None, key: str | None = None) -> Conversation:
    batch = [Publication("alerts:1", payload, key) for payload in payloads]
    return Conversation(Keys("app."), batch, scripting or Scripting())


def _said(conversation: Conversation) -> list[tuple[Any, ...]]:
    """The verb of each command, its script where that is known, and its events."""
    said: list[tuple[Any, ...]] = []
    for verb, *arguments in conversation.ask():
        if verb == "PUBLISH":
            channel, event = arguments
            assert channel == "app.alerts:1"
            said.append(("PUBLISH", event))
            continue
        script = PUBLISH if arguments[0] in (PUBLISH.text, PUBLISH.digest) else PUBLISH_ALL
        assert arguments[0] == (script.digest if verb == "EVALSHA" else script.text)
        said.append((verb, *(each for each in arguments if isinstance(each, bytes))))
    return said


def _all(*answers: int | bytes, unkept: int = 0, why: bytes = b"") -> list[Any]:
    return [0, len(answers), b"", list(answers), unkept, why]


def test_a_chunk_waits_for_the_one_before() -> None:
    events = [b"%d" % n for n in range(CHUNK_EVENTS + 1)]
    conversation = _about(*events)
    assert _said(conversation) == [("EVALSHA", *events[:-1])]
    # Not known (any more): nothing of it ran, and the same goes again before anything else does.
    conversation.hear(_UNKNOWN)
    assert conversation.answers == []
    assert _said(conversation) == [("EVAL", *events[:-1])]
    conversation.hear(_all(*range(CHUNK_EVENTS)))
    assert _said(conversation) == [("EVALSHA", events[-1])]
    conversation.hear(_UNKNOWN)
    assert _said(conversation) == [("EVAL", events[-1])]
    conversation.hear(9)
    assert _said(conversation) == []
    assert conversation.outcome() == Outcome([*range(CHUNK_EVENTS), 9])


def test_a_chunk_is_bounded_in_bytes_and_has_an_event_at_least() -> None:
    half, large = b"x" * (CHUNK_BYTES // 2), b"y" * (2 * CHUNK_BYTES)
    conversation = _about(half, half, b"z", large, b"z")
    said = []
    while chunk := _said(conversation):
        said += chunk
        conversation.hear(_all(*[1] * (len(chunk[0]) - 1)) if len(chunk[0]) > 2 else 1)
    assert said == [("EVALSHA", half, half), ("EVALSHA", b"z"), ("EVALSHA", large), ("EVALSHA", b"z")]
    assert conversation.answers == [1] * 5


def test_what_is_refused_twice_is_refused() -> None:
    conversation = _about(b"1", b"2")
    conversation.ask()
    conversation.hear(_UNKNOWN)
    conversation.ask()
    conversation.hear(_UNKNOWN)
    assert (conversation.ask(), conversation.answers) == ([], [_UNKNOWN, _UNKNOWN])


def test_any_other_error_is_the_answer_to_the_whole_chunk() -> None:
    busy = Refusal("BUSY")
    conversation = _about(*[b"1"] * (CHUNK_EVENTS + 1))
    conversation.ask()
    conversation.hear(busy)
    assert _said(conversation) == [("EVALSHA", b"1")]
    conversation.hear(2)
    assert (conversation.ask(), conversation.answers) == ([], [busy] * CHUNK_EVENTS + [2])


def test_a_denied_script_is_followed_by_plain_publishes_and_no_other_script() -> None:
    scripting = Scripting()
    events = [b"%d" % n for n in range(CHUNK_EVENTS + 3)]
    conversation = _about(*events, scripting=scripting)
    conversation.ask()
    conversation.hear(_DENIED)
    assert _said(conversation) == [("PUBLISH", event) for event in events[:CHUNK_EVENTS]]
    for place in range(CHUNK_EVENTS):
        # Each answer counts at once, whether or not the others come.
        conversation.hear(place)
        assert len(conversation.answers) == place + 1
    assert _said(conversation) == [("PUBLISH", event) for event in events[CHUNK_EVENTS:]]
    for _ in range(3):
        conversation.hear(0)
    assert conversation.outcome() == Outcome([*range(CHUNK_EVENTS), 0, 0, 0], why_plain="may not")
    assert _said(_about(b"1", b"2", scripting=scripting)) == [("PUBLISH", b"1"), ("PUBLISH", b"2")]


def test_what_is_denied_plain_too_says_nothing_of_scripts() -> None:
    scripting = Scripting()
    conversation = _about(b"1", scripting=scripting)
    conversation.ask()
    conversation.hear(_DENIED)
    assert _said(conversation) == [("PUBLISH", b"1")]
    conversation.hear(_DENIED)
    assert (conversation.ask(), conversation.outcome()) == ([], Outcome([_DENIED]))
    assert not scripting.is_refused


def test_those_of_a_chunk_that_were_denied_follow_plain() -> None:
    conversation = _about(b"1", b"2", b"3", b"4")
    conversation.ask()
    conversation.hear(_all(5, b"NOPERM", 6, b"NOPERM", unkept=1, why=b"full"))
    assert conversation.answers == [5]
    assert _said(conversation) == [("PUBLISH", b"2"), ("PUBLISH", b"4")]
    conversation.hear(_DENIED)
    assert conversation.answers == [5, _DENIED, 6]
    conversation.hear(7)
    assert conversation.ask() == []
    assert conversation.outcome() == Outcome([5, _DENIED, 6, 7], None, 1, "full", "NOPERM")


def test_with_a_key_there_is_no_plain_publish() -> None:
    scripting = Scripting(is_refused=True)
    conversation = _about(b"1", scripting=scripting, key="k")
    assert _said(conversation) == [("EVALSHA", b"1")]
    conversation.hear(_DENIED)
    assert (conversation.ask(), conversation.answers) == ([], [_DENIED])


def test_one_that_is_not_kept() -> None:
    conversation = _about(b"1")
    conversation.ask()
    conversation.hear([3, b"full"])
    assert (conversation.ask(), conversation.outcome()) == ([], Outcome([3], None, 1, "full"))


@pytest.mark.parametrize("reply", [b"OK", None, [1], [0, 1], [0, 1, b"", [1], 0, b""]])
def test_what_is_no_answer(reply: object) -> None:
    conversation = _about(b"1", b"2")
    conversation.ask()
    with pytest.raises((ValueError, TypeError)):
        conversation.hear(reply)
