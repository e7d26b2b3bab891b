"""Many connections of one user, and what admins ask."""

from __future__ import annotations

import json
import selectors
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.access.visitor import token
from tests.actors.daemon_process import DaemonProcess

ADMIN = token("root", broker_admin=True, seconds=36000)
BOUND_SECONDS = 10.0


def look(daemon: DaemonProcess, what: str, query: str = "") -> Any:
    """What an admin is answered: `stats`, `clients` or `channels`; with the status where that is no 200."""
    url = f"{daemon.url}/api/realtime/{what}" + (f"?{query}" if query else "")
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN}"})
    try:
        with urllib.request.urlopen(asked, timeout=BOUND_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def nodes_of(daemon: DaemonProcess) -> dict[str, Any]:
    """The nodes that the stats name, by id without the random part."""
    return {node["id"].partition(":")[0]: node for node in look(daemon, "stats")["nodes"]}


@contextmanager
def crowd(daemons: Sequence[DaemonProcess], each: int, text: str, path: str = "/ws") -> Iterator[list[socket.socket]]:
    """`each` connections at once at each of the daemons. Yields those that were let in."""
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        if path == "/ws"
        else ""
    )
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {text}\r\n{upgrade}\r\n".encode()
    sockets = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(each) for daemon in daemons]
    try:
        for sock in sockets:
            sock.sendall(request)
        statuses = _statuses(sockets)
        assert set(statuses.values()) <= {b"101", b"200", b"429"}, set(statuses.values())
        yield [sock for sock in sockets if statuses[sock] != b"429"]
    finally:
        for sock in sockets:
            sock.close()


def _statuses(sockets: Sequence[socket.socket]) -> dict[socket.socket, bytes]:
    found: dict[socket.socket, bytes] = {}
    deadline = time.monotonic() + BOUND_SECONDS
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ)
        while len(found) < len(sockets):
            assert time.monotonic() < deadline, f"{len(found)} of {len(sockets)} were answered"
            for key, _ in selector.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                found[sock] = sock.recv(4096)[9:12]
                selector.unregister(sock)
    return found
