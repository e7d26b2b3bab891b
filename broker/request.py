"""An HTTP/1.1 request as the door reads it: head under a limit, body in pieces, refusals with a status.

httptools (Node's llhttp, strict) is the only parser of foreign request bytes: 7 us for a head where
h11 takes 41. What it accepts is written anew for the web app behind it, so two parsers never read the
same bytes differently. Synchronous; no I/O. Source: RFC 9112; RFC 9110, 15 (status codes).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import httptools
import msgspec
from attrs import define, field, frozen

from broker.headers import SECURITY_HEADERS

# Labels of at most 63 bytes, none empty but the last (RFC 1035, 2.3.4): werkzeug fails on others.
_LABEL = rb"[A-Za-z0-9\-_~%!$&'()*+,;=]{1,63}"
_HOST = re.compile(rb"(?:(?:%b\.)*(?:%b)?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?" % (_LABEL, _LABEL))
# A target may be a whole URL (RFC 9112, 3.2.2); what is served does not depend on its host.
_ORIGIN = re.compile(rb"^[Hh][Tt][Tt][Pp][Ss]?://[^/?]*(?=/|$)")


class RequestRefused(Exception):
    """A request that gets an error answer, after which its connection is closed.

    Args:
        channel: the channel that is to blame, where the request names several.
    """

    def __init__(
        self, status: int, detail: str, hint: str, headers: Mapping[str, str] | None = None, *, channel: str = ""
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.channel = channel


@frozen
class Request:
    """One request head. Header names are lower case; values are the bytes that were sent.

    Args:
        address: the client's IP address as the door knows it, also from behind a trusted proxy; None where it is not
            known: a unix socket.
        scheme: http or https, as the client asked; None where nobody who is trusted says it.
        is_last: the connection is closed after it.
    """

    method: str
    target: bytes
    http_version: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    upgrades_to_websocket: bool = False
    address: str | None = None
    scheme: str | None = None
    is_last: bool = False

    def coming_from(self, address: str | None, scheme: str | None, *, is_last: bool = False) -> Request:
        """The same request, with what is known of its client. Written out: `attrs.evolve` takes four times as long."""
        return Request(
            self.method,
            self.target,
            self.http_version,
            self.headers,
            self.upgrades_to_websocket,
            address,
            scheme,
            is_last,
        )

    @property
    def path(self) -> str:
        return unquote(self.target.partition(b"?")[0].decode("latin-1"))

    def query(self) -> list[tuple[str, str]]:
        """The query's pairs, decoded, in order. At most `_MOST_FIELDS` are read."""
        text = self.target.partition(b"?")[2].decode("latin-1")
        if not text:
            return []
        try:
            return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise RequestRefused(400, f"the query has more than {_MOST_FIELDS} fields", "Send fewer fields.") from None

    def asked(self, name: str) -> str | None:
        """The last value of a query field; None where the query has no such field. `name` is plain letters.

        Most queries have nothing of the kind, and are not taken apart for it.
        """
        target = self.target
        if name.encode() not in target and b"%" not in target and target.count(b"&") < _MOST_FIELDS:
            return None
        return dict(self.query()).get(name)

    def last_event_id(self, query: Sequence[tuple[str, str]]) -> str | None:
        """What the client had last: as EventSource says it, or in the query for clients that cannot."""
        header = self.header(b"last-event-id")
        if header:
            return header.decode("latin-1")
        return dict(query).get("lastEventId") or None

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def text(self, name: bytes) -> str | None:
        """The first header of that lower-case name as text; None where it is missing or empty."""
        value = self.header(name)
        return value.decode("latin-1") if value else None

    @property
    def host(self) -> str:
        """The Host header; empty where there is none (HTTP/1.0)."""
        return self.text(b"host") or ""

    def tokens(self, name: bytes) -> frozenset[bytes]:
        """The comma-separated, lower-case tokens of every header of that name."""
        return frozenset(
            token.strip().lower() for key, value in self.headers if key == name for token in value.split(b",")
        )

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may carry another request after this one."""
        return (
            self.http_version == b"1.1"
            and b"close" not in self.tokens(b"connection")
            and not self.upgrades_to_websocket
            and not self.is_last
        )

    def head_bytes(self, without: frozenset[bytes], *added: bytes) -> bytes:
        """The head written anew, without some headers and with others added as lines."""
        lines = [b"%b %b HTTP/%b" % (self.method.encode(), self.target, self.http_version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in without]
        return b"\r\n".join([*lines, *added]) + b"\r\n\r\n"

    def whole_bytes(self, body: bytes) -> bytes:
        """The request written anew for the web app: `body` framed by its length, no other protocol asked for."""
        added = [b"content-length: %d" % len(body)] if body else []
        if not self.keeps_alive:
            added.append(b"connection: close")
        return self.head_bytes(_UPGRADING | _FRAMING, *added) + body


_MOST_FIELDS = 100
_NO_EVENTS: deque[Request | BodyPart | EndOfBody] = deque(maxlen=0)
_UPGRADING = frozenset({b"connection", b"http2-settings", b"upgrade"})
_FRAMING = frozenset({b"content-length", b"expect", b"te", b"trailer", b"transfer-encoding"})


@frozen
class BodyPart:
    """Bytes of a request's body, without their framing."""

    data: bytes


