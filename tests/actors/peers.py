"""Clients made of a bare socket: as many as a test needs, each reading when and as fast as the test wants.

They keep what they were sent byte for byte. `pump` reads from any number of them in one loop, until
something holds. The clients that nobody here wrote are in the other tests; these are for what those
cannot do: stall, trickle, vanish, and be a thousand.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

READ_BYTES = 256 * 1024
BOUND_SECONDS = 15.0

_open: list[Peer] = []


def close_all() -> None:
    """Close every peer that was ever opened."""
    while _open:
        _open.pop().close()


class Peer:
    """One connection. `raw` is everything received; `ended` whether the other side has closed or reset it.

    Args:
        receive_buffer: bytes that the kernel holds for this side; small makes the other side notice a stall early.
        segment_bytes: the most in a packet, as on a network; small makes it hold less on the other side, too.
    """

    def __init__(
        self, port: int, opening: bytes, *, receive_buffer: int | None = None, segment_bytes: int | None = None
    ) -> None:
        self.socket = socket.socket()
        _open.append(self)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if segment_bytes is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
        self.socket.settimeout(BOUND_SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(opening)
        self.socket.setblocking(False)
        self.raw = bytearray()
        self.ended = False
        self.was_reset = False

    def read(self, most: int = READ_BYTES) -> int:
        """Take what is there, at most `most` bytes. Returns how many; never waits."""
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return 0
        except ConnectionError:
            self.ended = self.was_reset = True
            return 0
        self.ended = not data
        self.raw += data
        return len(data)

    def close(self) -> None:
        self.socket.close()


class WebSocketPeer(Peer):
    """A WebSocket that answers nothing by itself: no pong, no close."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        key = base64.b64encode(os.urandom(16))
        super().__init__(
            port,
            b"GET /ws?userId=u HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key,
            receive_buffer=receive_buffer,
        )
        self.texts: list[bytes] = []
        self.close_code: int | None = None
        self._at = 0

    def send(self, *texts: str, opcode: int = 1) -> None:
        """Masked frames, all in one write."""
        self.socket.setblocking(True)
        self.socket.sendall(b"".join(_masked(opcode, text.encode()) for text in texts))
        self.socket.setblocking(False)

    def subscribe(self, *names: str) -> None:
        self.send(*(json.dumps({"type": "subscribe", "channel": name}) for name in names))

    def unsubscribe(self, *names: str) -> None:
        self.send(*(json.dumps({"type": "unsubscribe", "channel": name}) for name in names))

    def send_close(self, code: int = 1000) -> None:
        self.socket.sendall(_masked(8, struct.pack("!H", code)))

    def parse(self) -> list[bytes]:
        """Every text received so far."""
        raw = self.raw
        if not self._at:
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                return self.texts
            assert raw.startswith(b"HTTP/1.1 101 "), bytes(raw[:200])
            self._at = end + 4
        while len(raw) - self._at >= 2:
            first, size = raw[self._at], raw[self._at + 1]
            begin = self._at + 2
            if size == 126:
                size, begin = int.from_bytes(raw[begin : begin + 2], "big"), begin + 2
            elif size == 127:
                size, begin = int.from_bytes(raw[begin : begin + 8], "big"), begin + 8
            if len(raw) < begin + size:
                break
            payload = bytes(raw[begin : begin + size])
            self._at = begin + size
            assert first in (0x81, 0x88, 0x89, 0x8A), hex(first)
            if first == 0x81:
                self.texts.append(payload)
            elif first == 0x88:
                self.close_code = int.from_bytes(payload[:2], "big")
        return self.texts

    def events(self, kind: str) -> list[Any]:
        """The received messages of one type."""
        return [event for event in map(json.loads, self.parse()) if event.get("type") == kind]

    @property
    def is_cut_off(self) -> bool:
        """Whether what was received ends inside a frame."""
        self.parse()
        return self._at != len(self.raw)


class SsePeer(Peer):
    """An event stream over HTTP/1.1."""

    def __init__(self, port: int, *channels: str, receive_buffer: int | None = None) -> None:
        query = "&".join(f"channel={name}" for name in channels)
        super().__init__(
            port,
            f"GET /api/stream?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode(),
            receive_buffer=receive_buffer,
        )
        self.body = bytearray()
        self._complete = False
        self._at = 0

    def parse(self) -> bytearray:
        """The body so far, out of its chunks."""
        raw = self.raw
        if not self._at:
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                return self.body
            assert raw.startswith(b"HTTP/1.1 200 "), bytes(raw[:200])
            self._at = end + 4
        while (end := raw.find(b"\r\n", self._at)) > 0:
            size = int(raw[self._at : end], 16)
            if len(raw) < end + 4 + size:
                break
            assert raw[end + 2 + size : end + 4 + size] == b"\r\n"
            self.body += raw[end + 2 : end + 2 + size]
            self._at = end + 4 + size
            self._complete = self._complete or size == 0
        return self.body

    @property
    def is_complete(self) -> bool:
        """Whether the last chunk has come."""
        self.parse()
        return self._complete

    @property
    def blocks(self) -> list[bytes]:
        """The events and comments received, each without its empty line."""
        return bytes(self.parse()).split(b"\n\n")[:-1]

    @property
    def is_open(self) -> bool:
        """Whether the stream has said `connected`."""
        return b'"type":"connected"' in self.raw

    @property
    def is_cut_off(self) -> bool:
        """Whether what was received ends inside a chunk."""
        self.parse()
        return self._at != len(self.raw)


def pump(peers: Iterable[Peer], until: Callable[[], object], seconds: float = BOUND_SECONDS) -> None:
    """Read from all `peers` until `until` holds; it is asked whenever something has come, and now and then."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            if not peer.ended:
                selector.register(peer.socket, selectors.EVENT_READ, peer)
        while not until():
            assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
            for key, _ in selector.select(0.05):
                key.data.read()
                if key.data.ended:
                    selector.unregister(key.fileobj)


def wait_until(condition: Callable[[], object], seconds: float = BOUND_SECONDS) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(0.01)


def open_websockets(port: int, count: int, *names: str, **options: Any) -> list[WebSocketPeer]:
    """Clients that have been answered `subscribed` for every name."""
    peers = [WebSocketPeer(port, **options) for _ in range(count)]
    for peer in peers:
        if names:
            peer.subscribe(*names)
    pump(peers, lambda: all(len(peer.parse()) == 1 + len(names) for peer in peers))
    return peers


def open_streams(port: int, count: int, *names: str, **options: Any) -> list[SsePeer]:
    """Streams that have said `connected`."""
    peers = [SsePeer(port, *names, **options) for _ in range(count)]
    pump(peers, lambda: all(peer.is_open for peer in peers))
    return peers


def frames(payloads: Sequence[bytes]) -> bytes:
    """What a WebSocket client must have been sent for these payloads (RFC 6455, 5.2)."""
    return b"".join(
        bytes((0x81, len(payload))) + payload
        if len(payload) < 126
        else struct.pack("!BBH", 0x81, 126, len(payload)) + payload
        if len(payload) < 65536
        else struct.pack("!BBQ", 0x81, 127, len(payload)) + payload
        for payload in payloads
    )


def stream(payloads: Sequence[bytes]) -> bytes:
    """What the body of an event stream must be for these payloads of one line each."""
    return b"".join(b"data: %b\n\n" % payload for payload in payloads)


def _masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    size = len(payload)
    head = (
        struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        if size < 126
        else struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    )
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
