"""Row 13: thousands connect and are gone before they said a byte, or in the middle of their first line."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import descriptors_of
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until

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
    # Before all were accepted it may have as few as at first, and has not met them yet.
    back = seconds_until(lambda: accepted(daemon) >= connections)
    back += seconds_until(lambda: descriptors_of(daemon.process.pid) == base)
    stage.at_least("connections accepted", accepted(daemon), connections)
    # At small size others have the processors too.
    stage.at_most("descriptors back at their base after", back, stage.pick(1.0, 5.0), "s")
    stage.exactly("clients left", daemon.stats()["websocket"]["totalConnections"], 0)


def accepted(daemon: DaemonProcess) -> int:
    return int(daemon.stats()["connections"]["accepted"])


ROW = Row(
    13,
    "Who connects and leaves costs nothing that stays",
    "5000 connections closed or reset before a byte, or within their first line",
    "descriptors back at their base within 1 s",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
