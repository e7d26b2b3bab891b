"""Nothing that a client or a publisher writes begins a line, an event or a header of its own: a test for each sink.

The letters are those at which something, somewhere, ends a line or takes what follows for an order: CR, LF, VT, FF,
NEL, LS, PS, NUL, ESC, DEL. Over sockets the same is in `tests/bad_input/test_hostile_text.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from broker import eventstream
from broker.answerstream import failure, stream_head
from broker.auth.credential import credential_of, masked
from broker.auth.identity import USER, Identity
from broker.auth.rules import RuleBook
from broker.auth.token import TokenReader
from broker.channel import Channel
from broker.config.access import Auth, Rules
from broker.errors import ChannelError, TokenRefused
from broker.frames import text_frame
from broker.handshake import handshake, subprotocol_of
from broker.inquiry import watch_of
from broker.message import REFUSALS
from broker.origins import Origins
from broker.position import Position
from broker.request import Request, RequestRefused, answer, refusal_answer, unauthorized
from broker.run import Run
from broker.session import Reply, Session
from broker.stream import stream_of
from broker.submission import checked_key, submission_of, user_item
from broker.upstream.connection import pack
from broker.wireformat import EVENT_STREAM, EVENT_STREAM_BARE, WEBSOCKET, WEBSOCKET_V1
from tests.fuzz.reading import as_lines, events_of, frames_of, head_of, is_one_line, object_of

LETTERS = ["\r\n", "\r", "\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\0", "\x1b[2K", "\x7f"]
# A whole event, a header, an answer and a line of a log, each behind a letter that may end what it stands in.
TEXTS = [
    f"a{it}data: x{it}{it}event: y{it}Set-Cookie: z{it}{it}HTTP/1.1 200 OK{it}level=error event=z" for it in LETTERS
]

each_text = pytest.mark.parametrize("text", TEXTS, ids=[ascii(letter) for letter in LETTERS])


def request(*headers: tuple[bytes, bytes], target: bytes = b"/api/stream") -> Request:
    return Request("GET", target, b"1.1", ((b"host", b"a"), *headers), upgrades_to_websocket=True)


@each_text
def test_payloads_in_an_event_stream_and_in_frames(text: str) -> None:
    for payload in (text.encode(), json.dumps(text, ensure_ascii=False).encode(), f'{{\r\n"a":\n1}}{text}'.encode()):
        plain, placed = (
            Run.without_positions([payload, payload]),
            Run(b"1", 1, 2, b"1:2:3", [b"1:1:3", b"1:2:3"], [payload] * 2),
        )
        for run, ids in ((plain, []), (placed, ["1:1:3", "1:2:3"])):
            events = events_of(EVENT_STREAM_BARE.encoded(b"a:b", run)[0])
            assert [event["data"] for event in events] == [as_lines(payload)] * 2
            assert [event["id"] for event in events if "id" in event] == ids
            assert all(set(event) <= {"data", "id"} for event in events)
            size, _, chunk = EVENT_STREAM.encoded(b"a:b", run)[0].partition(b"\r\n")
            assert int(size, 16) == len(chunk) - 2
            assert frames_of(WEBSOCKET.encoded(b"a:b", run)[0]) == [(1, payload)] * 2
            assert len(frames_of(WEBSOCKET_V1.encoded(b"a:b", run)[0])) == 2


@each_text
def test_words_of_ours_around_theirs(text: str) -> None:
    (event,) = events_of(failure(f"Redis refused channel: {text}"))
    assert set(event) == {"event", "data"} and json.loads(event["data"])["error"] == f"Redis refused channel: {text}"
    assert object_of(event["data"].encode())["type"] == "error"


@each_text
def test_where_a_client_was(text: str) -> None:
    """`Last-Event-ID` and `since` come back as `id` and `position`: digits and colons, or not at all."""
    for id in (text, f"1:2:3{text}", f"c1,{text}", f"1:2:{text}3"):
        assert Position.from_text(id) is None
        with pytest.raises(RequestRefused) as caught:
            watch_of("/api/stream/council-score", id)
        check_refusal(caught.value)


@each_text
def test_channels(text: str) -> None:
    for wire in (text, f"a:{text}", {"type": "a", "id": text}, {"type": text}, {"type": "a", "userId": text}):
        with pytest.raises(ChannelError) as caught:
            Channel.from_wire(wire)
        assert is_one_line(str(caught.value))
    for query in ([("channel", text)], [("channel", f"a:{text}")]):
        with pytest.raises(RequestRefused) as refused:
            stream_of("/api/stream", query, None, 10)
        check_refusal(refused.value)
    for path in (f"/api/stream/{text}", f"/api/stream/render-progress/{text}"):
        with pytest.raises(RequestRefused) as refused:
            stream_of(path, [], None, 10)
        check_refusal(refused.value)


@each_text
def test_messages_of_websocket_clients(text: str) -> None:
    session = Session(
        10, None, is_v1=True, identity=Identity(USER, text), rules=RuleBook(Rules(user_subscribe=("*",)), {})
    )
    commands = [
        {"type": text},
        {"type": "subscribe", "channel": text},
        {"type": "unsubscribe", "channel": {"type": "a", "id": text}},
        {"type": "subscribe", "channel": "a", "since": [text]},
        {"type": "publish", "channel": "a", "event": {"a": text}},
        {"type": "publish", "channel": f"a:b:{text}", "event": {}},
        {"type": "authenticate", "token": [text]},
    ]
    replies = [
        Reply(session.greeting(text, 0.0)),
        *session.not_authenticated(text, 0.0),
        *session.refused("a", text, 0.0),
    ]
    for command in commands:
        replies += session.receive_text(json.dumps(command), 0.0)
        replies += session.receive_text(json.dumps(command, ensure_ascii=False), 0.0)
    assert len(replies) == 3 + 2 * len(commands)
    for reply in replies:
        assert isinstance(reply, Reply)
        object_of(reply.body)
        assert frames_of(text_frame(reply.body)) == [(1, reply.body)]


@each_text
def test_headers_that_come_back(text: str) -> None:
    """What the parser lets through has no CR, LF or NUL; these do not lean on it."""
    value = text.encode()
    for origins in (
        Origins(("https://*.example.com",), with_credentials=True),
        Origins(("*",)),
        Origins(("loopback",)),
    ):
        for origin in (text, f"https://a.example.com{text}", f"https://a{text}.example.com", f"http://localhost{text}"):
            for headers in (origins.cors_headers(origin), origins.preflight_headers(origin, "GET")):
                head_of(answer(200, b"{}", headers))
                head_of(stream_head(True, headers))
                assert headers.get("Access-Control-Allow-Origin") in (None, "*")
            try:
                origins.check(request((b"origin", origin.encode("latin-1", "replace"))))
            except RequestRefused as refused:
                check_refusal(refused)
    for protocol in (value, b"bearer." + value, b"broker.v1, bearer." + value):
        made = request(
            (b"sec-websocket-protocol", protocol),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", b"A" * 22 + b"=="),
        )
        head_of(handshake(made, subprotocol_of(made)))
    for header in ((b"authorization", b"Bearer " + value), (b"authorization", value), (b"host", value)):
        try:
            credential_of(request(header), Auth(cookie="token"))
            Origins().check_host(request(header))
        except RequestRefused as refused:
            check_refusal(refused)
    check_refusal(unauthorized(text, invalid=True))
    check_refusal(RequestRefused(400, text, text))
    with pytest.raises(RequestRefused) as caught:
        checked_key(text)
    check_refusal(caught.value)


def check_refusal(refused: RequestRefused) -> None:
    headers, body = head_of(refusal_answer(refused))
    assert set(object_of(body)) - {"channel"} == {"error", "detail", "hint"}
    assert "set-cookie" not in headers


@each_text
def test_the_line_of_a_request_in_the_log(text: str) -> None:
    for target in (f"/{text}", f"/a?{text}=b", f"/a?b={text}", f"/a?token={text}&c=d", f"/a?{text}"):
        for made in (target, target.encode()):
            assert is_one_line(masked(made))
    assert "hunter2" not in masked(f"/a?token=hunter2{text}hunter2&token{text}=hunter2")


@each_text
def test_claims_of_tokens(text: str) -> None:
    reader = TokenReader(Auth(secret="x" * 32))
    fine = {"sub": "ann", "exp": 2.0}
    for name, value in (
        ("sub", text),
        ("jti", text),
        ("subscribe", [text]),
        ("publish", [f"a:{text}"]),
        ("iss", [text]),
    ):
        with pytest.raises(TokenRefused) as caught:
            reader.identity_of({**fine, name: value}, 1.0)
        assert caught.value.reason == "bad_claim" and is_one_line(str(caught.value))
    assert reader.identity_of({**fine, "name": text}, 1.0).user_id == "ann"


@each_text
def test_what_is_published_over_http(text: str) -> None:
    def refused(**item: object) -> RequestRefused:
        body = json.dumps(item, ensure_ascii=False).encode()
        with pytest.raises(RequestRefused) as caught:
            submission_of(
                body,
                types={},
                serves_undeclared=True,
                events_max=9,
                message_max_bytes=9999,
                objection=lambda channel: None,
            )
        return caught.value

    check_refusal(refused(channel=text, event={}))
    check_refusal(refused(channel="a", event=text))
    check_refusal(refused(user=text, event={}))
    check_refusal(refused(channel={"type": "a", "id": text}, event={}))
    assert object_of(user_item(text, b"{}").payload) == {"user": text, "event": {}}


@each_text
def test_commands_to_redis(text: str) -> None:
    """Each argument says its length, so that nothing in it is a command."""
    sent = pack(b"PUBLISH", text.encode(), b"\r\n*1\r\n$8\r\nFLUSHALL\r\n")
    assert arguments_of(sent) == [b"PUBLISH", text.encode(), b"\r\n*1\r\n$8\r\nFLUSHALL\r\n"]


def arguments_of(sent: bytes) -> list[bytes]:
    count, _, rest = sent.removeprefix(b"*").partition(b"\r\n")
    found = []
    for _ in range(int(count)):
        size, _, rest = rest.removeprefix(b"$").partition(b"\r\n")
        found.append(rest[: int(size)])
        rest = rest[int(size) + 2 :]
    assert rest == b""
    return found


@each_text
def test_why_a_message_is_dropped(text: str) -> None:
    payload = json.dumps({"type": "job_progress", "jobId": text, "status": text}, ensure_ascii=False).encode()
    assert {name: check(payload, 10_000) for name, check in REFUSALS.items()} == {
        "off": None,
        "json": None,
        "event": "not_an_event",
    }


LOG = """
import json, logging, sys
import structlog
from broker.config.sections import Log
from broker.log import open_log
texts = json.load(sys.stdin)
open_log(Log(format=sys.argv[1]))
log = structlog.get_logger("a")
for text in texts:
    log.warning("a client said", text=text, data=text.encode(), inside=[text, {"a": text}], **{"user": text})
    log.warning(text)
    logging.getLogger("library").warning("it said %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("it failed")
"""


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_log(format: str, encoding: str) -> None:
    """A call of the log is a line of the log, whatever counts as the end of one, on any terminal."""
    done = subprocess.run(
        [sys.executable, "-c", LOG, format],
        input=json.dumps(TEXTS),
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 4 * len(TEXTS), lines
    assert done.stdout == ""
    for line in lines:
        assert line.isprintable()
        if format == "json":
            assert json.loads(line)["level"] in ("warning", "error")
        else:
            assert (
                line.startswith("timestamp='") and line.count(" level='warning' ") + line.count(" level='error' ") == 1
            )


def test_a_secret_in_the_log_is_masked_and_its_line_stays_json() -> None:
    """Escapes end in letters that a secret may begin with: \\u00ee and yJ..., \\b and k_..."""
    token, key = f"eyJ{'a' * 20}.b.c", f"bk_{'k' * 43}"
    texts = [token, key, f"\xee{token[1:]}", f"\b{key[1:]}"]
    done = subprocess.run(
        [sys.executable, "-c", LOG, "json"], input=json.dumps(texts), capture_output=True, encoding="utf-8", check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(lines) == 4 * len(texts)
    assert token[3:20] not in "".join(map(str, lines[:4])) and key[3:] not in "".join(map(str, lines[4:8]))
    assert [line["user"] for line in lines[::4]] == ["***", "***", *texts[2:]]


def test_the_letters_are_in_what_is_tried() -> None:
    """Each test above would see its letter: with the laws broken, these are more than one line, event or frame."""
    naive = [f"data: {text}\n\n".encode() for text in TEXTS]
    broken = 0
    for stream in naive:
        try:
            broken += len(events_of(stream)) != 1
        except AssertionError:
            broken += 1
    assert broken == 3  # CR LF, CR and LF
    assert [is_one_line(text) for text in TEXTS] == [False] * len(TEXTS)
    assert eventstream.block(b"a\rb") == b"data: a\ndata: b\n\n"
