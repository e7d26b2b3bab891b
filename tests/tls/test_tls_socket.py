"""The TLS socket: nothing that arrived stays hidden in it, nothing that was sealed is lost, and it ends as TLS asks."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.tls import Certificate
from broker.tlssocket import RECORD_BYTES, TlsSocket
from tests.tls.certificates import Authority, TlsPeer, connected


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for each in (ours, theirs):
        each.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def ends(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> Iterator[tuple[TlsSocket, TlsPeer]]:
    server, peer = connected(Authority(tmp_path), *pair)
    with server:
        yield server, peer


def readable(sock: socket.socket, seconds: float = 5.0) -> bool:
    return bool(select.select([sock], [], [], seconds)[0])


def drain(peer: TlsPeer) -> bytes:
    opened = b""
    while readable(peer.socket, 0.05):
        data = peer.socket.recv(1 << 18)
        if not data:
            break
        opened += peer.open(data)
    return opened


def test_one_read_brings_every_record_that_came(ends: tuple[TlsSocket, TlsPeer]) -> None:
    server, peer = ends
    peer.socket.sendall(peer.seal(b"a" * 10) + peer.seal(b"b" * 5000) + peer.seal(b"c"))
    assert readable(server)
    assert server.recv(1 << 16) == b"a" * 10 + b"b" * 5000 + b"c"
    assert not readable(server, 0)
    with pytest.raises(BlockingIOError):
        server.recv(1 << 16)


def test_half_a_record_is_nothing_yet(ends: tuple[TlsSocket, TlsPeer]) -> None:
    server, peer = ends
    sealed = peer.seal(b"hello")
    for byte in sealed[:-1]:
        peer.socket.sendall(bytes((byte,)))
        assert readable(server)
        with pytest.raises(BlockingIOError):
            server.recv(100)
    peer.socket.sendall(sealed[-1:])
    assert readable(server)
    assert server.recv(100) == b"hello"


def test_a_record_larger_than_one_read_is_whole(ends: tuple[TlsSocket, TlsPeer]) -> None:
    server, peer = ends
    data = bytes(range(256)) * 64
    peer.send(data)
    got = b""
    while len(got) < len(data):
        assert readable(server)
        try:
            got += server.recv(1000)
        except BlockingIOError:
            pass
    assert got == data


def test_what_came_with_the_end_of_the_handshake_is_read_first(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    with TlsSocket(pair[0], Certificate(authority.issue().settings).context) as server:
        peer = TlsPeer(pair[1], authority.client_context())
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.socket.sendall(peer.seal(b""))
        assert readable(server)
        assert not server.handshake()
        assert readable(peer.socket)
        assert peer.open_handshake(peer.socket.recv(1 << 16))
        peer.socket.sendall(peer.seal(b"GET / HTTP/1.1\r\n"))  # with the Finished in front of it
        assert readable(server)
        assert server.handshake()
        assert server.recv(100) == b"GET / HTTP/1.1\r\n"


def test_an_end_behind_data_makes_the_socket_readable(ends: tuple[TlsSocket, TlsPeer]) -> None:
    """The TCP connection stays open: without more, nobody would be woken to see the end."""
    server, peer = ends
    peer.socket.sendall(peer.seal(b"last") + peer.close_notify())
    assert readable(server)
    assert server.recv(100) == b"last"
    assert readable(server)
    assert server.recv(100) == b""
    assert server.recv(100) == b""


@pytest.mark.parametrize("with_notice", [True, False])
def test_an_end_is_an_end_with_or_without_notice(ends: tuple[TlsSocket, TlsPeer], with_notice: bool) -> None:
    server, peer = ends
    if with_notice:
        peer.socket.sendall(peer.close_notify())
    else:
        peer.socket.shutdown(socket.SHUT_WR)
    assert readable(server)
    assert server.recv(100) == b""


def test_a_forged_record_is_an_error_and_the_peer_gets_an_alert(ends: tuple[TlsSocket, TlsPeer]) -> None:
    server, peer = ends
    sealed = bytearray(peer.seal(b"hello"))
    sealed[-1] ^= 1
    peer.socket.sendall(sealed)
    assert readable(server)
    with pytest.raises(ssl.SSLError, match=r"BAD_RECORD|DECRYPTION_FAILED"):
        server.recv(100)
    assert readable(peer.socket)
    with pytest.raises(ssl.SSLError, match=r"BAD_RECORD_MAC|ALERT"):
        peer.open(peer.socket.recv(1 << 16))


def test_what_was_not_taken_goes_first_the_next_time(ends: tuple[TlsSocket, TlsPeer]) -> None:
    server, peer = ends
    data = b"".join(b"%08d" % number for number in range(2_000_000))
    at, turns, got = 0, 0, b""
    while at < len(data):
        try:
            at += server.send(memoryview(data)[at:])
        except BlockingIOError:
            turns += 1
            assert server.sealed_bytes <= RECORD_BYTES
            assert readable(peer.socket)
            got += peer.open(peer.socket.recv(1 << 18))
    got += drain(peer)
    assert turns
    assert got == data
    assert not server.has_unsent


def test_closing_says_that_nothing_is_missing(ends: tuple[TlsSocket, TlsPeer]) -> None:
    server, peer = ends
    server.send(b"bye")
    server.close()
    assert drain(peer) == b"bye"
    assert peer.is_ended


def test_after_our_end_what_still_comes_is_read_and_forgotten(ends: tuple[TlsSocket, TlsPeer]) -> None:
    server, peer = ends
    server.shutdown(socket.SHUT_WR)
    peer.send(b"too late")
    assert readable(server)
    with pytest.raises(BlockingIOError):
        server.recv(100)
    peer.socket.shutdown(socket.SHUT_WR)
    assert readable(server)
    assert server.recv(100) == b""


@pytest.mark.parametrize(
    "first", [b"\x16\x03\x01\x02\x00garbage" + bytes(600), b"\x80\x2e\x01\0\2" + bytes(50), bytes(64), b"\x16" * 6000]
)
def test_garbage_fails_the_handshake(pair: tuple[socket.socket, socket.socket], tmp_path: Path, first: bytes) -> None:
    with TlsSocket(pair[0], Certificate(Authority(tmp_path).issue().settings).context) as server:
        pair[1].sendall(first)
        with pytest.raises(OSError) as caught:
            for _ in range(5):
                assert readable(server)
                assert not server.handshake()
        assert not isinstance(caught.value, BlockingIOError)


def test_a_version_that_is_too_old_is_refused(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    # Python warns of the old version, which is asked for on purpose.
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with TlsSocket(pair[0], Certificate(authority.issue().settings).context) as server:
        peer = TlsPeer(pair[1], context)
        with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|VERSION_TOO_LOW"):
            peer.shake(server)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_have_forward_secrecy_and_authenticated_encryption(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = Authority(tmp_path)
    with TlsSocket(pair[0], Certificate(authority.issue().settings).context) as server:
        peer = TlsPeer(pair[1], authority.client_context("h2", "http/1.1", version=version))
        peer.shake(server)
        assert (server.version, server.protocol) == (version.name.replace("_", "."), "h2")
        cipher = peer.tls.cipher()
        assert cipher is not None
        assert any(mode in cipher[0] for mode in ("GCM", "CHACHA20"))
        assert cipher[0].startswith(("ECDHE", "TLS_"))
        assert peer.tls.compression() is None
