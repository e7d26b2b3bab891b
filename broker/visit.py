"""A visit: one accepted connection until it is known what it wants, and between requests after that.

On a port with TLS it begins with `secure`; from then on the socket is a `TlsSocket`. A stream of an HTTP/2
connection is a visit too, on one end of a socket pair.

Every read and write has a deadline. Concurrency: one task reads, the same task writes.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from socket import socket as Socket

import structlog
import trio
from attrs import define, field

from broker.config.sections import Listen
from broker.outbox import close_socket
from broker.proxyheader import ProxyHeaderReader
from broker.request import EndOfBody, Request, RequestReader, RequestRefused, refusal_answer
from broker.tlssocket import TlsSocket

log = structlog.get_logger(__name__)

RECEIVE_BYTES = 64 * 1024
_PROXY_HEADER_BYTES = 8 * 1024
LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
# A TLS handshake begins with the byte 22, no HTTP method does.
_METHOD = re.compile(rb"[A-Z]{2,}")


class VisitorLeft(Exception):
    """The peer closed or reset the connection, or was silent between requests."""


@define(eq=False)
class Visit:
    """A connection and the requests on it.

    Args:
        socket: non-blocking; owned by the door, unless `hand_over` was called.
        opened_at: when it was accepted, in loop seconds; its first head is due from then.
        address: the IP address of the client, or of the last proxy before us; None for a unix socket.
        scheme: https where the peer speaks TLS with us; None where somebody before us may do so with the client.
    """

    socket: socket.socket
    bounds: Listen
    opened_at: float
    address: str | None = None
    scheme: str | None = None
    on_dismissed: Callable[[], None] | None = field(init=False, default=None)
    _reader: RequestReader = field(init=False)
    _has_begun: bool = field(init=False, default=False)
    _waiting: trio.CancelScope | None = field(init=False, default=None)
    _dismissed: bool = field(init=False, default=False)
    is_handed_over: bool = field(init=False, default=False)
    served: str = field(init=False, default="nothing")  # what the log says of it
    status: str = field(init=False, default="")  # of the last answer that was written here
    user_id: str | None = field(init=False, default=None)  # who the last request was from, for the log

    def __attrs_post_init__(self) -> None:
        self._reader = RequestReader(self.bounds.head_max_bytes)

    async def read_proxy_header(self) -> None:
        """Take a PROXY header off the connection, and nothing behind it; `address` is then what it says.

        Raises:
            ProxyHeaderError: there is none.
            VisitorLeft: it did not come in the time that a request head has, with the head itself.
        """
        if self._dismissed:
            raise VisitorLeft
        reader = ProxyHeaderReader()
        with trio.CancelScope(deadline=self.opened_at + self.bounds.head_seconds) as self._waiting:
            while not reader.is_done:
                try:
                    seen = self.socket.recv(_PROXY_HEADER_BYTES, socket.MSG_PEEK)
                    if not seen:
                        raise VisitorLeft
                    self.socket.recv(reader.feed(seen))
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self.socket)
                except OSError:
                    raise VisitorLeft from None
            if reader.source is not None:
                self.address = reader.source
            return
        raise VisitorLeft

    async def secure(self, context: ssl.SSLContext) -> str:
        """Shake hands; from here on everything is sealed. What fails is the peer's affair: a debug line.

        Returns:
            What ALPN agreed on: `h2` or `http/1.1`.

        Raises:
            VisitorLeft: there is no handshake, or it took longer than a request head may.
        """
        if self._dismissed:
            raise VisitorLeft
        with trio.CancelScope(deadline=self.opened_at + self.bounds.head_seconds) as self._waiting:
            try:
                await self._refuse_plain_http()
                sock = TlsSocket(self.socket, context)
                self.socket, self.scheme = sock, "https"
                while not sock.handshake():
                    if sock.has_unsent:
                        await trio.lowlevel.wait_writable(sock)
                    else:
                        await trio.lowlevel.wait_readable(sock)
                if not self._dismissed:
                    return sock.protocol or "http/1.1"
            except OSError as error:
                log.debug("no TLS handshake", client=self.address, error=getattr(error, "reason", None) or str(error))
        raise VisitorLeft

    async def _refuse_plain_http(self) -> None:
        """Tell who speaks plain HTTP to a port with TLS. Nothing is kept for who says nothing."""
        while True:
            try:
                first = self.socket.recv(8, socket.MSG_PEEK)
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket)
        if _METHOD.match(first):
            log.debug("plain HTTP on a port with TLS", client=self.address)
            refused = RequestRefused(400, "this port speaks TLS", "Use https:// or wss://.")
            await self.write(refusal_answer(refused))
            await self.linger()
            raise VisitorLeft

    def stream(self, end: Socket) -> Visit:
        """The visit of one stream on this connection, which is HTTP/2's.

        Args:
            end: non-blocking; what the stream's request comes from, and its answer goes to.
        """
        return Visit(end, self.bounds, trio.current_time(), self.address, self.scheme)

    async def read_request(self) -> Request:
        """Wait for the next request's head.

        Raises:
            VisitorLeft: there is none: the peer left, was silent for too long, or was dismissed.
            RequestRefused: it is malformed, too large or too slow.
        """
        request = self._reader.next_head()
        resting = self._has_begun and self._reader.is_between_requests
        if request is None and not self._has_begun:
            # More often than not the whole head is there already: no need to wait for it.
            self._receive_at_once()
            request = self._reader.next_head()
        if request is not None:
            self._has_begun = True
            return request
        if self._has_begun:
            deadline = trio.current_time() + (self.bounds.idle_seconds if resting else self.bounds.head_seconds)
        else:
            deadline = self.opened_at + self.bounds.head_seconds
        self._has_begun = True
        if self._dismissed:
            raise VisitorLeft
        with trio.CancelScope(deadline=deadline) as self._waiting:
            while True:
                self._reader.feed(await self._receive())
                if resting:
                    resting = False
                    self._waiting.deadline = trio.current_time() + self.bounds.head_seconds
                request = self._reader.next_head()
                if request is not None:
                    return request
        # Who has not begun to ask is told nothing: browsers open connections ahead of their requests, and would take
        # an answer for that of the next one. And a crowd of them costs less.
        if self._reader.is_between_requests or self._dismissed:
            raise VisitorLeft
        raise RequestRefused(
            408, f"the request head took longer than {self.bounds.head_seconds:g} s", "Send the whole head at once."
        )

    @property
    def is_new(self) -> bool:
        """Whether nothing was asked here yet."""
        return self.served == "nothing" and self.on_dismissed is None

    def dismiss(self) -> None:
        """End a visit that has asked for nothing yet. Synchronous; a request that is being served is not touched."""
        self._dismissed = True
        if self.on_dismissed is not None:
            self.on_dismissed()
        if self._waiting is not None:
            self._waiting.cancel()

    async def read_body(self, request: Request) -> bytes:
        """The request's whole body.

        Raises:
            VisitorLeft: the peer left half way.
            RequestRefused: it is malformed, too large or too slow.
        """
        most = self.bounds.body_max_bytes
        too_large = RequestRefused(413, f"the request body is larger than {most} bytes", "Send less at once.")
        if int(request.header(b"content-length") or 0) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        if b"100-continue" in request.tokens(b"expect") and request.http_version != b"1.0":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        with trio.move_on_after(self.bounds.body_seconds):
            while True:
                part = self._reader.next_body()
                if isinstance(part, EndOfBody):
                    return b"".join(parts)
                if part is None:
                    if self._reader.body_bytes > 8 * most + RECEIVE_BYTES:
                        raise too_large
                    self._reader.feed(await self._receive())
                    continue
                size += len(part.data)
                if size > most:
                    raise too_large
                parts.append(part.data)
        raise RequestRefused(
            408, f"the request body took longer than {self.bounds.body_seconds:g} s", "Send it faster or in parts."
        )

    def hand_over(self) -> bytes:
        """Give the socket to a client: what has arrived behind the request head goes with it."""
        self.is_handed_over = True
        return self._reader.close()

    async def write(self, data: bytes) -> None:
        """Write all of `data` within `write_seconds`.

        Raises:
            VisitorLeft: the peer is gone or does not read. Half of it may be written: close.
        """
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100 "):  # that is no answer yet
            self.status = data[9:12].decode("latin-1")
        view = memoryview(data)
        with trio.move_on_after(self.bounds.write_seconds):
            while view:
                try:
                    view = view[self.socket.send(view) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self.socket)
                except OSError:
                    raise VisitorLeft from None
            return
        raise VisitorLeft

    async def linger(self) -> None:
        """Let the peer read the last answer: finish our side and read what it still sends, within bounds."""
        size = 0
        with trio.move_on_after(LINGER_SECONDS):
            try:
                self.socket.shutdown(socket.SHUT_WR)
                while size < LINGER_BYTES:
                    size += len(await self._receive())
            except (OSError, VisitorLeft):
                pass

    def close(self) -> None:
        self._reader.close()
        close_socket(self.socket)

    def _receive_at_once(self) -> None:
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            raise VisitorLeft from None
        if not data:
            raise VisitorLeft
        self._reader.feed(data)

    async def _receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                raise VisitorLeft from None
            if not data:
                raise VisitorLeft
            return data
