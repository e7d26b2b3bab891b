"""`python -m tests.echo` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_echo(log_path: Path) -> Iterator[int]:
    """An echo on a free port; yields the port. Fails at the end where it logged anything at all."""
    with open(log_path, "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "tests.echo", "0"], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        assert line.startswith("echoes on 127.0.0.1:"), log_path.read_text()
        yield int(line.rpartition(":")[2])
        process.terminate()
        assert process.wait(10) == 0
        assert log_path.read_text() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
