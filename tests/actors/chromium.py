"""A real Chromium, driven by Playwright, and the pages that it is shown: bundles of tests/browser/pages.

A browser costs two CPU seconds to start, so there is one for a whole test process; each test has a context of its own
in it, with nothing left of the others. Playwright's calls are synchronous and run an asyncio loop beneath them: between
two modules the loop is put aside, so that what runs there does not find itself inside it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from tests.actors.redis_server import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Playwright, Route

HERE = Path(__file__).parents[1] / "browser"
CLIENT = HERE.parents[1] / "broker" / "browser"
PAGES = HERE / "pages"
NODE_MODULES = HERE / "node_modules"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A hidden or covered page is slowed down by the browser; here only where a test says so.
    "--disable-renderer-backgrounding",
)
HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>%(name)s</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"></head>
<body><main id="root"></main><script type="module" src="%(name)s.js"></script></body></html>
"""


@cache
def missing() -> str | None:
    """Why there is no real browser here, in one line; None where there is."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "the tests in a real browser are skipped: Playwright is not there (pip install playwright)"
    if executable() is None:
        return "the tests in a real browser are skipped: Chromium is not there (apt install chromium)"
    if not (NODE_MODULES / ".bin" / "esbuild").exists():
        return (
            "the tests in a real browser are skipped: tests/browser/node_modules is not there (tests/browser/install)"
        )
    return None


@cache
def executable() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@define(eq=False)
class Chromium:
    """One browser. Not for several threads. `devtools_port` is for those who need a page as loose as a person's."""

    devtools_port: int = field(init=False)
    _playwright: Playwright = field(init=False)
    _browser: Browser = field(init=False)
    _loop: asyncio.AbstractEventLoop | None = field(init=False, default=None)

    def start(self) -> None:
        from playwright.sync_api import sync_playwright

        self.devtools_port = free_port()
        self._playwright = sync_playwright().start()
        # Pages that were left stay as they were, as with every person's browser; Playwright turns that off.
        self._browser = self._playwright.chromium.launch(
            executable_path=executable(),
            args=[*FLAGS, f"--remote-debugging-port={self.devtools_port}"],
            ignore_default_args=["--disable-back-forward-cache"],
        )

    def new_context(self, **options: Any) -> BrowserContext:
        context = self._browser.new_context(**options)
        context.set_default_timeout(15_000)
        return context

    def stop(self) -> None:
        self._browser.close()
        self._playwright.stop()
        del self._browser, self._playwright
        # It may close its loop before the pipe of its driver, and then nobody closes that one but the collector.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    def put_loop_aside(self) -> None:
        """Until `take_loop_back` nothing may be asked of the browser, and nothing sees its loop."""
        self._loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)

    def take_loop_back(self) -> None:
        if self._loop is not None:
            asyncio._set_running_loop(self._loop)
            self._loop = None


@cache
def bundle(name: str) -> bytes:
    """tests/browser/pages/<name>.{js,jsx,ts,tsx} with all that it imports. Raises: what esbuild says."""
    found = [path for end in ("js", "jsx", "ts", "tsx") if (path := PAGES / f"{name}.{end}").exists()]
    assert len(found) == 1, f"there is no page {name}: write tests/browser/pages/{name}.js or .jsx"
    command = [
        str(NODE_MODULES / ".bin" / "esbuild"),
        str(found[0]),
        "--bundle",
        "--format=esm",
        "--target=es2022",
        "--jsx=automatic",
        "--jsx-dev",
        "--log-level=warning",
        "--charset=utf8",
        '--define:process.env.NODE_ENV="development"',
        *_aliases(),
    ]
    environ = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _aliases() -> list[str]:
    """What the npm package exports, out of the tree."""
    exported = json.loads((CLIENT / "package.json").read_text())["exports"]
    return [
        f"--alias:@broker/client{name[1:]}={CLIENT / files['default']}"
        for name, files in exported.items()
        if "default" in files
    ]


def page_file(path: str) -> tuple[str, bytes] | None:
    """What is at a path such as /pages/core.html or /pages/core.js: content type and content."""
    match = re.fullmatch(r"/pages/(\w+(?:/\w+)*)\.(html|js)", path)
    if match is None:
        return None
    if match[2] == "js":
        return "text/javascript", bundle(match[1])
    own = PAGES / f"{match[1]}.html"
    html = own.read_text() if own.exists() else HTML % {"name": match[1].rpartition("/")[2]}
    return "text/html; charset=utf-8", html.encode()


def serve_pages(context: BrowserContext) -> None:
    """Every origin has `/pages/` now, in this context; all else goes to whoever is there."""

    def answer(route: Route) -> None:
        path = re.sub(r"^https?://[^/]+|[?#].*$", "", route.request.url)
        file = page_file(path)
        if file is None:
            route.fulfill(status=404, body="not found")
        else:
            route.fulfill(content_type=file[0], body=file[1])

    context.route("**/pages/**", answer)


@define(eq=False)
class PageServer:
    """The pages on an origin of their own: http://127.0.0.1:<port>/pages/<name>.html, in a thread.

    Args:
        handler: what answers; that of the pages, if not given.
    """

    handler: Callable[..., BaseHTTPRequestHandler] = field(factory=lambda: _PageHandler)
    _server: ThreadingHTTPServer = field(init=False)
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _PageHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        file = page_file(self.path.partition("?")[0])
        self.send_response(200 if file else 404)
        kind, content = file or ("text/plain", b"not found")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *said: object) -> None:
        pass


# Playwright writes an attribute of its own into whatever a listener is a method of.
@define(eq=False, slots=False)
class Complaints:
    """What the pages of a test complained about: errors in the console, and those that nobody caught.

    Args:
        expected: patterns of what they may say.
    """

    expected: list[str] = field(factory=list)
    _told: list[str] = field(factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", self._hear_uncaught)

    def unexpected(self) -> list[str]:
        return [told for told in self._told if not any(re.search(each, told) for each in self.expected)]

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, told) is not None for told in self._told)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._told.append(f"{message.text} ({message.location.get('url', '')})")

    def _hear_uncaught(self, error: Error) -> None:
        self._told.append(f"uncaught: {error}")


def axe_faults(page: Page, *, impacts: Sequence[str] = ("serious", "critical")) -> list[dict[str, Any]]:
    """What axe finds wrong with a page for people who cannot see it well, or use no mouse: rule, help and places."""
    page.evaluate((NODE_MODULES / "axe-core" / "axe.min.js").read_text() + ";0")
    violations = page.evaluate("() => axe.run().then(({violations}) => violations)")
    return [
        {"rule": each["id"], "help": each["help"], "places": [node["html"] for node in each["nodes"]]}
        for each in violations
        if each["impact"] in impacts
    ]
