"""Certificates of an authority that only the tests know, and both ends of a TLS connection in memory."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import trustme
from attrs import define, field, frozen

from broker.config.access import ListenTls
from broker.tls import Certificate
from broker.tlssocket import TlsSocket

NAMES = ("localhost", "127.0.0.1")


@frozen
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> ListenTls:
        return ListenTls(certificate=str(self.certificate), key=str(self.key))

    @property
    def environ(self) -> dict[str, str]:
        return {
            "BROKER_LISTEN_TLS_CERTIFICATE": str(self.certificate),
            "BROKER_LISTEN_TLS_KEY": str(self.key),
            "BROKER_LISTEN_TLS_CHECK_SECONDS": "0.1",
        }


@define(eq=False)
class Authority:
    """Issues certificates for this machine, into `folder`."""

    folder: Path
    _ca: trustme.CA = field(init=False, factory=trustme.CA)

    def issue(self, name: str = "server") -> Pair:
        """Write a new pair; one of that name is written over."""
        issued = self._ca.issue_cert(*NAMES)
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        return pair

    @property
    def file(self) -> Path:
        path = self.folder / "authority.pem"
        if not path.exists():
            self._ca.cert_pem.write_to_path(str(path))
        return path

    def client_context(
        self, *protocols: str, version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    ) -> ssl.SSLContext:
        """What a client trusts this authority with.

        Args:
            protocols: what it offers by ALPN.
            version: the newest that it speaks.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        context.maximum_version = version
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


@define(eq=False)
class TlsPeer:
    """The client's end, over a non-blocking socket; reads when it is told to."""

    socket: socket.socket
    context: ssl.SSLContext
    _incoming: ssl.MemoryBIO = field(init=False, factory=ssl.MemoryBIO)
    _outgoing: ssl.MemoryBIO = field(init=False, factory=ssl.MemoryBIO)
    tls: ssl.SSLObject = field(init=False)
    is_ended: bool = field(init=False, default=False)  # by a close_notify

    def __attrs_post_init__(self) -> None:
        self.tls = self.context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def seal(self, data: bytes) -> bytes:
        """What `data` is on the wire, and whatever else TLS has to say."""
        if data:
            self.tls.write(data)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        self.socket.sendall(self.seal(data))

    def open(self, data: bytes) -> bytes:
        """The plain bytes in what came."""
        self._incoming.write(data)
        opened = b""
        while True:
            try:
                part = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                return opened
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                self.is_ended = True
                return opened
            opened += part

    def open_handshake(self, data: bytes) -> bool:
        """Go on with the handshake. Returns whether it is over."""
        self._incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def shake(self, server: TlsSocket) -> None:
        """Both sides of the handshake, to its end."""
        for _ in range(10):
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            if sealed := self._outgoing.read():
                self.socket.sendall(sealed)
            if server.handshake() and done:
                return
            try:
                self._incoming.write(self.socket.recv(1 << 16))
            except BlockingIOError:
                pass
        raise AssertionError("the handshake does not end")

    def close_notify(self) -> bytes:
        """What says that nothing follows."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        return self._outgoing.read()


def connected(authority: Authority, ours: socket.socket, theirs: socket.socket) -> tuple[TlsSocket, TlsPeer]:
    """Both ends after their handshake, over a pair of non-blocking sockets. The first owns `ours`."""
    server = TlsSocket(ours, Certificate(authority.issue().settings).context)
    peer = TlsPeer(theirs, authority.client_context())
    peer.shake(server)
    return server, peer
