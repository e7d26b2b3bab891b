"""A flood, in a process of its own: `python -m tests.actors.flood PORT SILENT TRICKLING UNREAD CHANNEL`.

So many connections send nothing; so many send a request head, a byte a second each; so many subscribe to a channel
and never read. Whoever is shown out comes back at once. It ends when its standard input does.

Prints `up` once all are connected, and in the end how often each kind was shown out, as JSON. Linux only: epoll tells
of a peer that has left without anything being read.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field, frozen

SILENT, TRICKLING, UNREAD = "silent", "trickling", "unread"
_HEAD = b"GET /ws HTTP/1.1\r\nHost: flood\r\n"
_UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# Little fits on the way to who never reads.
_NARROW_BYTES = 4096
_NARROW_SEGMENT = 1400
_LEFT = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WAIT_SECONDS = 30.0


@define(eq=False)
class _Crowd:
    port: int
    channel: str
    epoll: select.epoll = field(factory=select.epoll)
    members: dict[int, tuple[str, socket.socket]] = field(factory=dict)
    shown_out: Counter[str] = field(factory=Counter)

    def join(self, kind: str) -> None:
        sock = socket.socket()
        if kind == UNREAD:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _NARROW_SEGMENT)
        sock.settimeout(_WAIT_SECONDS)
        sock.connect(("127.0.0.1", self.port))
        sock.setblocking(False)
        if kind == TRICKLING:
            sock.send(_HEAD + b"X-Slow: ")
        elif kind == UNREAD:
            body = b'{"type":"subscribe","channel":"%b"}' % self.channel.encode()
            sock.send(_HEAD + _UPGRADE + bytes((0x81, 0x80 | len(body))) + bytes(4) + body)
        self.members[sock.fileno()] = kind, sock
        self.epoll.register(sock, _LEFT)

    def come_back(self, seconds: float) -> None:
        """Those who were shown out come back; wait so long for the first of them."""
        for number, _ in self.epoll.poll(seconds):
            kind, sock = self.members.pop(number)
            self.epoll.unregister(sock)
            sock.close()
            self.shown_out[kind] += 1
            self.join(kind)

    def trickle(self) -> Iterator[None]:
        """A byte of each in turn, at so many turns a second as there are."""
        while True:
            slow = [sock for kind, sock in self.members.values() if kind == TRICKLING]
            begun = time.monotonic()
            for index, sock in enumerate(slow):
                while time.monotonic() < begun + index / len(slow):
                    yield
                try:
                    sock.send(b"a")
                except OSError:
                    pass  # shown out since
            yield


def main(port: int, counts: dict[str, int], channel: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = _Crowd(port, channel)
    trickle = crowd.trickle()
    for kind, count in counts.items():
        for index in range(count):
            crowd.join(kind)
            if index % 64 == 63:
                crowd.come_back(0)
    print("up", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        crowd.come_back(0.01)
        next(trickle)
    print(json.dumps(crowd.shown_out), flush=True)


@frozen
class Flood:
    """A running flood. `shown_out` is filled in the end: how often each kind was."""

    shown_out: Counter[str] = field(factory=Counter)


@contextmanager
def flood(port: int, channel: str, *, silent: int, trickling: int, unread: int) -> Iterator[Flood]:
    """The body runs while all of them are there."""
    command = [sys.executable, "-m", "tests.actors.flood", str(port), str(silent), str(trickling), str(unread), channel]
    running = Flood()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            assert process.stdout.readline() == "up\n"
            yield running
        finally:
            process.stdin.close()
            running.shown_out.update(json.loads(process.stdout.readline() or "{}"))


if __name__ == "__main__":
    main(int(sys.argv[1]), dict(zip((SILENT, TRICKLING, UNREAD), map(int, sys.argv[2:5]), strict=True)), sys.argv[5])
