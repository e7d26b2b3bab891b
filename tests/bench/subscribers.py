"""A thousand subscribers in one loop: they count what arrives and check that nothing is missing.

Every message carries `"n":<number>`; a subscriber of one channel must see the numbers rise by one.
Plain sockets and a selector, so that the load costs less than what it measures.
"""

from __future__ import annotations

import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable

from attrs import define, field

_MARKS = re.compile(rb'"n":(\d+),|"type":"gap"')
_CARRY = 64
RECEIVE_BYTES = 1 << 18
# A slow client is behind a network, not on this machine: its kernel takes little, and packets are small.
_NARROW_BYTES = 4096
_NARROW_SEGMENT = 1400


@define(eq=False)
class _Subscriber:
    sock: socket.socket
    ready: bool = False
    last: int = -1
    got: int = 0
    carry: bytes = b""
    wrong: int = 0
    gaps: int = 0


@define(eq=False)
class Subscribers:
    """Open connections of one transport.

    Args:
        transport: `websocket`, `broker.v1` (WebSocket with that subprotocol) or `sse`.
        channel_of: the channel of the subscriber with that index.
        step: how much the numbers of one channel rise from message to message.
        since: a position to come back from, and `first` the number of the event behind it.
        is_narrow: little fits on the way to them; for those that read with `sip`.
        token: the token of the subscriber with that index; None for none.
        context: to speak TLS with.
        latencies: how long each delivery of a number took, in seconds, where it is wanted and `published` is called.
    """

    port: int
    transport: str
    channel_of: Callable[[int], str]
    step: int = 1
    since: str = ""
    first: int | None = None
    is_narrow: bool = False
    token: Callable[[int], str] | None = None
    latencies: dict[int, list[float]] | None = None
    context: ssl.SSLContext | None = None
    _selector: selectors.DefaultSelector = field(factory=selectors.DefaultSelector)
    _all: list[_Subscriber] = field(factory=list)
    _ready: int = 0
    _published_at: dict[int, float] = field(factory=dict)
    received: int = 0

    def open(self, count: int, seconds: float = 30.0) -> None:
        """Connect `count` subscribers more and wait until each is subscribed."""
        self.connect(count)
        deadline = time.monotonic() + seconds
        while self._ready < len(self._all):
            self.poll(0.05)
            if time.monotonic() > deadline:
                raise TimeoutError("not every subscriber was subscribed")

    def connect(self, count: int) -> None:
        for index in range(len(self._all), len(self._all) + count):
            sock = socket.socket()
            if self.is_narrow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW_BYTES)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _NARROW_SEGMENT)
            sock.connect(("127.0.0.1", self.port))
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_hostname="localhost")
            sock.sendall(self._request(index))
            sock.setblocking(False)
            subscriber = _Subscriber(sock)
            if self.first is not None:
                subscriber.last = self.first - self.step
            self._all.append(subscriber)
            self._selector.register(sock, selectors.EVENT_READ, subscriber)
            if index % 64 == 63:
                self.poll(0)

    def poll(self, seconds: float) -> None:
        """Take what has arrived, waiting at most so long for the first of it."""
        for key, _ in self._selector.select(seconds):
            self._read(key.data, RECEIVE_BYTES)

    def sip(self, indexes: range, size: int) -> None:
        """Some of them read at most `size` bytes, and `poll` is not called."""
        for index in indexes:
            self._read(self._all[index], size)

    def published(self, first: int, count: int, now: float) -> None:
        """Told when events are about to be published, for `latencies`."""
        if self.latencies is not None:
            for number in range(first, first + count):
                self._published_at[number] = now
                self.latencies[number] = []

    @property
    def ready(self) -> int:
        """How many are subscribed."""
        return self._ready

    @property
    def least(self) -> int:
        """The newest number that every one of them has."""
        return min(subscriber.last for subscriber in self._all)

    @property
    def wrong(self) -> int:
        """Numbers that were missing, doubled or out of order, and gaps that were told."""
        return sum(subscriber.wrong + subscriber.gaps for subscriber in self._all)

    def close(self) -> None:
        for subscriber in self._all:
            subscriber.sock.close()
        self._selector.close()

    def _request(self, index: int) -> bytes:
        channel = self.channel_of(index)
        if self.transport == "sse":
            back = self._authorization(index) + (f"Last-Event-ID: {self.since}\r\n" if self.since else "")
            return f"GET /api/stream?channel={channel} HTTP/1.1\r\nHost: bench\r\n{back}\r\n".encode()
        back = f',"since":"{self.since}"' if self.since else ""
        body = f'{{"type":"subscribe","channel":"{channel}"{back}}}'.encode()
        head = (
            "GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        head += self._authorization(index)
        if self.transport == "broker.v1":
            head += "Sec-WebSocket-Protocol: broker.v1\r\n"
        # A mask of zeros leaves the body as it is.
        size = bytes((0x80 | len(body),)) if len(body) < 126 else b"\xfe" + len(body).to_bytes(2, "big")
        return head.encode() + b"\r\n\x81" + size + bytes(4) + body

    def _authorization(self, index: int) -> str:
        return "" if self.token is None else f"Authorization: Bearer {self.token(index)}\r\n"

    def _read(self, subscriber: _Subscriber, size: int) -> None:
        try:
            data = subscriber.sock.recv(size)
            while isinstance(subscriber.sock, ssl.SSLSocket) and subscriber.sock.pending():
                data += subscriber.sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        if not data:
            raise ConnectionError("the daemon closed a subscriber's connection")
        self._take(subscriber, data)

    def _take(self, subscriber: _Subscriber, data: bytes) -> None:
        text = subscriber.carry + data
        if not subscriber.ready:
            token = b'"connected"' if self.transport == "sse" else b'"subscribed"'
            subscriber.ready = token in text
            self._ready += subscriber.ready
        end = 0
        latencies = self.latencies
        now = 0.0 if latencies is None else time.monotonic()
        for match in _MARKS.finditer(text):
            end = match.end()
            if match[1] is None:
                subscriber.gaps += 1
                continue
            number = int(match[1])
            if subscriber.last >= 0 and number != subscriber.last + self.step:
                subscriber.wrong += 1
            subscriber.last = number
            subscriber.got += 1
            self.received += 1
            if latencies is not None and number in latencies:
                latencies[number].append(now - self._published_at[number])
        subscriber.carry = text[max(end, len(text) - _CARRY) :]
