"""A thousand subscribers in one loop: they count what arrives and check that nothing is missing.

Every message carries `"n":<number>`; a subscriber of one channel must see the numbers rise by one.
Plain sockets and a selector, so that the load costs less than what it measures.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Callable

from attrs import define, field

_NUMBER = re.compile(rb'"n":(\d+),')
_CARRY = 64
RECEIVE_BYTES = 1 << 18


@define(eq=False)
class _Subscriber:
    sock: socket.socket
    ready: bool = False
    last: int = -1
    got: int = 0
    carry: bytes = b""
    wrong: int = 0


@define(eq=False)
class Subscribers:
    """Open connections of one transport.

    Args:
        transport: `websocket` or `sse`.
        channel_of: the channel of the subscriber with that index.
        step: how much the numbers of one channel rise from message to message.
    """

    port: int
    transport: str
    channel_of: Callable[[int], str]
    step: int = 1
    _selector: selectors.DefaultSelector = field(factory=selectors.DefaultSelector)
    _all: list[_Subscriber] = field(factory=list)
    received: int = 0

    def open(self, count: int, seconds: float = 30.0) -> None:
        """Connect `count` subscribers and wait until each is subscribed."""
        for index in range(count):
            sock = socket.create_connection(("127.0.0.1", self.port))
            sock.sendall(self._request(index))
            sock.setblocking(False)
            subscriber = _Subscriber(sock)
            self._all.append(subscriber)
            self._selector.register(sock, selectors.EVENT_READ, subscriber)
            if index % 64 == 63:
                self.poll(0)
        deadline = time.monotonic() + seconds
        while not all(subscriber.ready for subscriber in self._all):
            self.poll(0.05)
            if time.monotonic() > deadline:
                raise TimeoutError("not every subscriber was subscribed")

    def poll(self, seconds: float) -> None:
        """Take what has arrived, waiting at most so long for the first of it."""
        for key, _ in self._selector.select(seconds):
            subscriber: _Subscriber = key.data
            try:
                data = subscriber.sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionError("the daemon closed a subscriber's connection")
            self._take(subscriber, data)

    @property
    def wrong(self) -> int:
        """Numbers that were missing, doubled or out of order."""
        return sum(subscriber.wrong for subscriber in self._all)

    def close(self) -> None:
        for subscriber in self._all:
            subscriber.sock.close()
        self._selector.close()

    def _request(self, index: int) -> bytes:
        channel = self.channel_of(index)
        if self.transport == "sse":
            return f"GET /api/stream?channel={channel} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        body = f'{{"type":"subscribe","channel":"{channel}"}}'.encode()
        head = (
            "GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        # A mask of zeros leaves the body as it is.
        return head.encode() + bytes((0x81, 0x80 | len(body), 0, 0, 0, 0)) + body

    def _take(self, subscriber: _Subscriber, data: bytes) -> None:
        text = subscriber.carry + data
        if not subscriber.ready:
            token = b'"connected"' if self.transport == "sse" else b'"subscribed"'
            subscriber.ready = token in text
        end = 0
        for match in _NUMBER.finditer(text):
            number = int(match[1])
            if subscriber.last >= 0 and number != subscriber.last + self.step:
                subscriber.wrong += 1
            subscriber.last = number
            subscriber.got += 1
            self.received += 1
            end = match.end()
        subscriber.carry = text[max(end, len(text) - _CARRY) :]
