"""Requests as the door reads them: however the bytes arrive, the same requests or the same refusal."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.request import BodyPart, EndOfBody, Request, RequestReader, RequestRefused, refusal_answer

LIMIT = 16 * 1024


def read(data: bytes, *cuts: int) -> list[object]:
    """Every request in `data`, fed in pieces: (request, body); at the end the status it was refused with, if so."""
    reader = RequestReader(LIMIT)
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        if end > start:
            reader.feed(data[start:end])
    found: list[object] = []
    try:
        while (request := reader.next_head()) is not None:
            body = b""
            while isinstance(part := reader.next_body(), BodyPart):
                body += part.data
            found.append((request, body if isinstance(part, EndOfBody) else None))
            if request.upgrades_to_websocket:
                break
    except RequestRefused as refused:
        found.append(refused.status)
    rest = reader.close()
    return [*found, rest] if rest else found


def request(method: str, target: bytes, *headers: tuple[bytes, bytes], websocket: bool = False) -> Request:
    return Request(method, target, b"1.1", headers, websocket)


GET = b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
WEBSOCKET = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"


@given(st.lists(st.integers(0, len(GET + POST + WEBSOCKET)), max_size=6))
@settings(max_examples=200)
def test_pipelined_requests_however_they_are_cut(cuts: list[int]) -> None:
    found = read(GET + POST + WEBSOCKET, *cuts)
    assert found == [
        (request("GET", b"/a?x=1", (b"host", b"h")), b""),
        (request("POST", b"/p", (b"host", b"h"), (b"transfer-encoding", b"chunked")), b"abcde"),
        (
            request(
                "GET",
                b"/ws",
                (b"host", b"h"),
                (b"upgrade", b"WebSocket"),
                (b"connection", b"keep-alive, Upgrade"),
                websocket=True,
            ),
            b"",
        ),
    ]


def test_bytes_behind_a_websocket_upgrade_are_kept_for_it() -> None:
    assert read(WEBSOCKET + b"\x81\x80behind")[1:] == [b"\x81\x80behind"]


def test_an_upgrade_to_h2c_is_not_taken_and_its_body_is_read() -> None:
    head = (
        b"POST /p HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
    )
    for framing, body in (
        (b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
    ):
        (found,) = read(head + framing)
        assert isinstance(found, tuple)
        assert (found[0].method, found[0].upgrades_to_websocket, found[1]) == ("POST", False, body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * LIMIT, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 4000, 431),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    assert read(data) == [status]


def test_bad_chunks_are_refused_after_the_head() -> None:
    data = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    reader = RequestReader(LIMIT)
    reader.feed(data)
    assert reader.next_head() is not None
    with pytest.raises(RequestRefused) as caught:
        reader.next_body()
    assert caught.value.status == 400


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=3))
def test_no_bytes_raise_anything_else(data: bytes, cuts: list[int]) -> None:
    read(data, *cuts)
    read(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data, *cuts)


def test_the_request_written_anew_is_read_as_the_same_request() -> None:
    (found,) = read(POST)
    assert isinstance(found, tuple)
    again = read(found[0].whole_bytes(found[1]))
    assert again == [(request("POST", b"/p", (b"host", b"h"), (b"content-length", b"5")), b"abcde")]


def test_keeping_the_connection() -> None:
    assert request("GET", b"/").keeps_alive
    assert not request("GET", b"/", (b"connection", b"Close")).keeps_alive
    assert not Request("GET", b"/", b"1.0", ()).keeps_alive


def test_an_error_answer() -> None:
    answer = refusal_answer(RequestRefused(405, "no", "Use GET.", {"Allow": "GET"}))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 405 Method Not Allowed",
        b"Connection: close",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"X-Content-Type-Options: nosniff",
        b"Referrer-Policy: no-referrer",
        b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        b"Cross-Origin-Resource-Policy: same-origin",
        b"Cache-Control: no-store",
        b"Allow: GET",
    ]
    assert json.loads(body) == {"error": "Method Not Allowed", "detail": "no", "hint": "Use GET."}


def test_path_and_query_are_decoded() -> None:
    found = request("GET", b"/api%2Fstream/a%20b?channel=x%3Ay&channel=z&empty=&userId=%C3%A9")
    assert found.path == "/api/stream/a b"
    assert found.query() == [("channel", "x:y"), ("channel", "z"), ("empty", ""), ("userId", "é")]
    with pytest.raises(RequestRefused):
        request("GET", b"/?" + b"a=1&" * 101).query()
