"""What is fit to be delivered: exactly what the standard library, told to be strict, can read."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.types import TypeOptions
from broker.events import JobProgress
from broker.message import NOT_AN_EVENT, NOT_JSON, NOT_UTF8, REFUSALS, TOO_BIG, explained, refusal

LIMIT = 1024


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"a":1}', None),
        (b' {"a" : [1, 2.5e3, null, true]}\r\n', None),
        ('{"a":"é\u2028\U0001f680"}'.encode(), None),
        (b'"text"', None),
        (b'{"a":"\\ud800"}', None),
        (b"", NOT_JSON),
        (b"{", NOT_JSON),
        (b"{'a':1}", NOT_JSON),
        (b'{"a":1}{"b":2}', NOT_JSON),
        (b'{"a":NaN}', NOT_JSON),
        (b'{"a":NaN,"b":"\\ud800"}', NOT_JSON),
        (b'{"a":"\n"}', NOT_JSON),
        (b"\xef\xbb\xbf{}", NOT_JSON),
        (b'{"a":"\xff"}', NOT_UTF8),
        (b'{"a":"\xed\xa0\x80"}', NOT_UTF8),
        (b"[" * 1000 + b"x", NOT_JSON),
        (b'"' + b"x" * (LIMIT - 2) + b'"', None),
        (b'"' + b"x" * (LIMIT - 1) + b'"', TOO_BIG),
    ],
)
def test_what_is_refused_and_why(payload: bytes, reason: str | None) -> None:
    assert refusal(payload, LIMIT) == reason


def test_nesting_without_end_is_refused_and_not_fatal() -> None:
    assert refusal(b"[" * 500_000 + b"]" * 500_000, 1 << 20) == NOT_JSON


PROGRESS = JobProgress(job_id="42", status="processing", stage="s", progress=0.5, message="é").encode()


@pytest.mark.parametrize(
    ("payload", "reasons"),
    [
        (PROGRESS, {"off": None, "json": None, "event": None}),
        (b"x" * LIMIT, {"off": None, "json": NOT_JSON, "event": NOT_JSON}),
        (b"x" * (LIMIT + 1), {"off": TOO_BIG, "json": TOO_BIG, "event": TOO_BIG}),
        (b"", {"off": None, "json": NOT_JSON, "event": NOT_JSON}),
        ("é\r\n".encode(), {"off": None, "json": NOT_JSON, "event": NOT_JSON}),
        (b"\xff", {"off": NOT_UTF8, "json": NOT_UTF8, "event": NOT_UTF8}),
        (b"\xed\xa0\x80", {"off": NOT_UTF8, "json": NOT_UTF8, "event": NOT_UTF8}),
        (b"{}", {"off": None, "json": None, "event": NOT_AN_EVENT}),
        (b"[]", {"off": None, "json": None, "event": NOT_AN_EVENT}),
        (b'{"type":"job_progress"}', {"off": None, "json": None, "event": NOT_AN_EVENT}),
    ],
)
def test_how_closely_each_value_of_validate_looks(payload: bytes, reasons: dict[str, str | None]) -> None:
    assert {value: check(payload, LIMIT) for value, check in REFUSALS.items()} == reasons


def test_a_bad_event_is_explained_by_path_and_value() -> None:
    bad = PROGRESS.replace(b"0.5", b"40")
    assert explained(NOT_AN_EVENT, bad) == "job_progress: progress must be a number from 0 to 1, not 40"
    assert explained(NOT_JSON, b"{") is None


def test_every_value_of_validate_has_its_check() -> None:
    assert list(REFUSALS) == list(attrs.fields(TypeOptions).validate.metadata["one_of"])
    assert REFUSALS[TypeOptions().validate] is refusal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON, st.booleans())
def test_all_json_is_taken(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    # Python's text may hold a lone surrogate, which has no UTF-8; JSON can only escape it.
    payload = text.encode("utf-8", "surrogatepass")
    assert refusal(payload, 1 << 20) == (None if payload == text.encode("utf-8", "replace") else NOT_UTF8)


@given(st.binary(max_size=40))
def test_bytes_are_judged_as_the_standard_library_judges_them(payload: bytes) -> None:
    def constant(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(payload.decode(), parse_constant=constant)
        readable = not payload.startswith(b"\xef\xbb\xbf")
    except (ValueError, RecursionError):
        readable = False
    assert (refusal(payload, LIMIT) is None) == readable


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_each_value_of_validate_is_stricter_than_the_one_before(payload: bytes) -> None:
    off, well_formed, event = (REFUSALS[value](payload, LIMIT) for value in ("off", "json", "event"))
    assert off is None or off == well_formed
    assert well_formed is None or well_formed == event
