"""One request over HTTP/2, as HTTP/1.1 on one end of a socket pair.

On the other end the same handlers serve it as any connection's: one reader of requests, one set of limits, one
outbox. Here is what stands between: the request's head and body in HTTP/1.1, and the answer read back.

Laws: nothing of a field reaches the head that could end its line. The body is chunked, whatever length was announced
(h2 holds it to that). An answer counts as whole only where its framing says so.
Bounds: what arrived of a body and does not fit into the socket pair is as much as the stream's window.
Source: RFC 9113, 8.2 and 8.3; RFC 9112, 7.1.
"""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Callable, Iterable

import httptools
import trio
from attrs import define, field

from broker.outbox import close_socket

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_TARGET = re.compile(rb"(?:/[\x21-\x7e\x80-\xff]*|\*)")
_AUTHORITY = re.compile(rb"[\x21-\x7e]*")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"[^\0\r\n]*")
_OURS = frozenset(
    {
        b"connection",
        b"content-length",
        b"cookie",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_OF_HTTP1 = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
END_OF_BODY = b"0\r\n\r\n"

Headers = Iterable[tuple[bytes, bytes]]


class BadRequest(Exception):
    """Fields that make no request head."""


class ConnectRefused(Exception):
    """CONNECT: for a proxy, or for a WebSocket, which has a connection of its own here."""


def head_bytes(headers: Headers, *, has_body: bool) -> tuple[str, bytes]:
    """The method, and the request's head as HTTP/1.1.

    Raises:
        BadRequest, ConnectRefused
    """
    method = target = authority = b""
    host: list[bytes] = []
    cookies: list[bytes] = []
    lines: list[bytes] = []
    for name, value in headers:
        if name == b":method":
            method = value
        elif name == b":path":
            target = value
        elif name == b":authority":
            authority = value
        elif name[:1] == b":":
            continue
        elif not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequest("a header that cannot be written on a line")
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"host":
            host.append(value)
        elif name not in _OURS:
            lines.append(b"%b: %b" % (name, value))
    if method == b"CONNECT":
        raise ConnectRefused
    if not (_METHOD.fullmatch(method) and _TARGET.fullmatch(target) and _AUTHORITY.fullmatch(authority)):
        raise BadRequest("no method, path or authority that can be written on a line")
    # Both may be there and must be the same then, which h2 checks.
    lines += [b"host: %b" % each for each in ([authority] if authority else host)]
    if cookies:
        lines.append(b"cookie: " + b"; ".join(cookies))
    if has_body:
        lines.append(b"transfer-encoding: chunked")
    first = b"%b %b HTTP/1.1" % (method, target)
    return method.decode(), b"\r\n".join([first, *lines, b"connection: close", b"", b""])


def body_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@define(eq=False)
class AnswerReader:
    """Reads one answer. `take` gives what it says, in order: a head (status and headers), or bytes of the body."""

    _method: str
    _parser: httptools.HttpResponseParser | None = field(init=False, default=None)
    _headers: list[tuple[bytes, bytes]] = field(init=False, factory=list)
    _found: list[tuple[int, list[tuple[bytes, bytes]]] | bytes] = field(init=False, factory=list)
    _is_interim: bool = field(init=False, default=False)
    _is_framed: bool = field(init=False, default=False)  # by a length, or chunks; else its end is the connection's
    _has_head: bool = field(init=False, default=False)
    is_whole: bool = field(init=False, default=False)

    def take(self, data: bytes) -> list[tuple[int, list[tuple[bytes, bytes]]] | bytes]:
        """
        Raises:
            httptools.HttpParserError: it is no answer.
        """
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(data)
        found, self._found = self._found, []
        return found

    def ended(self) -> bool:
        """The connection has. Returns whether that makes the answer whole."""
        self.is_whole = self.is_whole or (self._has_head and not self._is_framed)
        return self.is_whole

    def close(self) -> None:
        """The parser and this object hold each other: part them."""
        self._parser = None

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._is_framed = self._is_framed or name in (b"content-length", b"transfer-encoding")
        if name not in _OF_HTTP1:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        self._found.append((status, self._headers))
        self._headers = []
        self._is_interim = status < 200
        self._has_head = not self._is_interim
        if self._method == "HEAD" and not self._is_interim:
            self.is_whole = True

    def on_body(self, data: bytes) -> None:
        if not self.is_whole:
            self._found.append(data)

    def on_message_complete(self) -> None:
        if not self._is_interim:
            self.is_whole = True


@define(eq=False)
class Http2Stream:
    """A stream and the outer end of its socket pair.

    Args:
        socket: non-blocking; closed by `close`.
    """

    id: int
    socket: socket.socket
    answer: AnswerReader
    inbox: deque[tuple[bytes, int]] = field(factory=deque)  # what is to be written, and its share of the window
    has_inbox: trio.Event = field(factory=trio.Event)
    has_window: trio.Event = field(factory=trio.Event)
    body_is_whole: bool = False
    is_over: bool = field(init=False, default=False)

    def put(self, data: bytes, window: int) -> None:
        """Have `data` written; `window` bytes of the stream's window are free again then."""
        self.inbox.append((data, window))
        self.has_inbox.set()

    async def carry_body(self, written: Callable[[int, int], None]) -> None:
        """Write what comes of the request. Runs until the stream is over, or whoever serves it wants no more.

        Args:
            written: told the stream and how much of its window is free again.
        """
        while not self.is_over:
            if not self.inbox:
                self.has_inbox = trio.Event()
                await self.has_inbox.wait()
                continue
            data, window = self.inbox[0]
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_writable(self.socket)
                except trio.ClosedResourceError:
                    return
                continue
            except OSError:
                return  # what it answers says why
            self.inbox[0] = (data[sent:], window)
            if sent == len(data):
                self.inbox.popleft()
                written(self.id, window)

    def opened_window(self) -> None:
        self.has_window.set()
        self.has_window = trio.Event()

    def close(self) -> None:
        """Whoever serves it sees its client leave. Synchronous; safe to call again."""
        self.is_over = True
        self.answer.close()
        self.inbox.clear()
        self.has_inbox.set()
        self.opened_window()
        close_socket(self.socket)
