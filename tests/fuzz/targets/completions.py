"""What a language model's provider streams: text for whoever watches and a verdict, or an error in words of ours."""

from __future__ import annotations

import json

from broker.errors import EvaluationError
from broker.evaluation.completion import ANSWER_MAX_CHARACTERS, ChatCompletion, said
from broker.evaluation.score import LEAST, MOST, NAMES, PARTS, read_score
from broker.evaluation.thinking import ThinkingStream
from tests.fuzz.reading import is_one_line
from tests.fuzz.target import Target


def check(data: bytes) -> str:
    assert is_one_line(said(data)) or not said(data)
    whole = read([data])
    at = len(data) * 5 // 11
    assert read([data[:at], data[at : at + 1], data[at + 1 :]]) == whole
    return f"{whole[0][:20]} {scored(whole[2])} {scored(data.decode(errors='replace'))}"


def read(pieces: list[bytes]) -> tuple[str, str, str]:
    """How it ended, the text, and its verdict."""
    completion, thinking = ChatCompletion(), ThinkingStream(NAMES)
    shown, text = [], ""
    how = "whole"
    try:
        for piece in (*pieces, None):
            for part in completion.end() if piece is None else completion.feed(piece):
                assert part
                text += part
                shown.append(thinking.feed(part))
    except EvaluationError as error:
        assert is_one_line(str(error)), error
        return str(error), "", ""
    shown.append(thinking.end())
    prose = "".join(shown)
    prose.encode()
    assert len(text) <= ANSWER_MAX_CHARACTERS and len(prose) <= len(text)
    try:
        verdict = thinking.verdict()
    except EvaluationError as error:
        assert is_one_line(str(error)), error
        return str(error), prose, ""
    assert verdict in text
    return how, prose, verdict


def scored(text: str) -> str:
    try:
        score = read_score(text)
    except EvaluationError as error:
        assert is_one_line(str(error)), error
        return "none"
    for number in (score.score, score.psychology, score.hook_strength, score.novelty):
        assert LEAST <= number <= MOST
    score.reasoning.encode()
    json.dumps([score.score, score.reasoning], allow_nan=False)
    return "score"


def chunk(text: str | None, finish: str | None = None) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]}).encode()


VERDICT = json.dumps({**dict.fromkeys(PARTS, 50), "reasoning": "r"})
DONE = b"data: [DONE]\n\n"

TARGET = Target(
    "completions",
    check,
    (
        chunk("Some prose. ") + chunk(f"```json\n{VERDICT}\n```") + chunk(None, "stop") + DONE,
        chunk("Prose ``") + chunk("`js") + chunk('on\n{"sc') + chunk('ore": 1, "x": "}{"}') + DONE,
        chunk('A {"other": 1} object. ') + chunk(VERDICT) + DONE,
        chunk(VERDICT) + chunk(VERDICT) + DONE,
        chunk("\ud83d") + chunk("\ude00 \ud800") + DONE,
        b": comment\r\ndata:" + chunk("x")[5:].replace(b"\n", b"\r\n") + b"event: y\r\n\r\n" + DONE,
        chunk("cut", "length"),
        b'data: {"error": {"message": "no\\u2028 money"}}\n\n',
        b'\xef\xbb\xbfdata: {"choices": []}\n\n' + DONE,
        b"data: {}\n\n",
        VERDICT.encode(),
        b"HTTP/1.1 502 Bad Gateway",
    ),
    (
        b"data: ", b"data:", b"\n\n", b"\r\r", b"\r\n\r\n", DONE, b'"choices"', b'"delta"', b'"content"',
        b'"finish_reason"', b'"stop"', b'"length"', b'"error"', b'"message"', b"null", b"[]", b"{}", b"```json",
        b"```", b"\\n", b'{\\"', b'\\"score\\"', b'"score"', b'"psychology"', b'"novelty"', b'"reasoning"',
        b"\\ud83d", b"\\ude00", b"\\u2028", b"NaN", b"100.1", b"\xef\xbb\xbf", b": ",
    ),
    frozenset({"whole score none", "its answer ended hal none none", "its answer ended hal none score"}),
    max_bytes=5_000,
)  # fmt: skip
