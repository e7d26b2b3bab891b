"""The wire between a page and its daemon, in threads of its own, with the faults that real ones have.

It cuts; it loses what is sent and says nothing, as after a sleep or behind a NAT that forgot (half-open); it lets
no WebSocket through, as some proxies of companies. Unlike `tests.actors.proxy` it needs no loop, so that a test that
drives a browser can have it, and it may lead to another port after a restart.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal, Self

from attrs import define, field

READ_BYTES = 65_536
HEAD_BYTES = 65_536


@define(eq=False)
class Wire:
    """A listener on a free port of this machine that leads to `target`. Use it in a `with`, or `close` it.

    Args:
        target: the daemon's port; may be changed, for connections that come later.
        upgrades: what becomes of a WebSocket handshake: it passes, is answered 400, or is never answered. Bytes of any
            kind pass where it is "pass"; else every connection must begin with an HTTP request.
        visits: how many connections were let through.
        stopped: how many handshakes did not pass.
    """

    target: int
    upgrades: Literal["pass", "refuse", "ignore"] = "pass"
    visits: int = 0
    stopped: int = 0
    _listener: socket.socket = field(init=False)
    _is_shut: bool = False
    _pairs: set[_Pair] = field(factory=set)
    _lock: threading.Lock = field(factory=threading.Lock)
    _threads: list[threading.Thread] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close every connection, in the middle of whatever is on its way."""
        for pair in self._open():
            pair.close()

    def shut(self) -> None:
        """Cut, and close whatever comes until `open`."""
        self._is_shut = True
        self.cut()

    def open(self) -> None:
        self._is_shut = False

    def lose(self) -> None:
        """From now on nothing passes on the connections that there are, and nobody is told. New ones are well."""
        for pair in self._open():
            pair.is_lost.set()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.shut()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def _open(self) -> list[_Pair]:
        with self._lock:
            return list(self._pairs)

    def _start(self, what: object, *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        """One connection, until either side is gone."""
        pair = _Pair(client)
        with self._lock:
            self._pairs.add(pair)
        try:
            if self._is_shut:
                return
            head = b"" if self.upgrades == "pass" else _read_head(client)
            if b"\r\nupgrade: websocket\r\n" in head.lower():
                self.stopped += 1
                if self.upgrades == "refuse":
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                else:
                    while client.recv(READ_BYTES):
                        pass
                return
            self.visits += 1
            pair.server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            pair.server.settimeout(None)
            pair.server.sendall(head)
            back = threading.Thread(target=pair.pass_on, args=(pair.server, client), daemon=True)
            back.start()
            pair.pass_on(client, pair.server)
            back.join()
        except OSError:
            pass
        finally:
            pair.close()
            for each in (client, pair.server):
                if each is not None:
                    each.close()
            with self._lock:
                self._pairs.discard(pair)


@define(eq=False)
class _Pair:
    """The two sides of one connection."""

    client: socket.socket
    server: socket.socket | None = None
    is_lost: threading.Event = field(factory=threading.Event)

    def pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """Until one side ends; then both end, but for a lost connection, whose ends hear nothing of each other."""
        with suppress(OSError):
            while data := source.recv(READ_BYTES):
                if not self.is_lost.is_set():
                    sink.sendall(data)
        if not self.is_lost.is_set():
            self.close()

    def close(self) -> None:
        for each in (self.client, self.server):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _read_head(client: socket.socket) -> bytes:
    """What came up to the end of the first request's head, and perhaps behind it; empty where none came."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES:
        data = client.recv(READ_BYTES)
        if not data:
            return b""
        head += data
    return head
