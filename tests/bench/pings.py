"""A WebSocket client that only pings: `python -m tests.bench.pings PORT`, a process of its own.

It prints a line when it is connected; when its standard input is closed it prints, in seconds, the median and
the longest time that a pong took, and how many there were, and ends.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from attrs import define

EVERY_SECONDS = 0.01
ANSWER_SECONDS = 30.0


@define(eq=False)
class Pongs:
    """What was measured, once it is over."""

    median_seconds: float = 0.0
    longest_seconds: float = 0.0
    count: int = 0


@contextmanager
def pinging(port: int) -> Iterator[Pongs]:
    """Pings go on inside; the result is filled in at the end."""
    command = [sys.executable, "-m", "tests.bench.pings", str(port)]
    found = Pongs()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield found
        process.stdin.close()
        middle, longest, count = process.stdout.readline().split()
        found.median_seconds, found.longest_seconds, found.count = float(middle), float(longest), int(count)


def main(port: int) -> None:
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as sock:
        sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        stream = sock.makefile("rb")
        while stream.readline() != b"\r\n":
            pass
        print("connected", flush=True)
        while not select.select([sys.stdin], [], [], EVERY_SECONDS)[0]:
            begun = time.monotonic()
            sock.sendall(b"\x89\x80\0\0\0\0")
            while True:
                head, size = stream.read(2)
                stream.read(int.from_bytes(stream.read(2), "big") if size == 126 else size)
                if head == 0x8A:
                    break
            times.append(time.monotonic() - begun)
    print(median(times), max(times), len(times), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
