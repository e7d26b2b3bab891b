"""Measure the daemon: `python -m tests.bench [--clients N]`, or `make bench`.

CPU is what the kernel charged to the daemon's process (Linux only), so it holds on a noisy machine where
seconds do not; deliveries a second are bounded by this load generator too, which is Python.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.bench.subscribers import Subscribers

PAYLOAD_BYTES = 200
QUIET_SECONDS = 5.0


@frozen
class Load:
    """One load: `clients` over `channels`, `messages` at `rate` a second, or with `window` of them in flight."""

    name: str
    transport: str
    clients: int
    messages: int
    rate: float = 0.0
    window: int = 0
    channels: int = 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    clients = parser.parse_args().clients
    loads = [
        Load("paced, 30 messages/s", "websocket", clients, 150, rate=30),
        Load("paced, 30 messages/s", "sse", clients, 150, rate=30),
        Load("burst, 64 in flight", "websocket", clients, 1000, window=64),
        Load("burst, 64 in flight", "sse", clients, 1000, window=64),
        Load("one client, 256 in flight", "websocket", 1, 100_000, window=256),
        Load("a channel each, 5000/s", "websocket", clients, 30_000, rate=5000, channels=clients),
    ]
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder, _daemon(Path(folder)) as (redis, daemon):
        with redis.client() as client:
            server = client.info("server")
        redis_version = server.get("valkey_version") or server["redis_version"]
        print(
            f"{platform.node()}: {os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}"
        )
        print(f"Python {platform.python_version()}, Redis or Valkey {redis_version}, {PAYLOAD_BYTES}-byte messages\n")
        print(
            f"{'load':28} {'transport':10} {'clients':>7} {'CPU/connect':>12} {'CPU/delivery':>13}"
            f" {'deliveries/s':>13} {'wrong':>6}"
        )
        wrong = 0
        for load in loads:
            wrong += _run(load, redis, daemon)
    return 1 if wrong else 0


@contextmanager
def _daemon(folder: Path) -> Iterator[tuple[RedisServer, DaemonProcess]]:
    redis = RedisServer(folder)
    redis.start()
    daemon = DaemonProcess(redis.url, folder / "daemon.log")
    try:
        daemon.start()
        daemon.stats()  # the web app is loaded from here on
        yield redis, daemon
        daemon.stop()
    finally:
        redis.kill()


def _run(load: Load, redis: RedisServer, daemon: DaemonProcess) -> int:
    """Run one load and print its row. Returns how many deliveries were missing, doubled or out of order."""
    subscribers = Subscribers(daemon.port, load.transport, lambda i: f"bench:{i % load.channels}", load.channels)
    before = _cpu_seconds(daemon)
    subscribers.open(load.clients)
    connected = _cpu_seconds(daemon)
    expected = load.messages * load.clients // load.channels
    begun = time.monotonic()
    last = _publish(load, redis, subscribers, expected)
    spent = _cpu_seconds(daemon) - connected
    wrong = subscribers.wrong + abs(expected - subscribers.received)
    rate = subscribers.received / (last - begun)
    print(
        f"{load.name:28} {load.transport:10} {load.clients:7} {(connected - before) / load.clients * 1e6:9.0f} us"
        f" {spent / max(1, subscribers.received) * 1e6:10.2f} us {rate:13.0f} {wrong:6}",
        flush=True,
    )
    subscribers.close()
    time.sleep(1.0)  # the disconnects are not the next load's cost
    return wrong


def _publish(load: Load, redis: RedisServer, subscribers: Subscribers, expected: int) -> float:
    """Publish everything and wait for all of it. Returns when the last delivery came."""
    publisher = socket.create_connection(("127.0.0.1", redis.port))
    publisher.setblocking(False)
    begun = last = time.monotonic()
    sent = received = 0
    while subscribers.received < expected:
        due = _due(load, sent, begun, subscribers)
        if due:
            _send(
                publisher, b"".join(_command(number, load.channels) for number in range(sent, sent + due)), subscribers
            )
            sent += due
        subscribers.poll(0.001)
        now = time.monotonic()
        if subscribers.received != received or sent < load.messages:
            received, last = subscribers.received, now
        elif now - last > QUIET_SECONDS:
            break
    publisher.close()
    return last


def _due(load: Load, sent: int, begun: float, subscribers: Subscribers) -> int:
    """How many messages to publish now."""
    if load.rate:
        return max(0, min(load.messages, int((time.monotonic() - begun) * load.rate) + 1) - sent)
    in_flight = sent - subscribers.received * load.channels // load.clients
    return max(0, min(load.messages - sent, load.window - in_flight))


def _command(number: int, channels: int) -> bytes:
    payload = b'{"n":%d,"d":"' % number
    payload += b"x" * (PAYLOAD_BYTES - len(payload) - 2) + b'"}'
    channel = b"bench:%d" % (number % channels)
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(payload), payload)


def _send(publisher: socket.socket, data: bytes, subscribers: Subscribers) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[publisher.send(view) :]
        except BlockingIOError:
            subscribers.poll(0.001)
        _drain(publisher.recv)


def _drain(receive: Callable[[int], bytes]) -> None:
    """Redis's answers to PUBLISH: read, or it would stop reading us."""
    try:
        while receive(1 << 16):
            pass
    except BlockingIOError:
        pass


def _cpu_seconds(daemon: DaemonProcess) -> float:
    try:
        fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


sys.exit(main())
