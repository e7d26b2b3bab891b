"""Row 13: thousands connect and are gone before they said a byte, or in the middle of their first line."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable

from tests.actors.peers import wait_until
from tests.faults.row import Row
from tests.faults.stage import Stage

OPENINGS = (b"", b"", b"", b"G", b"GET /ws HTTP/1.1\r\nHost: a\r\n")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST


def play(stage: Stage) -> None:
    daemon = stage.daemon(stage.redis().url)
    base = descriptors_of(daemon.process.pid)
    connections = stage.pick(5000, 1000)
    for _ in range(connections):
        with socket.create_connection(("127.0.0.1", daemon.port)) as peer:
            if stage.dice.random() < 0.5:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.sendall(stage.dice.choice(OPENINGS))
    left_at = time.monotonic()
    wait_until(lambda: descriptors_of(daemon.process.pid) == base, 10)
    stage.exactly("connections", connections, connections)
    stage.at_most("descriptors back at their base after", time.monotonic() - left_at, 1.0, "s")
    stage.exactly("clients left", daemon.stats()["websocket"]["totalConnections"], 0)


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


ROW = Row(
    13,
    "Who connects and leaves costs nothing that stays",
    "5000 connections closed or reset before a byte, or within their first line",
    "descriptors back at their base within 1 s",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
