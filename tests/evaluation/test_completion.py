"""The stream of a chat completion: however its bytes are cut, its text is the same; any other end is an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.errors import EvaluationError
from broker.evaluation.completion import ANSWER_MAX_CHARACTERS, LINE_MAX_BYTES, ChatCompletion, said
from tests.actors.model_server import DONE, chunk


def read(*parts: bytes) -> str:
    completion = ChatCompletion()
    pieces = [piece for part in parts for piece in completion.feed(part)]
    pieces += [] if completion.is_whole else completion.end()
    assert "" not in pieces
    return "".join(pieces)


def failure(*parts: bytes) -> tuple[str, list[str]]:
    with pytest.raises(EvaluationError) as caught:
        read(*parts)
    return str(caught.value), getattr(caught.value, "__notes__", [])


MALFORMED = "it sent something that is no chat completion chunk"
TEXT = "Schön — 漢字 😀\u2028next\x85line\r\n"
STREAM = (
    b"\xef\xbb\xbf"
    + chunk("Schön — ")
    + b": hello\n\n"
    + b"event: message\nid: 7\n"
    + chunk("漢字 😀")
    + chunk("\u2028next\x85line\r\n")
    + b'data: {"choices": [], "usage": {"total_tokens": 9}}\n\n'
    + chunk(finish="stop")
    + DONE
)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_every_cut_in_two_and_bytewise(ending: bytes) -> None:
    stream = STREAM.replace(b"\n", ending)
    for cut in range(len(stream) + 1):
        assert read(stream[:cut], stream[cut:]) == TEXT
    assert read(*(bytes([byte]) for byte in stream)) == TEXT


def test_data_over_several_lines_is_one_event() -> None:
    body = chunk("hi").removeprefix(b"data: ")
    lines = json.dumps(json.loads(body), indent=1).encode().split(b"\n")
    for ending in (b"\n", b"\r\n", b"\r"):
        stream = b"".join(b"data:%b%b" % (line, ending) for line in lines) + ending + DONE
        assert read(stream) == "hi"
        assert read(*(bytes([byte]) for byte in stream)) == "hi"


def test_reasoning_and_other_choices_are_passed_over() -> None:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"role": "assistant", "content": None, "reasoning_content": "secret"}}]},
        {"choices": [{"delta": {"content": "a"}, "finish_reason": None}, {"delta": {"content": "other"}}]},
        {"choices": [{"delta": None, "finish_reason": "STOP"}], "citations": ["x"]},
    ]
    assert read(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + DONE) == "a"


def test_a_surrogate_pair_over_two_chunks_is_one_character_and_a_lone_half_is_replaced() -> None:
    halves = [b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % half for half in (b"\\ud83d", b"\\ude00")]
    assert read(*halves, DONE) == "😀"
    assert read(halves[1], DONE) == "\ufffd"
    assert read(halves[0], chunk("x"), DONE) == "\ufffdx"


def test_the_ends_that_are_whole() -> None:
    assert read(chunk("a") + DONE + b"data: garbage\n\n") == "a"
    assert read(chunk("a") + b"data: [DONE]") == "a"
    assert read(chunk("a") + chunk(finish="stop")) == "a"
    assert read(chunk("a", finish="stop").rstrip(b"\n")) == "a"
    assert read(chunk("a", finish="stop"), chunk("b", finish="stop"), DONE) == "ab"


@pytest.mark.parametrize(
    ("parts", "why", "notes"),
    [
        ((b"",), "its answer ended half way", []),
        ((chunk("a"),), "its answer ended half way", []),
        ((b"data: {\n\n",), MALFORMED, ["{"]),
        ((b"data: \xff\n\n",), MALFORMED, ["\\ufffd"]),
        ((b"data: []\n\n",), MALFORMED, ["[]"]),
        ((b'data: {"choices": {"a": 1}}\n\n',), MALFORMED, None),
        ((b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',), MALFORMED, None),
        ((b"data: " + b"[" * 100_000 + b"\n\n",), MALFORMED, None),
        ((b'data: {"error": {"message": "too busy"}}\n\n',), "its provider reported an error half way", ["too busy"]),
        ((chunk("a"), chunk(finish="length")), "its answer was cut off at its length limit", []),
        ((chunk(finish="content_filter"),), "its answer was cut off by its provider's content filter", []),
        ((chunk(finish="tool_calls"),), "its answer was cut off for a reason of its provider", []),
        ((b"data: " + b"x" * LINE_MAX_BYTES,), f"it sent a line of over {LINE_MAX_BYTES} bytes", []),
        ((b"data: x\n" * (LINE_MAX_BYTES // 2),), f"it sent an event of over {LINE_MAX_BYTES} bytes", []),
        (
            (chunk("x" * ANSWER_MAX_CHARACTERS), chunk("y")),
            f"it answered more than {ANSWER_MAX_CHARACTERS} characters",
            [],
        ),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer(parts: tuple[bytes, ...], why: str, notes: list[str] | None) -> None:
    found, found_notes = failure(*parts)
    assert found == why
    if notes is not None:
        assert found_notes == notes


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "no such model", "code": 404}}', "no such model"),
        (b'[{"error": {"code": 400, "message": "bad\\nkey"}}]', "bad\\nkey"),
        (b'{"error": "plain"}', "plain"),
        (b'{"message": "bare"}', "bare"),
        (b"<html>\xff", "<html>\\ufffd"),
        (b"[]", "[]"),
        (b"x" * 9999, "x" * 500),
    ],
)
def test_what_a_provider_says_in_its_error(body: bytes, text: str) -> None:
    assert said(body) == text
