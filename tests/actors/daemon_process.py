"""A daemon in a process of its own, as a person starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.actors.forks import ForkedProcess, start_fork, wait_readable

READY_SECONDS = 15.0


def clean_environ() -> dict[str, str]:
    """The environment, without what is there for a broker."""
    return {key: value for key, value in os.environ.items() if not key.startswith("BROKER_") and key != "REDIS_URL"}


@define(eq=False)
class DaemonProcess:
    """`broker serve` on a free port, or where `listen` says. Blocks; call from a thread or before the loop.

    Args:
        flags: flags besides `--listen` and `--redis`.
        expected_errors: events that it may log as errors.
        under: a command that runs the daemon's command line in its own place, such as one that sets limits.
        is_forked: whether its interpreter may be a fork (tests/actors/forks.py); with `under` it never is.
        window: where a forked one writes at SIGUSR2 what it then has (`tests.soak.probed`).
    """

    redis_url: str | None
    log_path: Path
    flags: tuple[str, ...] = ()
    environ: dict[str, str] = field(factory=dict)
    listen: str = "127.0.0.1:0"
    under: tuple[str, ...] = ()
    expected_errors: set[str] = field(factory=set)
    is_forked: bool = True
    window: Path | None = None
    process: subprocess.Popen[str] | ForkedProcess = field(init=False)
    port: int = field(init=False)
    _node: str | None = field(init=False, default=None)

    def start(self) -> None:
        arguments = ["serve", "--listen", self.listen, *self.flags]
        if self.redis_url is not None:
            arguments += ["--redis", self.redis_url]
        environ = {**clean_environ(), **self.environ}
        self._node = None
        with open(self.log_path, "ab") as log:
            if self.is_forked and not self.under:
                probe = [] if self.window is None else [str(self.window), "-m", "broker"]
                module = "tests.soak.probed" if probe else "broker"
                self.process = start_fork(module, [*probe, *arguments], environ=environ, stderr=log.fileno())
            else:
                command = [*self.under, sys.executable, "-m", "broker", *arguments]
                self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ)
        assert self.process.stdout is not None
        deadline = time.monotonic() + READY_SECONDS
        while True:
            ready = wait_readable(self.process.stdout.fileno(), deadline - time.monotonic())
            line = self.process.stdout.readline() if ready else ""
            match = re.search(r"listens on 127\.0\.0\.1:(\d+)", line)
            if match:
                self.port = int(match[1])
                return
            if not line:
                if not ready:  # it would outlive this test, and fail another
                    self.process.kill()
                    self.process.wait()
                    self.process.stdout.close()
                raise RuntimeError(f"the daemon did not start:\n{self.log()}")

    def rest_of_banner(self) -> str:
        """What the daemon printed behind its first line, to the empty line at the end. Call it once."""
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1].strip() or len(lines) < 10:
            line = self.process.stdout.readline()
            assert line, f"the daemon ended:\n{self.log()}"
            lines.append(line)
        return "".join(lines)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def stats(self) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/realtime/stats", timeout=5) as answer:
            return json.load(answer)

    def own_stats(self) -> Any:
        """Those of this daemon alone, where others share its Redis. Once it is known, nobody else is waited for."""
        if self._node is None:
            self._node = self.stats()["nodes"][0]["id"]
        with urllib.request.urlopen(f"{self.url}/api/realtime/stats?node={self._node}", timeout=5) as answer:
            return json.load(answer)

    def stats_as(self, token: str) -> Any:
        """The stats, where a token is needed."""
        asked = urllib.request.Request(f"{self.url}/api/realtime/stats", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return json.load(answer)

    def log(self) -> str:
        """What it has said so far: whole lines as long as it runs, as the last may be half written."""
        has_ended = self.process.poll() is not None
        said = self.log_path.read_bytes()
        return (said if has_ended else said[: said.rfind(b"\n") + 1]).decode()

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = 15.0) -> int:
        """Send a signal and wait. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
