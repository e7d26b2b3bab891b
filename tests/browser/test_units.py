"""The client's own tests, in Vitest, and its types, by TypeScript: each run once, and shown where it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "node_modules" / ".bin"
SECONDS = 60.0


def run(program: str, *arguments: str, cwd: Path = HERE) -> subprocess.CompletedProcess[str]:
    """Run a program of node_modules; skips the test where it is not there."""
    if not (PROGRAMS / program).exists() or shutil.which("node") is None:
        pytest.skip(f"{program} is not there; tests/browser/install gets it, and says why it cannot")
    return subprocess.run(
        [str(PROGRAMS / program), *arguments],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", "CI": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_the_units_of_the_client() -> None:
    done = run("vitest", "run", "--reporter=dot")
    assert done.returncode == 0, done.stdout + done.stderr
    files = {path.name for path in (HERE / "unit").rglob("*.test.js")}
    assert f"{len(files)} passed ({len(files)})" in done.stdout, done.stdout


def test_the_types_of_the_client_and_of_the_console() -> None:
    done = run("tsc", "-p", "tsconfig.json")
    assert done.returncode == 0, done.stdout + done.stderr
