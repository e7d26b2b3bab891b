"""A fork (see `forks`) whose standard output and standard error are pipes, with the face of `subprocess.Popen`."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from attrs import define

from tests.actors.forks import ForkedProcess, start_fork


@define(eq=False)
class PipedFork:
    """One such process. `stdout` is None where another descriptor was given for it; both streams are unbuffered."""

    process: ForkedProcess
    stdout: IO[bytes] | None
    stderr: IO[bytes]

    @classmethod
    def start(
        cls, module: str, arguments: Sequence[str], *, environ: Mapping[str, str], stdout: int | None = None
    ) -> PipedFork:
        """Start `python -m module arguments`.

        Args:
            stdout: a descriptor, which stays the caller's; None for a pipe.
        """
        here, there = os.pipe() if stdout is None else (None, stdout)
        said, err = os.pipe()
        try:
            process = start_fork(module, arguments, environ=environ, stderr=err, stdout=there)
        finally:
            os.close(err)
            if here is not None:
                os.close(there)
        output = None if here is None else open(here, "rb", buffering=0)  # noqa: SIM115 - closed by __exit__
        return cls(process, output, open(said, "rb", buffering=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it, and wait."""
        self.process.kill()
        self.process.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float) -> int:
        return self.process.wait(timeout)

    def communicate(self, timeout: float = 10.0) -> tuple[bytes | None, bytes]:
        """Read both to their ends, and wait. Returns what was read; None for a `stdout` that is not there."""
        deadline = time.monotonic() + timeout
        read = {stream: b"" for stream in (self.stdout, self.stderr) if stream is not None}
        going = set(read)
        while going:
            ready, _, _ = select.select(going, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(list(self.process.arguments), timeout)
            for stream in ready:
                data = os.read(stream.fileno(), 1 << 16)
                read[stream] += data
                if not data:
                    going.discard(stream)
        self.wait(max(0.0, deadline - time.monotonic()))
        return (None if self.stdout is None else read[self.stdout]), read[self.stderr]
