"""What `make example` does: prepares the app, and starts it and a worker of canned evaluations beside a daemon.

Laws: the page's own server and the worker live and end together: on Ctrl-C, on SIGTERM, or when one of them ends. The
daemon is not started here; `make run` does that, in a terminal where one sees what it says.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CLIENT = ROOT / "dist" / "npm"
STAMP = HERE / "node_modules" / ".installed"
DAEMON = os.environ.get("BROKER_URL", "http://127.0.0.1:8000").rstrip("/")
END_SECONDS = 5.0


class ExampleError(Exception):
    """It cannot run; `str()` says why and what to do."""


def main() -> int:
    try:
        find_daemon()
        install()
    except ExampleError as error:
        print(error, file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    commands = (
        [str(Path(sys.executable).with_name("broker")), "evaluate", "--demo"],
        [str(HERE / "node_modules" / ".bin" / "vite"), *sys.argv[1:]],
    )
    # Ctrl-C is for this program, which ends both: they are in groups of their own.
    children = [subprocess.Popen(command, cwd=HERE, start_new_session=True) for command in commands]
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.1)
        status = 1
    except KeyboardInterrupt:
        status = 0
    finally:
        end(children)
    return status


def find_daemon() -> None:
    try:
        with urllib.request.urlopen(f"{DAEMON}/health", timeout=3) as answer:
            is_broker = json.load(answer).get("status") == "healthy"
    except OSError as error:
        why = getattr(error, "reason", error)
        raise ExampleError(
            f"Nothing answers at {DAEMON} ({why}). Start the daemon in another terminal: make run"
        ) from None
    except (ValueError, AttributeError):
        is_broker = False
    if not is_broker:
        raise ExampleError(f"What answers at {DAEMON} is no broker; set BROKER_URL to the one that you mean.")


def install() -> None:
    """Make the client's package and install the app's packages, where either is another than the last time."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExampleError("npm is not there; on Debian: apt install nodejs npm")
    run("make", "--no-print-directory", "npm", folder=ROOT)
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes())
    for file in sorted(file for file in CLIENT.rglob("*") if file.is_file()):
        digest.update(f"\n{file.relative_to(CLIENT)}\n".encode() + file.read_bytes())
    if not STAMP.exists() or STAMP.read_text() != digest.hexdigest():
        run(npm, "ci", "--loglevel=error", folder=HERE)
        STAMP.write_text(digest.hexdigest())


def run(*command: str, folder: Path) -> None:
    if subprocess.run(command, cwd=folder).returncode:
        raise ExampleError(f"`{Path(command[0]).name} {' '.join(command[1:])}` has failed; it says why above.")


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """SIGTERM, again for a worker that would finish what it has, and SIGKILL with all that they have started."""
    for seconds in (0.5, END_SECONDS):
        for child in children:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(child.poll() is None for child in children):
            time.sleep(0.05)
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


if __name__ == "__main__":
    sys.exit(main())
