"""Bodies of `POST`: what services publish over HTTP, and what is asked to be evaluated."""

from __future__ import annotations

import msgspec

from broker.channel import Channel
from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.inquiry import PATHS, Inquiry, InquiryRefused, example_of, inquiry_from_body
from broker.request import RequestRefused
from broker.submission import USERS_CHANNEL, Item, submission_of
from tests.fuzz.reading import json_of
from tests.fuzz.target import Target
from tests.fuzz.targets.heads import check_refusal

TYPES = {**BUILT_IN_TYPES, "strict": TypeOptions(validate="event"), "loose": TypeOptions(validate="off")}
EVENTS_MAX = 5
MAX_BYTES = 4096


def check(data: bytes) -> str:
    said = [publish(data, undeclared) for undeclared in (True, False)]
    said += [evaluate(path, data) for path in PATHS]
    return " ".join(said)


def publish(data: bytes, serves_undeclared: bool) -> str:
    try:
        items = submission_of(
            data,
            types=TYPES,
            serves_undeclared=serves_undeclared,
            events_max=EVENTS_MAX,
            message_max_bytes=MAX_BYTES,
            objection=lambda channel: "no" if channel.type in ("secret", "broker") else None,
        )
    except RequestRefused as refused:
        return str(check_refusal(refused))
    assert 0 < len(items) <= EVENTS_MAX
    for item in items:
        check_item(item, data)
    return "items"


def check_item(item: Item, data: bytes) -> None:
    if item.channel == USERS_CHANNEL:
        told = msgspec.json.decode(item.payload, type=dict[str, msgspec.Raw])
        assert set(told) == {"user", "event"}
        user = json_of(bytes(told["user"]))
        assert 0 < len(user) <= 256 and not set(user) & set("\r\n\0\x85\u2028\u2029\x1b")
        payload = bytes(told["event"])
    else:
        assert Channel.from_name(item.channel).name == item.channel
        assert item.channel.partition(":")[0] not in ("secret", "broker")
        payload = item.payload
    # As it was sent, to the byte; and an object, whatever the type asks for.
    assert payload in data and len(payload) <= MAX_BYTES
    assert payload[:1] == b"{"
    if item.channel.partition(":")[0] != "loose":
        assert isinstance(json_of(payload), dict)


def evaluate(path: str, data: bytes) -> str:
    try:
        inquiry = inquiry_from_body(path, data)
    except InquiryRefused as refused:
        assert str(refused) and example_of(path)
        return "refused"
    check_inquiry(inquiry)
    return "inquiry"


def check_inquiry(inquiry: Inquiry) -> None:
    assert inquiry.user_id is None or 0 < len(inquiry.user_id) <= 1024
    # It goes to Redis as JSON.
    assert msgspec.json.decode(msgspec.json.encode(dict(inquiry.parameters))) == inquiry.parameters


TARGET = Target(
    "submissions",
    check,
    (
        b'{"channel": "job_progress:42", "event": {"type": "x"}}',
        b'[{"channel": {"type": "alerts", "userId": "7"}, "event": {}}, {"user": "ann", "event": {"a": [1]}}]',
        b'{"user": "ann", "event": {"user": "bob"}, "event": {}}',
        b'{"channel": "strict", "event": {"type": "heartbeat", "serverTime": "x", "timestamp": "y"}}',
        b'{"channel": "loose:1", "event": {}}',
        b'{"channel": "secret:1", "event": {}}',
        b'{"channel": "broker:users", "event": {"user": "x", "event": {}}}',
        b"[" + b",".join([b'{"channel":"a","event":{}}'] * 6) + b"]",
        b'{"videoUrl": "u", "transcript": "t", "features": {"a": 1}, "userId": "ann"}',
        b'{"creativeId": "1", "content": "c", "type": "technical"}',
        b"[]",
        b"",
    ),
    (
        b'"channel"', b'"event"', b'"user"', b'"userId"', b'"type"', b'"features"', b'"videoUrl"', b'"transcript"',
        b"{}",
        b"[]", b"null", b"[", b"]", b"{", b"}", b",", b":", b'"loose"', b'"strict"', b'"secret"', b'"broker:x"',
        b'"creative"',
        b"\\ud800", b"1e400", b'"ann"', b'"a"', b" ", b"\n",
    ),
    frozenset({"items items refused refused", "400 400 inquiry refused", "403 403 refused refused"}),
)  # fmt: skip
