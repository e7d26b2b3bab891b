"""A raw client: a TCP connection that says exactly the bytes a test gives it, and reads what comes back.

Blocks, with a deadline on every wait, so that a daemon that says nothing fails a test and never hangs it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from attrs import define, field, frozen

WAIT_SECONDS = 10.0
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@frozen
class Answer:
    """One HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@frozen
class Frame:
    """One frame from the server, which must be whole, unmasked and without reserved bits."""

    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def code(self) -> int | None:
        """The code of a close frame; None where it has none."""
        assert self.opcode == CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None

    def json(self) -> Any:
        assert self.opcode == TEXT, self
        return json.loads(self.payload)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: int | None = None,
    size_bytes: int | None = None,
) -> bytes:
    """A frame as a client sends it, or as no client may.

    Args:
        rsv: the three reserved bits, as a number.
        length: what the head says, where that is not the payload's length.
        size_bytes: 0, 2 or 8 to write the length in that many bytes, short enough or not.
    """
    size = len(payload) if length is None else length
    if size_bytes is None:
        size_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    short = {0: size, 2: 126, 8: 127}[size_bytes]
    head = bytes((fin << 7 | rsv << 4 | opcode, masked << 7 | short)) + (
        size.to_bytes(size_bytes, "big") if size_bytes else b""
    )
    return head + (_MASK + mask(payload) if masked else payload)


_MASK = b"\x37\xfa\x21\x3d"


def mask(payload: bytes) -> bytes:
    key = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def text(value: object) -> bytes:
    """A text frame of JSON."""
    return frame(TEXT, json.dumps(value).encode())


def head(request_line: bytes, *lines: bytes) -> bytes:
    """A request head with a Host."""
    return b"\r\n".join([request_line, b"Host: localhost", *lines, b"", b""])


def upgrade(path: bytes = b"/ws", *lines: bytes, key: bytes = KEY) -> bytes:
    """The head of a WebSocket handshake, and more header lines."""
    return head(
        b"GET %b HTTP/1.1" % path,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key,
        *lines,
    )


@define(eq=False)
class RawClient:
    """One connection, closed by the end of its `with`."""

    sock: socket.socket
    _buffer: bytearray = field(init=False, factory=bytearray)

    @classmethod
    def connect(cls, port: int, *, receive_buffer: int = 0) -> RawClient:
        """
        Args:
            receive_buffer: the size of the kernel's receive buffer; 0 for its own choice.
        """
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(WAIT_SECONDS)
        sock.connect(("127.0.0.1", port))
        return cls(sock)

    @classmethod
    def websocket(
        cls, port: int, path: bytes = b"/ws", *headers: bytes, greeted: bool = True, receive_buffer: int = 0
    ) -> RawClient:
        """A connection after its handshake and, where `greeted`, the daemon's hello."""
        client = cls.connect(port, receive_buffer=receive_buffer)
        client.send(upgrade(path, *headers))
        client.expect_upgrade()
        if greeted:
            assert client.frame().json()["type"] == "connected"
        return client

    @classmethod
    def stream(cls, port: int, path: str, *headers: bytes) -> RawClient:
        """An event stream that has read the daemon's hello."""
        client = cls.connect(port)
        client.send(head(f"GET {path} HTTP/1.1".encode(), *headers))
        client.read_until(b'"connected"')
        return client

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def try_send(self, data: bytes) -> None:
        """Send to a peer who may be gone already."""
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def finish(self) -> None:
        """Close our half, where the other side has not closed both."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer. `to_head`: it answers HEAD and has no body."""
        lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        assert version == "HTTP/1.1", lines
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        size = 0 if to_head else int(headers.get("content-length", 0))
        return Answer(int(status), headers, self.read(size))

    def expect_upgrade(self) -> Answer:
        answer = self.answer()
        accept = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        assert (answer.status, answer.headers.get("sec-websocket-accept")) == (101, accept), answer
        return answer

    def frame(self) -> Frame:
        first, second = self.read(2)
        assert (first & 0x70, second & 0x80) == (0, 0), (first, second)
        size = second
        if second >= 126:
            size = int.from_bytes(self.read(2 if second == 126 else 8), "big")
        return Frame(first & 0x0F, self.read(size), bool(first & 0x80))

    def frames(self) -> list[Frame]:
        """Every frame until the server closes the connection, in order."""
        return list(self._frames())

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read_until(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            self._receive()
        return self.read(at + len(end))

    def read_to_end(self) -> bytes:
        """Everything until the server closes or resets the connection."""
        try:
            while True:
                self._receive()
        except EOFError:
            return self.read(len(self._buffer))

    def _frames(self) -> Iterator[Frame]:
        while True:
            if not self._buffer:
                try:
                    self._receive()
                except EOFError:
                    return
            yield self.frame()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError(f"the server closed the connection after {bytes(self._buffer[:200])!r}")
        self._buffer += data


def wait_until(condition: Any, seconds: float = WAIT_SECONDS) -> Any:
    """Poll until `condition()` is true; returns what it returned, or fails."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
