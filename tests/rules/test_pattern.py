"""Channel patterns: what each means, held against a naive model; whom `{sub}` lets in; that none is slow."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.channel import Channel
from broker.pattern import Pattern


@pytest.mark.parametrize(
    ("text", "user", "matching", "others"),
    [
        ("*", None, ["a", "a:b", "a:b:c"], []),
        ("*:*", None, ["a:b", "a:b:c"], ["a"]),
        ("*:*:*", None, ["a:b:c"], ["a", "a:b"]),
        ("job:*", None, ["job:1", "job:1:ann"], ["job", "jobs:1", "ajob:1"]),
        ("job:**", None, ["job:1", "job:1:ann"], ["job"]),
        ("job:*:ann", None, ["job:1:ann"], ["job:ann", "job:1", "job:1:bob"]),
        ("job:a*", None, ["job:a", "job:ab"], ["job:a:x", "job:b", "job:ba"]),
        ("job:*a*b", None, ["job:ab", "job:xaxb", "job:aab"], ["job:ba", "job:a", "job:abx"]),
        ("a*a", None, ["aa", "aba"], ["a"]),
        ("ab*ba:x", None, ["abba:x", "ababa:x"], ["aba:x", "ab:x"]),
        ("*_progress:*", None, ["job_progress:1", "_progress:1"], ["job_progress", "job_progres:1"]),
        ("alerts:{sub}", "7", ["alerts:7"], ["alerts:77", "alerts:8", "alerts:7:x", "alerts"]),
        ("alerts:{sub}", "*", [], ["alerts:7", "alerts"]),
        ("alerts:{sub}", "7:x", [], ["alerts:7", "alerts:7:x"]),
        ("alerts:{sub}", "{sub}", [], ["alerts:7"]),
        ("alerts:{sub}", "", [], ["alerts:7", "alerts"]),
        ("x{sub}", "", [], ["x"]),
        ("alerts:{sub}", None, [], ["alerts:7", "alerts:None", "alerts"]),
        ("*:{sub}", ".*", [], ["alerts:7", "alerts:.x"]),
        ("*:{sub}", "a+", ["alerts:a+"], ["alerts:aa"]),
        ("u-{sub}-*:x", "ann", ["u-ann-1:x", "u-ann-:x"], ["u-an-1:x", "u-ann:x"]),
        ("{sub}{sub}", "ab", ["abab"], ["ab", "ababab"]),
        ("a.b", None, ["a.b"], ["axb"]),
    ],
)
def test_what_a_pattern_means(text: str, user: str | None, matching: list[str], others: list[str]) -> None:
    pattern = Pattern.parse(text)
    assert [name for name in matching + others if pattern.matches(Channel.from_name(name), user)] == matching


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is no channel pattern of 1 to 400 characters, such as job_progress:*"),
        ("a" * 401, "is no channel pattern of 1 to 400 characters, such as job_progress:*"),
        (None, "is no channel pattern of 1 to 400 characters, such as job_progress:*"),
        (["a"], "is no channel pattern of 1 to 400 characters, such as job_progress:*"),
        (7, "is no channel pattern of 1 to 400 characters, such as job_progress:*"),
        ("a:b:c:d", "has 4 parts; a channel has at most 3"),
        ("a::b", "has an empty part; write * for any"),
        (":", "has an empty part; write * for any"),
        *(
            (
                text,
                "has a part that no channel has; use up to 128 letters, digits and _ - . @ = + ~, "
                "and * for any of them, {sub} for the user",
            )
            for text in (
                "a b",
                "a\nb",
                "{user}",
                "{sub",
                "{SUB}",
                "ä:*",
                "a/*",
                "a\0",
                "x" * 129,
                "\u2028",
                "a?",
                "[a]",
            )
        ),
    ],
)
def test_patterns_that_are_none(text: str, what: str) -> None:
    for _ in range(2):  # a refusal is not kept either
        with pytest.raises(ValueError) as caught:
            Pattern.parse(text)
        assert str(caught.value) == what


LETTERS = "ab*"
NAMES = st.lists(st.text("abs", min_size=1, max_size=6), min_size=1, max_size=3).map(":".join)
PARTS = st.lists(st.sampled_from(["a", "b", "*", "**", "{sub}"]), min_size=1, max_size=7).map("".join)
PATTERNS = st.lists(PARTS, min_size=1, max_size=3).map(":".join)
USERS = st.none() | st.text("ab*:{}.s", max_size=4)


def naive(text: str, name: str, user: str | None) -> bool:
    """The docstring of the module, part by part, the simple way."""
    parts, names = text.split(":"), name.split(":")
    if parts[-1].strip("*") == "" and len(names) > len(parts):
        names = names[: len(parts)]
    if len(names) != len(parts) or (not user and "{sub}" in text):
        return False

    def one(pieces: list[str], rest: str) -> bool:
        if not pieces:
            return not rest
        if pieces[0] == "*":
            return any(one(pieces[1:], rest[at:]) for at in range(len(rest) + 1))
        written = user if pieces[0] == "{sub}" else pieces[0]
        assert written is not None
        return rest.startswith(written) and one(pieces[1:], rest[len(written) :])

    return all(
        one(re.findall(r"\*|\{sub\}|[^*{]+", re.sub(r"\*+", "*", part)), given)
        for part, given in zip(parts, names, strict=True)
    )


@settings(max_examples=500)
@given(PATTERNS, NAMES, USERS)
def test_it_means_what_the_simple_way_says(text: str, name: str, user: str | None) -> None:
    assert Pattern.parse(text).matches(Channel.from_name(name), user) == naive(text, name, user)


@given(PATTERNS.filter(lambda text: "{sub}" in text), NAMES, st.text("ab*:{}.s", min_size=1, max_size=4))
def test_what_a_user_is_called_never_widens_a_pattern(text: str, name: str, user: str) -> None:
    """A match with a user is one with the user's letters, as they are, in place of `{sub}`."""
    if Pattern.parse(text).matches(Channel.from_name(name), user):
        assert user in name
        assert not set(user) & set("*:{}")
        assert Pattern.parse(text.replace("{sub}", user)).matches(Channel.from_name(name), None)


@given(st.text(), st.text())
def test_any_text_is_a_pattern_or_refused(text: str, user: str) -> None:
    try:
        pattern = Pattern.parse(text)
    except ValueError as error:
        assert str(error).isascii() and str(error).isprintable()
        return
    assert pattern.text == text and text.isascii() and text.isprintable()
    assert isinstance(pattern.matches(Channel.from_name("a:b"), user), bool)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("*a" * 60 + "*b", "a" * 128),
        ("*" + "a*" * 190 + "b", "a" * 128),
        ("*{sub}" * 60 + "*b", "a" * 128),
        ("*" + "a" * 60 + "b*" + "a" * 60 + "c", "a" * 128),
        (":".join(["*a" * 60 + "*b"] * 3), ":".join(["a" * 128] * 3)),
    ],
)
def test_no_pattern_is_slow(text: str, name: str) -> None:
    """Where a matcher goes back, these take longer than the universe has time."""
    pattern, channel = Pattern.parse(text), Channel.from_name(name)
    began = time.thread_time()
    assert not any(pattern.matches(channel, "a") for _ in range(100))
    assert (time.thread_time() - began) / 100 < 0.001