@frozen
class EndOfBody:
    """The request is whole."""


@define(eq=False)
class RequestReader:
    """Reads one request after another from the bytes of one connection.

    The parser and its callbacks hold each other: `close` parts them, so that nothing waits for the
    garbage collector.

    Args:
        head_max_bytes: the largest head; more is refused with 431.
    """

    _head_max_bytes: int
    _parser: httptools.HttpRequestParser | None = field(init=False, default=None)
    _events: deque[Request | BodyPart | EndOfBody] = field(init=False, factory=deque)
    _refused: RequestRefused | None = field(init=False, default=None)
    _target: bytes = field(init=False, default=b"")
    _headers: list[tuple[bytes, bytes]] = field(init=False, factory=list)
    _in_body: bool = field(init=False, default=False)
    _head_begun: bool = field(init=False, default=False)
    _head_completed: bool = field(init=False, default=False)  # by what is being fed
    _head_bytes: int = field(init=False, default=0)
    _rest: bytes = field(init=False, default=b"")
    body_bytes: int = field(init=False, default=0)

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection. What is wrong with them is raised when its turn comes."""
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        self.body_bytes += len(data)
        self._head_completed = self._in_body
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._refused = error.__context__ if isinstance(error.__context__, RequestRefused) else _refusal(error)
        # A head that begins behind other things is not counted before its second piece: a whole one is weighed anyway.
        if self._head_begun and not self._head_completed and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > self._head_max_bytes:
                self._refused = _head_too_large(self._head_max_bytes)

    def next_head(self) -> Request | None:
        """The next request's head; None while it is not whole.

        Raises:
            RequestRefused: what arrived is no request, or its head is over the limit.
        """
        event = self._next_event()
        assert event is None or isinstance(event, Request)
        return event

    def next_body(self) -> BodyPart | EndOfBody | None:
        """The next piece of the body; None while more is to come.

        Raises:
            RequestRefused: the body's framing is broken.
        """
        event = self._next_event()
        assert not isinstance(event, Request)
        return event

    @property
    def is_between_requests(self) -> bool:
        """Whether nothing of a next request has arrived."""
        return not self._events and not self._head_begun and not self._in_body and self._refused is None

    def close(self) -> bytes:
        """Read no further. Returns what arrived behind a request that asks for a WebSocket."""
        self._parser = None
        self._events = _NO_EVENTS  # an empty deque takes 600 bytes, and a WebSocket lasts
        return self._rest

    def on_message_begin(self) -> None:
        self._head_begun = True

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        target, headers = self._target, tuple(self._headers)
        self._target, self._headers, self._head_bytes, self.body_bytes = b"", [], 0, 0
        self._head_begun, self._head_completed, self._in_body = False, True, True
        request = Request(
            self._parser.get_method().decode(),
            target if target[:1] == b"/" else _ORIGIN.sub(b"", target) or b"/",
            self._parser.get_http_version().encode(),
            headers,
            self._parser.should_upgrade() and any(_is_websocket(*header) for header in headers),
        )
        self._events.append(_checked(request, self._head_max_bytes))

    def on_body(self, data: bytes) -> None:
        self._events.append(BodyPart(data))

    def on_message_complete(self) -> None:
        self._in_body = False
        self._events.append(EndOfBody())

    def _next_event(self) -> Request | BodyPart | EndOfBody | None:
        if self._events:
            return self._events.popleft()
        if self._refused is not None:
            raise self._refused
        return None

    def _parse(self, data: bytes) -> None:
        while self._parser is not None:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._stop_at_upgrade(data)

    def _stop_at_upgrade(self, rest: bytes) -> None:
        """The parser stopped behind a request that asks for another protocol, and `rest` behind it."""
        self._events.pop()
        request = self._events.pop()
        assert isinstance(request, Request)
        self._parser = None
        if request.method == "CONNECT":
            self._refused = RequestRefused(405, "this is no proxy", "Use GET.", {"Allow": "GET, HEAD, POST, OPTIONS"})
        elif request.upgrades_to_websocket:
            self._events += (request, EndOfBody())
            self._rest = rest
        else:
            # Java's client asks for h2c with its first POST: it is answered as if it had not asked (RFC 9110, 7.8).
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(request.head_bytes(_UPGRADING))


def _is_websocket(name: bytes, value: bytes) -> bool:
    return name == b"upgrade" and b"websocket" in [token.strip() for token in value.lower().split(b",")]


def _checked(request: Request, head_max_bytes: int) -> Request:
    if request.http_version not in (b"1.1", b"1.0"):
        raise _other_version()
    size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
    if size > head_max_bytes:
        raise _head_too_large(head_max_bytes)
    hosts = [value for name, value in request.headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and request.http_version == b"1.1"):
        raise RequestRefused(400, f"{len(hosts)} Host headers", "Send one Host header: name or name:port.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise RequestRefused(400, "the Host header is not a host name", "Send Host: name or name:port.")
    return request


def _head_too_large(head_max_bytes: int) -> RequestRefused:
    return RequestRefused(
        431,
        f"the request head is larger than {head_max_bytes} bytes",
        "Send fewer or shorter headers and a shorter URL; long parameters go into the body of a POST.",
    )


def _other_version() -> RequestRefused:
    return RequestRefused(505, "only HTTP/1.0 and HTTP/1.1 are served here", "Use HTTP/1.1.")


def _refusal(error: httptools.HttpParserError) -> RequestRefused:
    if "PRI" in str(error) or "HTTP version" in str(error):
        return _other_version()
    return RequestRefused(400, f"malformed request: {error}", "Send an HTTP/1.1 request that RFC 9112 allows.")


def unauthorized(detail: str, *, invalid: bool = False) -> RequestRefused:
    """The answer to who has no token, or one that does not count. Source: RFC 6750, 3."""
    challenge = 'Bearer realm="broker"' + (', error="invalid_token"' if invalid else "")
    return RequestRefused(
        401,
        detail,
        "Send a token: Authorization: Bearer <token>, or ?token= where headers cannot be set.",
        {"WWW-Authenticate": challenge},
    )


def error_body(status: int, detail: str, hint: str, **facts: str) -> bytes:
    """The JSON of every error answer: `error` (the status in words), `detail`, `hint`."""
    return msgspec.json.encode({"error": HTTPStatus(status).phrase, "detail": detail, "hint": hint, **facts})


def answer(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole answer that closes its connection, with a JSON body or none."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Connection: close"]
    if body:
        lines.append("Content-Type: application/json")
    if status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in {**SECURITY_HEADERS, **headers}.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def refusal_answer(refused: RequestRefused, method: str = "") -> bytes:
    """The whole answer; to HEAD without the body that its length announces (RFC 9110, 9.3.2)."""
    facts = {"channel": refused.channel} if refused.channel else {}
    body = error_body(refused.status, refused.detail, refused.hint, **facts)
    whole = answer(refused.status, body, refused.headers)
    return whole.removesuffix(body) if method == "HEAD" else whole
