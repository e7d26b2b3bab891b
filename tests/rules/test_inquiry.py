"""What an evaluation is asked for with, or watched by: every refusal with its words, and what passes through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.inquiry import (
    PATHS,
    Inquiry,
    InquiryRefused,
    Watch,
    inquiry_from_body,
    inquiry_from_query,
    watch_of,
)
from broker.request import RequestRefused

COUNCIL = "/api/stream/council-score"
CREATIVE = "/api/stream/evaluate-creative"
ID = "0123456789abcdef" * 2
OTHER = "f" * 32


@pytest.mark.parametrize(("path", "kind"), PATHS.items())
def test_what_is_watched(path: str, kind: str) -> None:
    assert watch_of(path, None) is None
    assert watch_of(path, "") is None
    assert watch_of(f"{path}/", None) is None
    assert watch_of(f"{path}/{ID}", None) == Watch(kind, ID, 0, False)
    assert watch_of(path, f"{ID}:0") == Watch(kind, ID, 0, True)
    assert watch_of(f"{path}/{ID}", f"{ID}:17") == Watch(kind, ID, 17, True)
    assert watch_of(path, f"{ID}:999999999999999") == Watch(kind, ID, 999_999_999_999_999, True)


def refused_watch(path: str, last_event_id: str | None) -> tuple[int, str, str]:
    with pytest.raises(RequestRefused) as caught:
        watch_of(path, last_event_id)
    return caught.value.status, caught.value.detail, caught.value.hint


@pytest.mark.parametrize(
    "last_event_id",
    [
        "x",
        "refused",
        ID,
        f"{ID}:",
        f"{ID}:-1",
        f"{ID}:1-0",
        f"{ID}:1 ",
        f"{ID}:1\n",
        f"{ID.upper()}:1",
        f"{ID}0:1",
        f"{ID}:1:2",
        f"{ID}:{'9' * 16}",
        f"{ID}:\u0663",
        f"{ID[:-1]}*:1",
        "\x00",
    ],
)
def test_a_last_event_id_that_is_none(last_event_id: str) -> None:
    assert refused_watch(COUNCIL, last_event_id) == (
        400,
        f"Last-Event-ID {last_event_id!a} is none of this endpoint's",
        "Leave it out to start anew.",
    )


def test_a_long_last_event_id_is_cut() -> None:
    assert refused_watch(COUNCIL, "é" * 10_000)[1] == f"Last-Event-ID {'é' * 80!a} is none of this endpoint's"


def test_a_last_event_id_of_another_evaluation() -> None:
    assert refused_watch(f"{COUNCIL}/{ID}", f"{OTHER}:1") == (
        400,
        "Last-Event-ID is of another evaluation",
        "Leave it out to watch from the beginning.",
    )


@pytest.mark.parametrize("rest", ["x", ID[:-1], ID + "0", ID.upper(), f"{ID}/", f"/{ID}", f"{ID}:1", "..", "*", "é"])
def test_a_path_whose_end_is_no_id(rest: str) -> None:
    assert refused_watch(f"{CREATIVE}/{rest}", None) == (
        404,
        f"{rest!a} is no evaluation's id",
        "Use the evaluationId of `connected`.",
    )


@pytest.mark.parametrize("path", ["/", "", f"{COUNCIL}s", f"{COUNCIL}.json", "/api/stream", f" {COUNCIL}"])
def test_a_path_that_is_not_served(path: str) -> None:
    assert refused_watch(path, None) == (
        404,
        f"no stream at {path!a}",
        f"Evaluations: {COUNCIL}, {CREATIVE}.",
    )


def test_parameters_in_a_query() -> None:
    query = [("videoUrl", "https://a/b?c=d"), ("transcript", " é\n"), ("features", '{"a":[1,null]}'), ("x", "y")]
    assert inquiry_from_query(COUNCIL, query) == Inquiry(
        "council_score",
        {"videoUrl": "https://a/b?c=d", "transcript": " é\n", "features": {"a": [1, None]}},
        None,
    )
    assert inquiry_from_query(COUNCIL, [*query[:2], ("features", ""), ("userId", "u")]) == Inquiry(
        "council_score", {"videoUrl": "https://a/b?c=d", "transcript": " é\n"}, "u"
    )
    assert inquiry_from_query(CREATIVE, [("creativeId", "1"), ("content", "c"), ("type", ""), ("userId", "")]) == (
        Inquiry("creative_evaluation", {"creativeId": "1", "content": "c", "type": "creative"}, None)
    )
    assert inquiry_from_query(CREATIVE, [("type", "technical"), ("content", "c"), ("creativeId", "1")]) == (
        Inquiry("creative_evaluation", {"creativeId": "1", "content": "c", "type": "technical"}, None)
    )


def test_parameters_in_a_body() -> None:
    body = {"videoUrl": "u", "transcript": "t" * 100_000, "features": {}, "userId": "me", "more": 1}
    assert inquiry_from_body(COUNCIL, json.dumps(body).encode()) == Inquiry(
        "council_score", {"videoUrl": "u", "transcript": "t" * 100_000, "features": {}}, "me"
    )
    assert inquiry_from_body(COUNCIL, b'{"videoUrl":"u","transcript":"t","features":null,"userId":null}') == Inquiry(
        "council_score", {"videoUrl": "u", "transcript": "t"}, None
    )
    assert inquiry_from_body(CREATIVE, b'{"creativeId":"1","content":"c","type":null}') == Inquiry(
        "creative_evaluation", {"creativeId": "1", "content": "c", "type": "creative"}, None
    )


def refused_query(path: str, **query: str) -> str:
    with pytest.raises(InquiryRefused) as caught:
        inquiry_from_query(path, list(query.items()))
    return str(caught.value)


def test_what_is_wrong_with_a_query() -> None:
    whole = {"videoUrl": "u", "transcript": "t"}
    assert refused_query(COUNCIL) == "Missing required parameters: videoUrl, transcript"
    assert refused_query(COUNCIL, videoUrl="", transcript="t") == "Missing required parameters: videoUrl"
    assert refused_query(COUNCIL, videoUrl="u") == "Missing required parameters: transcript"
    assert refused_query(CREATIVE) == "Missing required parameters: creativeId, content"
    assert refused_query(COUNCIL, **whole, features="x").startswith("features is not JSON: ")
    assert refused_query(COUNCIL, **whole, features="[" * 100_000).startswith("features is not JSON: ")
    assert refused_query(COUNCIL, **whole, features="\ud800").startswith("features is not JSON: ")
    assert refused_query(COUNCIL, **whole, features="[]") == "features is not a JSON object"
    assert refused_query(COUNCIL, **whole, features="0") == "features is not a JSON object"
    assert refused_query(COUNCIL, **whole, userId="u" * 1025) == "userId has 1025 characters; at most 1024"
    assert refused_query(CREATIVE, creativeId="1", content="c", type="x" * 100) == (
        f"type '{'x' * 80}' is none of creative, technical, performance"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "Missing required parameters: creativeId, content"),
        (b'{"creativeId":null,"content":""}', "Missing required parameters: creativeId, content"),
        (b'{"creativeId":1,"content":"c"}', "creativeId is not a string"),
        (b'{"creativeId":"1","content":{}}', "content is not a string"),
        (b'{"creativeId":"1","content":[]}', "content is not a string"),
        (b'{"creativeId":"1","content":false}', "content is not a string"),
        (b'{"creativeId":"1","content":"c","type":"x"}', "type 'x' is none of creative, technical, performance"),
        (b'{"creativeId":"1","content":"c","type":0}', "type 'int' is none of creative, technical, performance"),
        (b'{"creativeId":"1","content":"c","type":[]}', "type 'list' is none of creative, technical, performance"),
        (b'{"creativeId":"1","content":"c","userId":7}', "userId is not a string"),
        (b'{"creativeId":"1","content":"c","userId":"%b"}' % (b"u" * 1025), "userId has 1025 characters; at most 1024"),
        (b"[]", "the body is not a JSON object"),
        (b'"a"', "the body is not a JSON object"),
        (b"7", "the body is not a JSON object"),
        (b"null", "the body is not a JSON object"),
        (b"", "the body is not JSON: Input data was truncated"),
        (b"{", "the body is not JSON: Input data was truncated"),
        (b"creativeId=1", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
        (
            b'{"a":"\xff"}',
            "the body is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
    ],
)
def test_what_is_wrong_with_a_body(body: bytes, words: str) -> None:
    with pytest.raises(InquiryRefused) as caught:
        inquiry_from_body(CREATIVE, body)
    assert str(caught.value) == words


def test_features_in_a_body_are_an_object() -> None:
    for features in ("[]", '""', "0", "false", '"{}"'):
        with pytest.raises(InquiryRefused, match=r"^features is not a JSON object$"):
            inquiry_from_body(COUNCIL, b'{"videoUrl":"u","transcript":"t","features":%b}' % features.encode())


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_nesting_without_end_is_refused_and_not_fatal(nested: bytes) -> None:
    for body in (nested, b'{"videoUrl":"u","transcript":"t","features":{"a":%b}}' % nested):
        with pytest.raises(InquiryRefused, match=r"^the body is not JSON: "):
            inquiry_from_body(COUNCIL, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PATH = st.sampled_from([*PATHS, *(f"{path}/{ID}" for path in PATHS)]) | st.text(max_size=60)
NAMES = ("videoUrl", "transcript", "features", "creativeId", "content", "type", "userId")
ANY_TEXT = st.text() | st.text(st.characters(min_codepoint=0, max_codepoint=255))


@given(PATH | st.builds("{}/{}".format, st.sampled_from(list(PATHS)), ANY_TEXT), st.none() | ANY_TEXT)
def test_whatever_is_watched_is_an_evaluation_or_refused(path: str, last_event_id: str | None) -> None:
    try:
        found = watch_of(path, last_event_id)
    except RequestRefused as bad:
        assert bad.status in (400, 404)
        assert bad.detail.isascii() and bad.detail.isprintable()
    else:
        assert found is None or (found.kind in PATHS.values() and len(found.id) == 32)


def assert_checked(inquiry: Inquiry) -> None:
    names = {"council_score": {"videoUrl", "transcript"}, "creative_evaluation": {"creativeId", "content", "type"}}
    assert set(inquiry.parameters) - {"features"} == names[inquiry.kind]
    assert all(value and isinstance(value, str) for name, value in inquiry.parameters.items() if name != "features")
    assert isinstance(inquiry.parameters.get("features", {}), dict)
    assert inquiry.user_id is None or inquiry.user_id


@given(PATH, st.lists(st.tuples(st.sampled_from(NAMES) | ANY_TEXT, ANY_TEXT | JSON.map(json.dumps))))
def test_whatever_is_asked_by_query_is_checked_or_refused(path: str, query: list[tuple[str, str]]) -> None:
    try:
        assert_checked(inquiry_from_query(path, query))
    except (InquiryRefused, RequestRefused):
        pass


OBJECT = st.fixed_dictionaries({}, optional={name: JSON | st.text(min_size=1) for name in NAMES})


@given(PATH, st.binary() | JSON.map(json.dumps).map(str.encode) | OBJECT.map(json.dumps).map(str.encode))
def test_whatever_is_asked_by_body_is_checked_or_refused(path: str, body: bytes) -> None:
    try:
        assert_checked(inquiry_from_body(path, body))
    except (InquiryRefused, RequestRefused):
        pass


@given(st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\x00", b"\\ud800", b"\\u0000"]), st.integers(0, 60))
def test_bytes_that_are_no_text_anywhere_in_a_body(part: bytes, at: int) -> None:
    body: Any = b'{"videoUrl":"uuuuuuu","transcript":"t","features":{"a":"b"}}'
    try:
        assert_checked(inquiry_from_body(COUNCIL, body[:at] + part + body[at:]))
    except InquiryRefused:
        pass
