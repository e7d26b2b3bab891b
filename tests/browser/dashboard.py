"""The example app, docs/examples/dashboard, built in a folder of its own and served from an origin of its own.

It is built as a person builds it, with its own settings and the npm package as `make npm` makes it. Only the packages
of others are those of tests/browser/node_modules, so that nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from attrs import define, field

from tests.actors.chromium import NODE_MODULES

ROOT = Path(__file__).parents[2]
APP = ROOT / "docs" / "examples" / "dashboard"
SECONDS = 60


def prepare(folder: Path) -> None:
    """The app's sources in `folder`, with all the packages that they import."""
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    packages = folder / "node_modules"
    packages.mkdir()
    for package in (path for path in NODE_MODULES.iterdir() if path.name != ".package-lock.json"):
        (packages / package.name).symlink_to(package)
    spec = importlib.util.spec_from_file_location("npm_package", ROOT / "conf" / "npm" / "package.py")
    assert spec is not None
    assert spec.loader is not None
    npm_package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(npm_package)
    npm_package.lay_out(packages / "@broker" / "client")


def run(folder: Path, tool: str, *arguments: str, **variables: str) -> None:
    """Run one of the app's tools there. Raises AssertionError with what it says."""
    done = subprocess.run(
        [str(folder / "node_modules" / ".bin" / tool), *arguments],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{tool} {' '.join(arguments)}:\n{done.stdout}{done.stderr}"


def build(folder: Path, daemon_url: str) -> None:
    """Make `folder`/dist, whose pages go to that daemon."""
    run(folder, "vite", "build", "--logLevel", "warn", VITE_BROKER_URL=daemon_url)


@define(eq=False)
class AppServer:
    """`folder`/dist on a free port, in a thread. It need not be there yet."""

    folder: Path
    _server: ThreadingHTTPServer = field(init=False)
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        handler = partial(_Handler, directory=str(self.folder / "dist"))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        pass
