"""A TLS connection that looks like the non-blocking socket under it.

TLS without I/O of its own: OpenSSL works on two buffers, and this class moves them to and from the kernel
whenever it is asked to receive or to send. So there is no task and no descriptor besides the connection's.

Laws: `recv` returns everything that was sealed in what it took from the kernel, so whoever waits until the descriptor
is readable waits for no byte that is here already. Bytes that `send` did not take must be sent first the next
time, as with OpenSSL itself: some of them may be sealed.

Bounds: one record (`RECORD_BYTES`) that is sealed and not yet sent; what TLS itself has to say, `_UNSENT_MAX`.
Source: RFC 8446, 6.1 (closing); RFC 5246; SSL_write(3).
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

RECORD_BYTES = 16 * 1024
_RECEIVE_BYTES = 16 * 1024
_UNSENT_MAX = 256 * 1024


class TlsSocket(socket.socket):
    """The server's side of a TLS connection.

    Args:
        raw: non-blocking; its descriptor is this socket's from here on.
    """

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(raw.family, raw.type, raw.proto, fileno=raw.detach())
        self.setblocking(False)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent: bytes | memoryview = b""
        self._early = b""
        self._peer_is_done = False
        self._we_are_done = False
        self.sealed_bytes = 0  # of what was not taken: so many bytes are sealed

    @property
    def has_unsent(self) -> bool:
        """Whether sealed bytes wait for the kernel to take them."""
        return bool(self._unsent)

    @property
    def protocol(self) -> str | None:
        """What ALPN agreed on."""
        return self._tls.selected_alpn_protocol()

    @property
    def version(self) -> str | None:
        """The version of TLS, such as `TLSv1.3`."""
        return self._tls.version()

    def handshake(self) -> bool:
        """Go on with the handshake as far as what has arrived allows. Returns whether it is over.

        Raises:
            OSError: it failed, or the peer left.
        """
        try:
            data = super().recv(_RECEIVE_BYTES)
        except BlockingIOError:
            data = b""
        else:
            if not data:
                raise ConnectionResetError("left during the handshake")
            self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._push()
            return False
        except ssl.SSLError:
            self._push()  # the alert that says why
            raise
        self._early = self._open_records()
        self._push()
        return True

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Everything in the next bytes from the kernel; may be more than `bufsize`, by what TLS had begun of a record.

        Raises:
            BlockingIOError: there is nothing yet.
            OSError: the connection, or TLS on it, is broken.
        """
        if self._early:
            data, self._early = self._early, b""
            return data
        if self._peer_is_done and not self._we_are_done:
            return b""
        data = super().recv(bufsize, flags)
        if not data:
            return b""
        if self._we_are_done:
            raise BlockingIOError  # nobody listens any more; it is read so that closing does not reset the peer
        self._incoming.write(data)
        try:
            opened = self._open_records()
        except ssl.SSLError:
            self._push()
            raise
        if self._outgoing.pending:
            self._push()
            if len(self._unsent) > _UNSENT_MAX:
                raise ConnectionAbortedError("asks TLS for answers and does not read them")
        if opened:
            if self._peer_is_done:
                super().shutdown(socket.SHUT_RD)  # readable from now on: its end is not hidden behind these bytes
            return opened
        if self._peer_is_done:
            return b""
        raise BlockingIOError

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Seal and send as much of `data` as the kernel takes. Returns how much of it was taken.

        Raises:
            BlockingIOError: nothing was.
            OSError: the connection is broken.
        """
        taken = 0
        if self._unsent and not self._push():
            raise BlockingIOError
        if self.sealed_bytes:
            taken, self.sealed_bytes = self.sealed_bytes, 0
        size = len(data)
        while taken < size:
            sealed = self._tls.write(data if size <= RECORD_BYTES and not taken else self._record_of(data, taken))
            if not self._push():
                self.sealed_bytes = sealed
                break
            taken += sealed
        if not taken and size:
            raise BlockingIOError
        return taken

    def shutdown(self, how: int, /) -> None:
        """Finish our side: the peer is told that nothing is missing, as far as the kernel takes it."""
        self._say_done()
        super().shutdown(how)

    def close(self) -> None:
        if self.fileno() >= 0:
            try:
                self._say_done()
            except OSError:
                pass
        super().close()

    @staticmethod
    def _record_of(data: Any, at: int) -> memoryview:
        return memoryview(data)[at : at + RECORD_BYTES]

    def _say_done(self) -> None:
        if self._we_are_done:
            return
        self._we_are_done = True
        if self._unsent and not self._push():
            return  # a cut record tells the peer as much
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):  # it waits for the peer's; or the handshake is not over
            pass
        self._push()

    def _open_records(self) -> bytes:
        parts = []
        while self._incoming.pending or self._tls.pending():
            try:
                part = self._tls.read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                self._peer_is_done = True
                break
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _push(self) -> bool:
        """Move what is sealed to the kernel. Returns whether it took all."""
        if self._outgoing.pending:
            data = self._outgoing.read()
            self._unsent = b"".join((self._unsent, data)) if self._unsent else data
        while self._unsent:
            try:
                sent = super().send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = memoryview(self._unsent)[sent:] if sent < len(self._unsent) else b""
        return True
