"""Requests for evaluations that are none, or are of something else than what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from broker.ledger.scripts import APPEND
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import Answer, RawClient, head, resident_bytes
from tests.actors.redis_server import RedisServer
from tests.actors.refusal import assert_refusal
from tests.conftest import errors_of

COUNCIL = b"/api/stream/council-score"
CREATIVE = b"/api/stream/evaluate-creative"
GOOD = b'{"videoUrl":"u","transcript":"t"}'
NOBODY = "0" * 32


def get(path: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    return head(b"GET %b HTTP/%b" % (path, version), *lines)


def post(path: bytes, body: bytes, *lines: bytes) -> bytes:
    return head(b"POST %b HTTP/1.1" % path, b"Content-Length: %d" % len(body), *lines) + body


def refused(port: int, sent: bytes, status: int) -> str:
    with RawClient.connect(port) as client:
        client.try_send(sent)
        answer = assert_refusal(client.answer(), status)
        assert client.read_to_end() == b""
        return str(answer.json()["detail"])


def failed(port: int, sent: bytes) -> tuple[str | None, str]:
    """The id and the words of the one error event that answers it."""
    with RawClient.connect(port) as client:
        client.send(sent)
        answer = client.answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["connection"] == "close"
        block = client.read_to_end().decode()
    assert block.endswith("\n\n") and block.count("\n\n") == 1
    fields = dict(line.split(": ", 1) for line in block.strip().split("\n"))
    assert set(fields) - {"id"} == {"event", "data"}
    assert fields["event"] == "error"
    data = json.loads(fields["data"])
    assert list(data) == ["type", "error", "timestamp"]
    assert data["type"] == "error"
    return fields.get("id"), data["error"]


def blocks(client: RawClient, count: int) -> list[dict[str, str]]:
    """The head of a chunked stream, and its next events."""
    answer = client.answer()
    assert (answer.status, answer.headers["transfer-encoding"]) == (200, "chunked")
    found: list[dict[str, str]] = []
    while len(found) < count:
        size = int(client.read_until(b"\r\n"), 16)
        text = client.read(size).decode()
        client.read(2)
        found += [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n")[:-1]]
    return found


def begun(port: int) -> str:
    """The id of a new evaluation, which nobody watches any more."""
    with RawClient.connect(port) as client:
        client.send(post(COUNCIL, GOOD))
        (hello,) = blocks(client, 1)
        greeting = json.loads(hello["data"])
        assert (greeting["type"], hello["id"]) == ("connected", f"{greeting['evaluationId']}:0")
        return str(greeting["evaluationId"])


@pytest.fixture
def over(port: int, redis: RedisServer) -> str:
    """The id of an evaluation with two events, of which the second ended it."""
    id = begun(port)
    prefix = "broker:{council_score}:"
    keys = (f"{prefix}requests", f"{prefix}{id}", f"{prefix}{id}:events")
    with redis.client() as client:
        events = (b'{"n":1}', b'{"type":"complete"}')
        assert client.eval(APPEND.text, 3, *keys, "", 0, f"council_score:{id}", "complete", *events) == 1
    return id


BAD_BODIES = {
    "empty": (b"", "the body is not JSON: Input data was truncated"),
    "no-json": (b"videoUrl=u&transcript=t", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
    "not-utf8": (
        b'{"videoUrl":"\xff"}',
        "the body is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    "cut": (b'{"videoUrl":', "the body is not JSON: Input data was truncated"),
    "array": (b"[%b]" % GOOD, "the body is not a JSON object"),
    "null": (b"null", "the body is not a JSON object"),
    "nothing": (b"{}", "Missing required parameters: videoUrl, transcript"),
    "half": (b'{"videoUrl":"u","transcript":""}', "Missing required parameters: transcript"),
    "number": (b'{"videoUrl":1,"transcript":"t"}', "videoUrl is not a string"),
    "list": (b'{"videoUrl":"u","transcript":["t"]}', "transcript is not a string"),
    "features": (b'{"videoUrl":"u","transcript":"t","features":"{}"}', "features is not a JSON object"),
    "user": (b'{"videoUrl":"u","transcript":"t","userId":7}', "userId is not a string"),
    "long-user": (
        b'{"videoUrl":"u","transcript":"t","userId":"%b"}' % (b"u" * 100_000),
        "userId has 100000 characters; at most 1024",
    ),
}


@pytest.mark.parametrize(("body", "words"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_bad_body(port: int, body: bytes, words: str) -> None:
    assert refused(port, post(COUNCIL, body), 400) == words


def test_a_bad_type_in_a_body(port: int) -> None:
    body = b'{"creativeId":"1","content":"c","type":%b}'
    for type, shown in ((b'"x"', "x"), (b"0", "int"), (b"[]", "list")):
        assert refused(port, post(CREATIVE, body % type), 400) == (
            f"type '{shown}' is none of creative, technical, performance"
        )


@pytest.mark.parametrize("nested", [b"[" * 500_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
def test_a_body_nested_without_end(port: int, nested: bytes) -> None:
    assert refused(port, post(COUNCIL, nested), 400).startswith("the body is not JSON: maximum recursion depth")
    features = b'{"videoUrl":"u","transcript":"t","features":{"a":%b}}' % nested
    assert refused(port, post(COUNCIL, features), 400).startswith("the body is not JSON: maximum recursion depth")


def test_a_body_nested_as_deeply_as_can_be_read_can_be_written(port: int) -> None:
    """Whatever is read is written to Redis: the one may not work where the other fails."""
    for depth in range(800, 1000):
        body = b'{"videoUrl":"u","transcript":"t","features":{"a":%b}}' % (b"[" * depth + b"]" * depth)
        with RawClient.connect(port) as client:
            client.send(post(COUNCIL, body))
            answer = client.answer()
            if answer.status != 200:
                assert assert_refusal(answer, 400).json()["detail"].startswith("the body is not JSON: maximum")
                return
    raise AssertionError("no depth was refused")


def test_a_body_too_large(port: int) -> None:
    body = b'{"videoUrl":"u","transcript":"%b"}' % (b"t" * (1 << 20))
    assert refused(port, post(COUNCIL, body), 413) == "the request body is larger than 1048576 bytes"


def test_what_was_asked_is_not_kept_while_the_answer_is_awaited(port: int, served: DaemonProcess) -> None:
    """Watchers stay for minutes: forty bodies of a mebibyte would."""
    body = b'{"videoUrl":"u","transcript":"%b"}' % (b"t" * ((1 << 20) - 40))
    before = resident_bytes(served.process.pid)
    with ExitStack() as watchers:
        for _ in range(40):
            client = watchers.enter_context(RawClient.connect(port))
            client.send(post(COUNCIL, body))
            blocks(client, 1)
        assert resident_bytes(served.process.pid) - before < 40 << 20


def test_an_escape_of_half_a_character(port: int) -> None:
    assert refused(port, post(COUNCIL, b'{"videoUrl":"\\ud800","transcript":"t"}'), 400).startswith("the body is not")


BAD_QUERIES = {
    "nothing": (COUNCIL, "Missing required parameters: videoUrl, transcript"),
    "empty": (COUNCIL + b"?videoUrl=&transcript=", "Missing required parameters: videoUrl, transcript"),
    "half": (COUNCIL + b"?videoUrl=u", "Missing required parameters: transcript"),
    "slash": (COUNCIL + b"/", "Missing required parameters: videoUrl, transcript"),
    "creative": (CREATIVE + b"?type=x", "Missing required parameters: creativeId, content"),
    "type": (
        CREATIVE + b"?creativeId=1&content=c&type=%0a%0adata:%20x",
        "type '\\n\\ndata: x' is none of creative, technical, performance",
    ),
    "features": (
        COUNCIL + b"?videoUrl=u&transcript=t&features=%7B",
        "features is not JSON: Input data was truncated",
    ),
    "features-list": (COUNCIL + b"?videoUrl=u&transcript=t&features=%5B%5D", "features is not a JSON object"),
    "features-number": (COUNCIL + b"?videoUrl=u&transcript=t&features=7", "features is not a JSON object"),
    "user": (COUNCIL + b"?videoUrl=u&transcript=t&userId=" + b"u" * 1025, "userId has 1025 characters; at most 1024"),
    "other-id": (COUNCIL + b"?videoUrl=u&lastEventId=", "Missing required parameters: transcript"),
}


@pytest.mark.parametrize(("path", "words"), BAD_QUERIES.values(), ids=BAD_QUERIES)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_bad_query_is_an_error_event_that_stops_the_browser(
    port: int, path: bytes, words: str, version: bytes
) -> None:
    assert failed(port, get(path, version=version)) == ("refused", words)


def test_who_was_refused_and_comes_back_is_told_to_stay_away(port: int) -> None:
    for sent in (
        get(COUNCIL, b"Last-Event-ID: refused"),
        get(COUNCIL + b"?lastEventId=refused"),
        get(COUNCIL + b"?videoUrl=u&transcript=t", b"Last-Event-ID: refused"),
    ):
        assert no_content(port, sent)


def no_content(port: int, sent: bytes) -> Answer:
    with RawClient.connect(port) as client:
        client.send(sent)
        answer = client.answer()
        assert (answer.status, client.read_to_end()) == (204, b"")
        return answer


def test_more_fields_than_are_read(port: int) -> None:
    assert refused(port, get(COUNCIL + b"?" + b"a=b&" * 101), 400) == "the query has more than 100 fields"


@pytest.mark.parametrize("method", [b"DELETE", b"PUT", b"HEAD", b"PATCH", b"TRACE"])
def test_other_methods(port: int, method: bytes) -> None:
    with RawClient.connect(port) as client:
        client.send(head(b"%b %b HTTP/1.1" % (method, COUNCIL)))
        answer = client.answer(to_head=method == b"HEAD")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")


def test_a_preflight_is_answered_and_starts_nothing(port: int) -> None:
    line = head(b"OPTIONS %b?videoUrl=u&transcript=t HTTP/1.1" % COUNCIL, b"Origin: http://evil.example")
    answer = no_content(port, line)
    assert answer.headers["allow"] == "GET, POST"
    assert "access-control-allow-origin" not in answer.headers


PATHS = {
    "lookalike": (COUNCIL + b"s", "no stream at '/api/stream/council-scores'"),
    "dots": (COUNCIL + b"/..", "'..' is no evaluation's id"),
    "dots-to-another": (COUNCIL + b"/../council-score", "'../council-score' is no evaluation's id"),
    "two-slashes": (COUNCIL + b"//" + NOBODY.encode(), f"'/{NOBODY}' is no evaluation's id"),
    "upper-case": (COUNCIL + b"/" + b"A" * 32, f"'{'A' * 32}' is no evaluation's id"),
    "key": (COUNCIL + b"/%7Bcouncil_score%7D:requests", "'{council_score}:requests' is no evaluation's id"),
    "events": (COUNCIL + b"/" + NOBODY.encode() + b":events", f"'{NOBODY}:events' is no evaluation's id"),
    "crlf": (COUNCIL + b"/%0d%0aX-Injected:%201", "'\\r\\nX-Injected: 1' is no evaluation's id"),
    "nul": (COUNCIL + b"/%00", "'\\x00' is no evaluation's id"),
    "nobody": (COUNCIL + b"/" + NOBODY.encode(), "there is no such evaluation any more"),
    "nobody-escaped": (COUNCIL + b"%2F" + NOBODY.encode(), "there is no such evaluation any more"),
}


@pytest.mark.parametrize(("path", "words"), PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("ask", [get, lambda path: post(path, GOOD)], ids=["get", "post"])
def test_a_path_of_nothing(port: int, path: bytes, words: str, ask: Any) -> None:
    assert refused(port, ask(path), 404) == words


@pytest.mark.parametrize(
    "last", [b"x", b"0", NOBODY.encode(), b"%b:-1" % NOBODY.encode(), b"%b:%b" % (NOBODY.encode(), b"9" * 16), b"\xff"]
)
@pytest.mark.parametrize("ask", [get, lambda path, line: post(path, GOOD, line)], ids=["get", "post"])
def test_a_last_event_id_that_is_none(port: int, last: bytes, ask: Any) -> None:
    words = refused(port, ask(COUNCIL, b"Last-Event-ID: " + last), 400)
    assert words == f"Last-Event-ID {last.decode('latin-1')!a} is none of this endpoint's"


def test_a_last_event_id_of_another_evaluation(port: int) -> None:
    path = COUNCIL + b"/" + b"1" * 32
    words = refused(port, get(path, b"Last-Event-ID: %b:1" % NOBODY.encode()), 400)
    assert words == "Last-Event-ID is of another evaluation"


@pytest.mark.parametrize("ask", [get, lambda path, line: post(path, GOOD, line)], ids=["get", "post"])
def test_a_last_event_id_at_the_end(port: int, over: str, ask: Any) -> None:
    """The browser has all of it, and is told to stay away."""
    no_content(port, ask(COUNCIL, f"Last-Event-ID: {over}:2".encode()))


def test_a_last_event_id_of_what_is_not_there(port: int, over: str) -> None:
    """Unknown, of the other kind, beyond the end, or beyond what there is yet: told so, never just silence."""
    for path, last in (
        (COUNCIL, f"{NOBODY}:0"),
        (CREATIVE, f"{over}:0"),
        (COUNCIL, f"{over}:3"),
        (COUNCIL, f"{begun(port)}:1"),
    ):
        line = f"Last-Event-ID: {last}".encode()
        assert failed(port, get(path, line)) == ("refused", "there is no such evaluation any more")
        assert refused(port, post(path, GOOD, line), 404) == "there is no such evaluation any more"


@pytest.mark.parametrize("ask", [get, lambda path, line: post(path, GOOD, line)], ids=["get", "post"])
def test_a_last_event_id_inside_goes_on_behind_it(port: int, over: str, ask: Any) -> None:
    with RawClient.connect(port) as client:
        client.send(ask(COUNCIL, f"Last-Event-ID: {over}:1".encode()))
        hello, end = blocks(client, 2)
        assert hello["id"] == f"{over}:1"
        assert end == {"id": f"{over}:2", "event": "complete", "data": '{"type":"complete"}'}
        assert client.read_to_end() == b"0\r\n\r\n"


def test_an_answer_that_redis_lost_ends_and_does_not_spin(port: int, over: str, redis: RedisServer) -> None:
    with redis.client() as client:
        client.delete(f"broker:{{council_score}}:{over}:events")
        before = client.info("stats")["total_commands_processed"]
    with RawClient.connect(port) as client:
        client.send(get(COUNCIL + b"/" + over.encode()))
        _, end = blocks(client, 2)
        assert (end["id"], end["event"]) == ("refused", "error")
        assert json.loads(end["data"])["error"] == "there is no such evaluation any more"
        assert client.read_to_end() == b"0\r\n\r\n"
    with redis.client() as client:
        # The bystanders beside this publish, too.
        assert client.info("stats")["total_commands_processed"] - before < 500


def test_http_1_0_gets_a_bare_stream(port: int, over: str) -> None:
    with RawClient.connect(port) as client:
        client.send(get(COUNCIL + b"/" + over.encode(), version=b"1.0"))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert "transfer-encoding" not in answer.headers
        hello, first, last, rest = client.read_to_end().decode().split("\n\n")
    assert hello.startswith(f"id: {over}:0\ndata: ")
    assert first == f'id: {over}:1\ndata: {{"n":1}}'
    assert last == f'id: {over}:2\nevent: complete\ndata: {{"type":"complete"}}'
    assert rest == ""


def test_a_body_behind_a_get_is_no_request(port: int, over: str) -> None:
    """What a client sends behind its request for a stream is never read as another one."""
    behind = post(b"/api/publish", b'{"channel":"a","event":{}}')
    with RawClient.connect(port) as client:
        client.send(get(COUNCIL + b"/" + over.encode(), b"Content-Length: %d" % len(behind)) + behind + behind)
        assert len(blocks(client, 3)) == 3
        assert client.read_to_end() == b"0\r\n\r\n"


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon whose Redis is gone, with a password in its URL."""
    folder: Path = tmp_path_factory.mktemp("away")
    server = RedisServer(folder)
    url = server.url.replace("redis://", "redis://somebody:hunter2@")
    daemon = DaemonProcess(url, folder / "daemon.log", ("--log-format", "json", "--redis-ping-timeout-seconds", "0.3"))
    daemon.start()
    yield daemon
    daemon.stop()
    assert errors_of(daemon) == []


AWAY = "the daemon cannot reach Redis right now; try again in a moment"


def test_redis_away(away: DaemonProcess) -> None:
    """Said without where it is, and who we are there."""
    good = COUNCIL + b"?videoUrl=u&transcript=t"
    # Without an id: a browser comes back.
    assert failed(away.port, get(good)) == (None, AWAY)
    assert failed(away.port, get(COUNCIL, b"Last-Event-ID: %b:1" % NOBODY.encode())) == (None, AWAY)
    with RawClient.connect(away.port) as client:
        answer = assert_refusal(client.ask(post(COUNCIL, GOOD)), 503)
        assert (answer.json()["detail"], answer.headers["retry-after"]) == (AWAY, "1")
    # What is wrong with a request does not depend on it.
    assert refused(away.port, post(COUNCIL, b"[]"), 400) == "the body is not a JSON object"
    assert failed(away.port, get(COUNCIL))[0] == "refused"
    lines = [
        entry for entry in map(json.loads, away.log().splitlines()) if entry["event"] == "evaluations wait for Redis"
    ]
    assert lines and all("Redis cannot be reached: " in entry["why"] for entry in lines)
    assert "hunter2" not in away.log()
