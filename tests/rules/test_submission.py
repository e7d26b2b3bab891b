"""What may be published over HTTP, and by whom: every refusal with its words, and what is taken, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.events import JobProgress
from broker.request import RequestRefused
from broker.submission import Item, Origin, checked_key, submission_of

TYPES: Mapping[str, TypeOptions] = {
    **BUILT_IN_TYPES,
    "strict": TypeOptions(validate="event"),
    "loose": TypeOptions(validate="off"),
}
LIMIT = 1024
MEND = "Nothing was published; mend it and send all again."
EXAMPLE = 'Send {"channel": "job_progress:42", "event": {"type": "job_progress", ...}}, or a list of these.'
PROGRESS = JobProgress(job_id="42", status="processing", stage="s", progress=0.5, message="é").encode()


def taken(body: bytes, *, serves_undeclared: bool = True, events_max: int = 1000) -> list[Item]:
    return submission_of(
        body,
        types=TYPES,
        serves_undeclared=serves_undeclared,
        events_max=events_max,
        message_max_bytes=LIMIT,
        objection=lambda channel: "not that one" if channel.name in ("secret:1", "user:eve") else None,
    )


def refused(body: bytes, **options: Any) -> tuple[int, str, str]:
    with pytest.raises(RequestRefused) as caught:
        taken(body, **options)
    return caught.value.status, caught.value.detail, caught.value.hint


EVENTS = {
    "as-short-as-can-be": b"{}",
    "unicode": '{"a":"é\u2028\U0001f680"}'.encode(),
    "escapes": b'{"a":"\\u00e9\\/\\n\\ud83d\\ude80"}',
    "spaces-and-newlines": b'{ "a" :\r\n\t[ 1 ,\n 2.50e+3 ] }',
    "duplicate-keys": b'{"a":1,"a":2}',
    "big-numbers": b'{"a":123456789012345678901234567890,"b":1e400,"c":-0}',
    "as-long-as-may-be": b'{"a":"' + b"x" * (LIMIT - 8) + b'"}',
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_is_taken_as_its_bytes(event: bytes) -> None:
    item = Item("job_progress:42", event)
    assert taken(b'{"channel":"job_progress:42","event":%b}' % event) == [item]
    assert taken(b'\n [ {"event" : %b\n ,\n"channel":"job_progress:42"}\n ] ' % event) == [item]


def test_channels_as_names_and_as_objects_in_their_order() -> None:
    body = (
        b'[{"channel":{"type":"alerts","userId":"u"},"event":{"n":1}},{"channel":"a","event":{"n":2}},'
        b'{"channel":{"type":"x","id":"1","userId":"u"},"event":{"n":3},"more":["is","ignored"]},'
        b'{"channel":"a","event":{"n":2}}]'
    )
    assert taken(body) == [
        Item("alerts:u", b'{"n":1}'),
        Item("a", b'{"n":2}'),
        Item("x:1:u", b'{"n":3}'),
        Item("a", b'{"n":2}'),
    ]


def test_of_duplicate_keys_the_last_counts() -> None:
    """As for every JSON parser that a service is likely to test with."""
    body = b'{"channel":"a","event":{"n":1},"channel":"b","event":{"n":2}}'
    assert taken(body) == [Item("b", b'{"n":2}')]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is not JSON: Input data was truncated"),
        (b" ", "the body is not JSON: Input data was truncated"),
        (b"{", "the body is not JSON: Input data was truncated"),
        (b"nonsense", "the body is not JSON: JSON is malformed: invalid character (byte 4)"),
        (b"\xef\xbb\xbf{}", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
        (b"channel=a&event=b", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
        (
            b'{"channel":"a","event":{}}\n{"channel":"a","event":{}}',
            "the body is not JSON: JSON is malformed: trailing characters (byte 28)",
        ),
        (
            b'{"channel":"\xff","event":{}}',
            "the body is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (
            b'{"channel":"a","event":{"a":NaN}}',
            "the body is not JSON: JSON is malformed: invalid character (byte 28)",
        ),
        (b"[]", "the list is empty"),
        (b"[ \n]", "the list is empty"),
        (b'"a"', "Expected `object`, got `str`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "Object missing required field `event`"),
        (b'{"channel":"a"}', "Object missing required field `event`"),
        (b'[{"channel":"a","event":{}},{"channel":"a"}]', "Object missing required field `event` - at `$[1]`"),
        (b'[{"channel":"a","event":{}},7]', "Expected `object`, got `int` - at `$[1]`"),
        (b'[[{"channel":"a","event":{}}]]', "Expected `object`, got `array` - at `$[0]`"),
        (b'{"channel":1e999,"event":{}}', "Number out of range - at `$.channel`"),
    ],
)
def test_a_body_that_is_none(body: bytes, detail: str) -> None:
    assert refused(body) == (400, detail, EXAMPLE)


@pytest.mark.parametrize(
    ("channel", "event", "detail"),
    [
        (b"7", b"{}", 'channel: channel must be a name or an object {"type", "id", "userId"}'),
        (b"{}", b"{}", "channel: channel has no type"),
        (b'{"type":"a","id":7}', b"{}", "channel: channel.id must be a string, not '7'"),
        (b'""', b"{}", "channel: channel '' has an empty part"),
        (b'"a:b:c:d"', b"{}", "channel: channel 'a:b:c:d' has 4 parts; write type, type:id or type:id:userId"),
        (
            b'"a\\r\\nPUBLISH b"',
            b"{}",
            "channel: channel 'a\\r\\nPUBLISH b' has a character that is not allowed; "
            "use letters, digits and _ - . @ = + ~",
        ),
        (b'"a"', b"[]", "event: not a JSON object"),
        (b'"a"', b'"{}"', "event: not a JSON object"),
        (b'"a"', b"7", "event: not a JSON object"),
        (b'"a"', b"null", "event: not a JSON object"),
        (b'"a"', b'{"a":"\xff"}', "event: not_utf8: at most 1024 bytes"),
        (b'"a"', b'{"a":"' + b"x" * (LIMIT - 7) + b'"}', "event: too_big: at most 1024 bytes"),
        (b'"loose"', b'{"a":"' + b"x" * (LIMIT - 7) + b'"}', "event: too_big: at most 1024 bytes"),
        (b'"strict"', b"{}", "event: not_an_event: type is missing"),
        (
            b'"strict"',
            PROGRESS.replace(b"0.5", b"40"),
            "event: not_an_event: job_progress: progress must be a number from 0 to 1, not 40",
        ),
    ],
)
def test_an_item_that_is_refused_refuses_all_and_is_named(channel: bytes, event: bytes, detail: str) -> None:
    item = b'{"channel":%b,"event":%b}' % (channel, event)
    assert refused(item) == (400, f"$.{detail}", MEND)
    good = b'{"channel":"a","event":{}}'
    assert refused(b"[" + b",".join([good, good, item, good]) + b"]") == (400, f"$[2].{detail}", MEND)


def test_a_type_with_the_check_of_events_takes_events() -> None:
    assert taken(b'{"channel":"strict:1","event":%b}' % PROGRESS) == [Item("strict:1", PROGRESS)]


def test_only_declared_types_where_others_are_refused() -> None:
    assert taken(b'{"channel":"alerts:1","event":{}}', serves_undeclared=False) == [Item("alerts:1", b"{}")]
    assert refused(b'[{"channel":"alerts","event":{}},{"channel":"other:1","event":{}}]', serves_undeclared=False) == (
        400,
        "$[1].channel: channel type other is not served here",
        MEND,
    )


def test_as_many_as_may_be_and_one_more() -> None:
    items = [b'{"channel":"a","event":{"n":%d}}' % number for number in range(1001)]
    found = taken(b"[" + b",".join(items[:1000]) + b"]")
    assert found == [Item("a", b'{"n":%d}' % number) for number in range(1000)]
    assert refused(b"[" + b",".join(items) + b"]") == (
        413,
        "1001 events; at most 1000",
        "Send them in several requests.",
    )
    assert refused(b"[" + b",".join(items[:3]) + b"]", events_max=2)[:2] == (413, "3 events; at most 2")


@pytest.mark.parametrize("nested", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
@pytest.mark.parametrize("whole", [b"%b", b'{"channel":"a","event":%b}', b'{"channel":%b,"event":{}}'])
def test_nesting_without_end_is_refused_and_not_fatal(nested: bytes, whole: bytes) -> None:
    assert refused(whole % nested)[0] == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
LIKELY = st.fixed_dictionaries({}, optional={"channel": JSON | st.just("a:1"), "event": JSON})


@given(
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | LIKELY.map(lambda value: json.dumps(value, ensure_ascii=False).encode())
    | st.lists(LIKELY, max_size=3).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=8).map(lambda part: b'{"channel":"a%b","event":{"x":"%b"}}' % (part, part))
)
def test_whatever_is_sent_is_taken_or_refused(body: bytes) -> None:
    try:
        items = taken(body)
    except RequestRefused as bad:
        assert bad.status in (400, 413)
        assert bad.detail.isprintable()
    else:
        assert all(item.payload in body and isinstance(json.loads(item.payload), dict) for item in items)


@pytest.mark.parametrize("key", [None, "a", "~" * 255, "!", "8e03978e-40d5-43e8-bc93-6894a57f9324"])
def test_a_good_key(key: str | None) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 256, "é", "a\n", "\x7f", "\x00"])
def test_a_bad_key(key: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        checked_key(key)
    assert (caught.value.status, caught.value.detail, caught.value.hint) == (
        400,
        "Idempotency-Key must be 1 to 255 visible ASCII characters",
        "Send a random UUID, say.",
    )


LOCAL = "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        (LOCAL, "127.0.0.1:8000"),
        (LOCAL, "localhost:8000"),
        (LOCAL, "LOCALHOST"),
        (LOCAL, "broker.localhost:8000"),
        (LOCAL, "[::1]:8000"),
        ("127.9.9.9", "127.0.0.2:8000"),
        ("::1", "[::1]:8000"),
        ("::ffff:127.0.0.1", "127.0.0.1:8000"),
        ("::1%lo", "localhost"),
        (None, ""),
        (None, "whatever"),
    ],
)
def test_who_is_on_this_machine(peer: str | None, host: str) -> None:
    Origin(peer, {"host": host}).check(())


def forbidden(origin: Origin, *cors_origins: str) -> str:
    with pytest.raises(RequestRefused) as caught:
        origin.check(cors_origins)
    assert (caught.value.status, caught.value.hint) == (
        403,
        "Do it on the daemon's own machine, to 127.0.0.1 or localhost, or turn authentication on ([auth]).",
    )
    return caught.value.detail


@pytest.mark.parametrize(
    "peer", ["192.0.2.2", "10.0.0.1", "::ffff:192.0.2.2", "fd00::2", "fe80::1%eth0", "0.0.0.0", "nonsense"]
)
def test_another_machine(peer: str) -> None:
    assert forbidden(Origin(peer, {"host": "localhost"}), "*") == (
        f"this is for whoever is on the daemon's machine, and comes from {peer}"
    )


@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "x-real-ip", "via"])
@pytest.mark.parametrize("address", [LOCAL, None])
def test_a_proxy_that_says_so(name: str, address: str | None) -> None:
    origin = Origin(address, {"host": "localhost", name: "127.0.0.1"})
    assert forbidden(origin, "*") == (
        f"this is for whoever is on the daemon's machine, and a proxy forwards it ({name})"
    )


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "192.0.2.2:8000",
        "[fd00::2]:8000",
        "0.0.0.0:8000",
        "[::1",
        "2130706433",
    ],
)
def test_a_name_that_was_bound_to_this_machine_by_somebody_else(host: str) -> None:
    """DNS rebinding: for the browser, the page and the daemon are then one site."""
    origin = Origin(LOCAL, {"host": host, "origin": f"http://{host}"})
    assert forbidden(origin, "*") == f"the Host header {host!a} does not name this machine"


HERE = "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("origin", "cors_origins", "is_allowed"),
    [
        (f"http://{HERE}", (), True),
        ("https://app.example", ("https://app.example",), True),
        ("http://localhost:3000", ("loopback",), True),
        ("https://[::1]", ("loopback",), True),
        ("https://app.example", ("*", "https://app.example"), True),
        ("null", (), False),
        ("null", ("*",), False),
        ("", ("*",), False),
        ("http://evil.example", (), False),
        ("http://evil.example", ("*",), False),
        ("http://evil.example", ("https://app.example", "loopback"), False),
        ("http://app.example", ("https://app.example",), False),
        ("https://app.example.evil.example", ("https://app.example",), False),
        ("http://localhost:3000", (), False),
        ("http://127.0.0.1:8001", (), False),
        (f"https://{HERE}", (), False),
        ("http://localhost.evil.example", ("loopback",), False),
    ],
)
@pytest.mark.parametrize("address", [LOCAL, None])
def test_pages(origin: str, cors_origins: tuple[str, ...], is_allowed: bool, address: str | None) -> None:
    asked = Origin(address, {"host": HERE, "origin": origin})
    if is_allowed:
        asked.check(cors_origins)
    else:
        assert forbidden(asked, *cors_origins) == f"pages of {origin!a} may not do this"


def test_an_event_for_a_user_is_what_daemons_take_from_redis() -> None:
    body = '[{"user":"ann|1 \U0001f600\\"","event":{"a": 1}},{"channel":"note:1","event":{}}]'
    assert taken(body.encode()) == [
        Item("broker:users", '{"user":"ann|1 \U0001f600\\"","event":{"a": 1}}'.encode()),
        Item("note:1", b"{}"),
    ]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"event":{}}', "$: must name either a channel or a user"),
        ('{"user":"a","channel":"a:1","event":{}}', "$: must name either a channel or a user"),
        ('[{"user":7,"event":{}}]', "$[0].user: must be a text of 1 to 256 characters without control characters"),
        (r'{"user":"a\nb","event":{}}', "$.user: must be a text of 1 to 256 characters without control characters"),
        ('{"user":"","event":{}}', "$.user: must be a text of 1 to 256 characters without control characters"),
        ('{"user":"a","event":[]}', "$.event: not a JSON object"),
    ],
)
def test_a_bad_user(body: str, detail: str) -> None:
    assert refused(body.encode())[:2] == (400, detail)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ('{"channel":"secret:1","event":{}}', "$.channel"),
        ('[{"channel":"a:1","event":{}},{"user":"eve","event":{}}]', "$[1].user"),
    ],
)
def test_what_the_sender_may_not(body: str, where: str) -> None:
    assert refused(body.encode()) == (
        403,
        f"{where}: not that one",
        "Use a token or an API key that may publish there.",
    )


def test_what_is_quoted_is_cut_and_escaped() -> None:
    long = "\x1b[2J" + "x" * 10_000
    assert forbidden(Origin(LOCAL, {"host": long})) == (f"the Host header {long[:80]!a} does not name this machine")
    asked = Origin(LOCAL, {"host": HERE, "origin": long})
    assert forbidden(asked) == f"pages of {long[:80]!a} may not do this"
