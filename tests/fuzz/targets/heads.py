"""Request heads and bodies: the parser, and all that is made of a request before anybody is let in."""

from __future__ import annotations

from urllib.parse import unquote_plus

import attrs

from broker.answerstream import stream_head
from broker.auth.credential import credential_of, masked
from broker.config.access import Auth
from broker.forwarded import Proxies
from broker.handshake import handshake, subprotocol_of
from broker.inquiry import PATHS, InquiryRefused, inquiry_from_query, watch_of
from broker.origins import Origins
from broker.request import BodyPart, EndOfBody, Request, RequestReader, RequestRefused, answer, refusal_answer
from broker.stream import stream_of
from broker.submission import checked_key
from tests.actors.raw_client import head, upgrade
from tests.fuzz.reading import head_of, is_one_line, object_of
from tests.fuzz.target import Target

HEAD_MAX_BYTES = 16 * 1024
STATUSES = {400, 401, 403, 404, 405, 408, 413, 417, 426, 431, 501, 505}
AUTH = Auth(secret="x" * 32, cookie="token")
ORIGINS = (
    Origins(("https://app.example.com", "https://*.example.com"), with_credentials=True),
    Origins(("*",)),
    Origins(("loopback", "http://a.example:8080")),
)
PROXIES = Proxies(("127.0.0.1", "10.0.0.0/8"))
_UPGRADING = {b"connection", b"http2-settings", b"upgrade"}
_FRAMING = {b"content-length", b"expect", b"te", b"trailer", b"transfer-encoding"}


def check(data: bytes) -> str:
    whole = read([data])
    at = len(data) * 7 // 13
    pieces = read([data[:at], data[at:]])
    # A head over its limit is refused sooner or later, as its pieces come.
    if not {431} & {whole.status, pieces.status}:
        assert pieces == whole, (pieces, whole)
    for request in whole.requests:
        look_at(request)
    if whole.requests:
        request = whole.requests[0]
        return f"{request.method} {'websocket' if request.upgrades_to_websocket else ''} {whole.status}"
    return f"{whole.status}"


@attrs.frozen
class Read:
    """What a connection's bytes are read as."""

    requests: tuple[Request, ...]
    body: bytes
    ended: int
    status: int
    rest: bytes


def read(pieces: list[bytes]) -> Read:
    reader = RequestReader(HEAD_MAX_BYTES)
    requests: list[Request] = []
    body, ended, status = b"", 0, 0
    in_body = False
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                event: Request | BodyPart | EndOfBody | None = reader.next_body() if in_body else reader.next_head()
                if event is None:
                    break
                if isinstance(event, Request):
                    requests.append(event)
                    in_body = True
                elif isinstance(event, BodyPart):
                    body += event.data
                else:
                    ended += 1
                    in_body = False
            if requests and requests[-1].upgrades_to_websocket and not in_body:
                # What follows is no HTTP: the rest of the pieces is the client's.
                return Read(
                    tuple(requests), body, ended, 0, reader.close() + b"".join(pieces[pieces.index(piece) + 1 :])
                )
    except RequestRefused as refused:
        status = check_refusal(refused)
    return Read(tuple(requests), body, ended, status, b"")


def check_refusal(refused: RequestRefused) -> int:
    headers, body = head_of(refusal_answer(refused))
    said = object_of(body)
    assert refused.status in STATUSES, refused.status
    assert set(said) - {"channel"} == {"error", "detail", "hint"} and headers["content-length"] == str(len(body))
    assert head_of(refusal_answer(refused, "HEAD"))[1] == b""
    return refused.status


def look_at(request: Request) -> None:
    """Everything that is asked of a request raises RequestRefused at most, and no answer has a line too many."""
    for name, value in request.headers:
        assert name == name.lower() and not set(name + value) & set(b"\r\n\0")
    assert not set(request.target) & set(b" \r\n\0")
    assert request.target.startswith((b"/", b"*")) or request.method == "CONNECT" or b":" in request.target
    check_written_anew(request)
    assert is_one_line(masked(request.target))
    for origins in ORIGINS:
        refusals(lambda origins=origins: origins.check(request))
        refusals(lambda origins=origins: origins.check_host(request))
        assert origins.cookie_may_count(request) in (True, False)
        origin = request.text(b"origin")
        for headers in (origins.cors_headers(origin), origins.preflight_headers(origin, "GET")):
            head_of(answer(204, b"", headers))
            head_of(stream_head(True, headers))
            if headers.get("Access-Control-Allow-Origin") == "*":
                assert "Access-Control-Allow-Credentials" not in headers
    for peer in ("127.0.0.1", "10.1.2.3"):
        PROXIES.whence(peer, request.headers)
    refusals(lambda: check_credential(request))
    refusals(lambda: check_handshake(request))
    refusals(lambda: check_query(request))


