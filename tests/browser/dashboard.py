"""The example app, docs/examples/dashboard, built in a folder of its own and served from an origin of its own.

It is built as a person builds it, with its own settings and the npm package as `make npm` makes it. Only the packages
of others are those of tests/browser/node_modules, so that nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from tests.actors.chromium import NODE_MODULES, PageServer

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


def app_server(folder: Path) -> PageServer:
    """Serves `folder`/dist, which need not be there yet."""
    return PageServer(partial(_Handler, directory=str(folder / "dist")))


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        pass
