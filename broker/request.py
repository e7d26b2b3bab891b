"""An HTTP/1.1 request as the door reads it: head under a limit, body in pieces, refusals with a status.

h11 is the only parser of foreign request bytes; each request gets a fresh one, fed with what the
last one left over, so bodies are framed by the library and a pipelined request begins where its
predecessor ended. Synchronous; no I/O. Source: RFC 9112; RFC 9110, 15 (status codes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import h11
import msgspec
from attrs import define, field, frozen

_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


class RequestRefused(Exception):
    """A request that gets an error answer, after which its connection is closed."""

    def __init__(
        self, status: int, detail: str, hint: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})


@frozen
class Request:
    """One request head. Header names are lower case; values are the bytes that were sent."""

    method: str
    target: bytes
    http_version: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def path(self) -> str:
        return unquote(self.target.partition(b"?")[0].decode("latin-1"))

    def query(self) -> list[tuple[str, str]]:
        """The query's pairs, decoded, in order. At most 100 are read."""
        text = self.target.partition(b"?")[2].decode("latin-1")
        try:
            return parse_qsl(text, keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise RequestRefused(400, "the query has more than 100 fields", "Send fewer fields.") from None

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def tokens(self, name: bytes) -> frozenset[bytes]:
        """The comma-separated, lower-case tokens of every header of that name."""
        return frozenset(
            token.strip().lower() for key, value in self.headers if key == name for token in value.split(b",")
        )

    @property
    def upgrades_to_websocket(self) -> bool:
        return b"upgrade" in self.tokens(b"connection") and b"websocket" in self.tokens(b"upgrade")

    def whole_bytes(self, body: bytes) -> bytes:
        """The request written anew for the web app: `body` framed by its length, no other protocol asked for."""
        lines = [b"%b %b HTTP/%b" % (self.method.encode(), self.target, self.http_version)]
        for name, value in self.headers:
            if name not in _REWRITTEN:
                lines.append(b"%b: %b" % (name, value))
        if body:
            lines.append(b"content-length: %d" % len(body))
        if b"close" in self.tokens(b"connection"):
            lines.append(b"connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


_REWRITTEN = frozenset(
    {b"connection", b"content-length", b"expect", b"http2-settings", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


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

    Args:
        head_max_bytes: the largest head; more is refused with 431.
    """

    head_max_bytes: int
    _parser: h11.Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._begin(b"")

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; empty means that the peer has finished."""
        self._parser.receive_data(data)

    def next_head(self) -> Request | None:
        """The next request's head; None while it is not whole.

        Raises:
            RequestRefused: what arrived is no request, or its head is over the limit.
        """
        event = self._next_event()
        if isinstance(event, h11.Request):
            return self._checked(event)
        return None

    def next_body(self) -> BodyPart | EndOfBody | None:
        """The next piece of the body; None while more is to come.

        Raises:
            RequestRefused: the body's framing is broken.
        """
        event = self._next_event()
        if isinstance(event, h11.Data):
            return BodyPart(bytes(event.data))
        if isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
            return EndOfBody()
        return None

    def next_request(self) -> None:
        """Begin to read the next request with what has arrived behind the last one."""
        self._begin(self.take_rest())

    def take_rest(self) -> bytes:
        """What has arrived behind the request."""
        return bytes(self._parser.trailing_data[0])

    @property
    def at_start(self) -> bool:
        """Whether nothing of the next request has arrived."""
        return not self._parser.trailing_data[0]

    def _begin(self, rest: bytes) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self.head_max_bytes)
        if rest:
            self._parser.receive_data(rest)

    def _next_event(self) -> object:
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _refusal(error, self.head_max_bytes) from None

    def _checked(self, event: h11.Request) -> Request:
        request = Request(
            event.method.decode("ascii"), bytes(event.target), bytes(event.http_version), tuple(event.headers)
        )
        if event.http_version not in (b"1.0", b"1.1"):
            raise RequestRefused(505, "only HTTP/1.0 and HTTP/1.1 are served here", "Use HTTP/1.1.")
        host = request.header(b"host")
        if host is not None and not _HOST.fullmatch(host):
            raise RequestRefused(400, "the Host header is not a host name", "Send Host: name or name:port.")
        return request


def _refusal(error: h11.RemoteProtocolError, head_max_bytes: int) -> RequestRefused:
    status = error.error_status_hint
    if status == 431:
        return RequestRefused(
            431, f"the request head is larger than {head_max_bytes} bytes", "Send fewer or shorter headers."
        )
    detail = str(error).splitlines()[0][:200] if str(error) else "malformed request"
    return RequestRefused(status, f"malformed request: {detail}", "Send a request that RFC 9112 allows.")


def error_body(status: int, detail: str, hint: str) -> bytes:
    """The JSON of every error answer: `error` (the status in words), `detail`, `hint`."""
    return msgspec.json.encode({"error": HTTPStatus(status).phrase, "detail": detail, "hint": hint})


def answer(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole answer that closes its connection, with a JSON body or none."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Connection: close"]
    if body:
        lines.append("Content-Type: application/json")
    if status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def refusal_answer(refused: RequestRefused) -> bytes:
    return answer(refused.status, error_body(refused.status, refused.detail, refused.hint), refused.headers)