def check_written_anew(request: Request) -> None:
    """Who reads what is written for the web app reads the same request."""
    again = read([request.whole_bytes(b"{}")])
    if again.status == 431:
        return
    (found,) = again.requests
    dropped = _UPGRADING | _FRAMING
    kept = [header for header in request.headers if header[0] not in dropped]
    assert [header for header in found.headers if header[0] not in dropped] == kept
    assert (found.method, found.target, found.http_version) == (request.method, request.target, request.http_version)
    assert (again.body, again.ended, again.status, again.rest) == (b"{}", 1, 0, b"")
    assert not found.upgrades_to_websocket


def check_credential(request: Request) -> None:
    credential = credential_of(request, AUTH)
    if credential is not None:
        assert repr(credential) == f"Credential(kind={credential.kind!r})"
        check_masked(request)


def check_masked(request: Request) -> None:
    """Each field of the query that is a token is masked, whole."""
    fields = masked(request.target).partition("?")[2].split("&")
    for name, equals, value in (each.partition("=") for each in fields):
        if equals and unquote_plus(name) == "token":
            assert value in ("***", "***...") or len(request.target) > 400, value


def check_handshake(request: Request) -> None:
    head_of(handshake(request, subprotocol_of(request)))


def check_query(request: Request) -> None:
    query = request.query()
    last_id = request.last_event_id(query)
    refusals(lambda: stream_of(request.path, query, None, 32))
    refusals(lambda: checked_key(request.text(b"idempotency-key")))
    refusals(lambda: watch_of(request.path, last_id))
    if request.path.startswith(tuple(PATHS)):
        try:
            refusals(lambda: inquiry_from_query(request.path, query))
        except InquiryRefused as refused:
            assert str(refused)


def refusals(call: object) -> None:
    assert callable(call)
    try:
        call()
    except RequestRefused as refused:
        check_refusal(refused)


TARGET = Target(
    "heads",
    check,
    (
        upgrade(),
        upgrade(b"/ws?userId=a%20b&token=eyJhbGciOiJIUzI1NiJ9.e30.AA", b"Origin: https://app.example.com"),
        upgrade(b"/ws", b"Sec-WebSocket-Protocol: broker.v1, bearer.eyJhbGciOiJIUzI1NiJ9.e30.AA"),
        upgrade() + b"\x81\x80abcd",
        head(b"GET /health HTTP/1.1"),
        head(b"GET /health HTTP/1.1") + head(b"GET /health HTTP/1.0"),
        head(b"GET /api/realtime/stats?clients=3 HTTP/1.1", b"Accept: */*", b"Cookie: a=b; token=abc.def.ghi"),
        head(b"GET /api/stream?channel=fuzz:1&channel=x&userId=u HTTP/1.1", b"Last-Event-ID: c1,abcdef=1:2:3"),
        head(b"GET /api/stream/render-progress/fuzz HTTP/1.1", b"Last-Event-ID: end", b"Origin: null"),
        head(b"GET /api/stream/council-score?videoUrl=a&transcript=b&features=%7B%22a%22%3A1%7D HTTP/1.1"),
        head(b"GET /api/stream/evaluate-creative/0123456789abcdef0123456789abcdef HTTP/1.1"),
        head(b"POST /api/publish HTTP/1.1", b"Content-Length: 5", b"Authorization: Bearer abc", b"Idempotency-Key: k")
        + b"hello",
        head(b"POST /health HTTP/1.1", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        head(b"POST /nothing HTTP/1.1", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 2") + b"{}",
        head(b"OPTIONS * HTTP/1.1", b"Access-Control-Request-Method: GET"),
        head(b"GET http://a.example/health HTTP/1.1", b"X-Forwarded-For: 1.2.3.4, 10.0.0.1"),
        head(b"GET / HTTP/1.1", b'Forwarded: for="[::1]:80";proto=https, for=10.0.0.1'),
        head(b"CONNECT a:1 HTTP/1.1"),
        head(b"GET / HTTP/1.1", b"X: " + b"a" * HEAD_MAX_BYTES),
    ),
    (
        b"Host: b\r\n", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
        b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.1", b"HEAD ", b"GET ", b"POST ",
        b"token=", b"&token=", b"?", b"#", b"//", b"..", b"@", b"[::1]", b"\t", b" ", b"Cookie: token=", b"Origin: ",
        b"Authorization: Bearer ", b"Sec-WebSocket-Protocol: bearer.", b"Last-Event-ID: ", b"%0d%0a", b"%0aX: y",
        b"https://", b"https://a.b.example.com", b"Referer: https://app.example.com/", b"Sec-Fetch-Site: none",
    ),
    frozenset({"GET  0", "GET websocket 0", "POST  0", "400", "431"}),
)  # fmt: skip
