"""Thinking and verdict are told apart, however the answer is cut; nothing of a verdict is shown."""

from __future__ import annotations

import pytest

from broker.errors import EvaluationError
from broker.evaluation.score import NAMES
from broker.evaluation.thinking import ThinkingStream

V = '{"score": 1, "reasoning": "a } in \\" it { and ```"}'


def read(*pieces: str) -> tuple[str, str]:
    """What is shown, and the verdict or why there is none."""
    stream = ThinkingStream(NAMES)
    shown = "".join([*map(stream.feed, pieces), stream.end()])
    try:
        return shown, stream.verdict()
    except EvaluationError as error:
        return shown, str(error)


CASES = [
    # (the answer, what is shown, the verdict)
    (f"Prose.\n\n```json\n{V}\n```", "Prose.\n\n", V),
    (f"Prose.\n```JSON\r\n{V}\r\n```\r\n", "Prose.\n", V),
    (f"Prose.\n```\n{V}\n```\n\n", "Prose.\n", V),
    (f"Prose. {V}", "Prose. ", V),
    (V, "", V),
    (f"Verdict: `{V}` so.", "Verdict: `` so.", V),
    (f"```json\n{V}\n```\nThat is all.", "That is all.", V),
    ('{ \n "score": 5}', "", '{ \n "score": 5}'),
    ('Deep {"score": {"a": {"b": "}"}}} end', "Deep end", '{"score": {"a": {"b": "}"}}}'),
    ("A {transcript} and {} and `code` and ```python\nx = {1: 2}\n``` too.", None, "it gave no verdict"),
    ('As {"hook": "known"} says.', None, "it gave no verdict"),
    ("Ends in a brace {", None, "it gave no verdict"),
    ("Ends in a fence ```js", None, "it gave no verdict"),
    ("", None, "it gave no verdict"),
    (f"{V} or {V}", "or ", "it gave 2 verdicts; one was asked for"),
    ('It is {"score": 80, "reas', "It is ", "its verdict has no end"),
    ('It is {"score": 80,} said.', "It is said.", '{"score": 80,}'),
    ('Odd {"score": "\\', "Odd ", "its verdict has no end"),
]


@pytest.mark.parametrize(("text", "shown", "verdict"), CASES)
def test_however_it_is_cut(text: str, shown: str | None, verdict: str) -> None:
    wanted = (text if shown is None else shown, verdict)
    assert read(text) == wanted
    for cut in range(len(text) + 1):
        assert read(text[:cut], text[cut:]) == wanted
    assert read(*text) == wanted


def test_prose_is_shown_at_once_and_only_what_may_open_is_held() -> None:
    stream = ThinkingStream(NAMES)
    assert [stream.feed(piece) for piece in ("a b ", "c `", "`", "`js", "on\n ", "x")] == [
        "a b ", "c ", "", "", "", "```json\n x",
    ]  # fmt: skip
    assert [stream.feed(piece) for piece in ("{ ", "x", "{", ' "', 'k": 1', "}", "!")] == [
        "", "{ x", "", "", "", '{ "k": 1}', "!",
    ]  # fmt: skip


def test_long_runs_of_what_may_open_do_not_cost_more_than_their_length() -> None:
    stream = ThinkingStream(NAMES)
    text = "`" * 20_000 + "{" * 20_000 + " " * 20_000 + "\n{" * 10_000
    assert "".join([*map(stream.feed, text), stream.end()]) == text
