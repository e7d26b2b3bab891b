"""Fixtures of the tests in a real browser. How to write one:

    def test_something(module_daemon, open_page):
        page = open_page("core", module_daemon.url)         # tests/browser/pages/core.js, bundled, same origin
        page.evaluate("...")                                 # sync Playwright: plain functions, no async
        page.wait_for_function("() => received.length === 3", polling=20)

* A page is a file tests/browser/pages/<name>.js, .jsx or .tsx; it may import "@broker/client", "@broker/client/react",
  "react" and whatever tests/browser/node_modules has. esbuild bundles it once a session. It is shown in an HTML page
  with an empty <main id="root">, or in <name>.html beside it. `open_page(name, origin)` shows it as
  <origin>/pages/<name>.html, so it has the origin of the daemon there; `page_server.origin` is another one.
* `open_page(..., query="a=b")`, and `context=` for a second context (`new_context(**playwright_options)`). Several
  pages of one context are tabs of one person: they share locks, storage and connections.
* `open_url(url)` shows any address, such as the daemon's console.
* A test fails when a page logs an error to the console or throws what nobody catches, unless it says which:
  `complaints.expected.append("ERR_CONNECTION_REFUSED")`.
* `module_redis` and `module_daemon` are one for a test file; a test that kills or reconfigures its daemon takes
  `start_daemon` and `redis_server`, as anywhere.
* Do not take async fixtures or write async tests in such a file: sync Playwright runs a loop of its own.
* Where a tool is missing, whoever asks for `chromium` (all of these do) is skipped, and told what is missing.
* `axe_faults(page)` of tests/actors/chromium.py; `Wire` of tests/actors/wire.py stands between a page and its daemon
  and cuts, falls silent, or lets no WebSocket through; `LivePage` of tests/actors/live_page.py can be frozen.
* Tests of the core client use tests/browser/pages/core.js, and the oracle of tests/actors/page_readers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors.chromium import Chromium, Complaints, PageServer, bundle, missing, serve_pages
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.conftest import daemons

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


@pytest.fixture(scope="session")
def session_chromium() -> Iterator[Chromium]:
    """The browser of this test process. Take `chromium`."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    browser = Chromium()
    browser.start()
    browser.put_loop_aside()
    yield browser
    browser.take_loop_back()
    browser.stop()


@pytest.fixture(scope="module")
def chromium(session_chromium: Chromium) -> Iterator[Chromium]:
    """The browser, for one file: behind its tests nothing of the browser's loop is seen."""
    session_chromium.take_loop_back()
    yield session_chromium
    session_chromium.put_loop_aside()


@pytest.fixture(scope="session")
def page_server() -> Iterator[PageServer]:
    """The pages on another origin than any daemon's."""
    server = PageServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What the pages of a test complain about; what is not expected fails it."""
    heard = Complaints()
    yield heard
    assert heard.unexpected() == []


@pytest.fixture
def new_context(chromium: Chromium, complaints: Complaints) -> Iterator[Callable[..., BrowserContext]]:
    """Contexts, each as a person with a browser of their own: `new_context(color_scheme="dark", ...)`."""
    made: list[BrowserContext] = []

    def new(**options: Any) -> BrowserContext:
        # A page that no host sent is public to the browser, and needs leave to speak to this machine.
        context = chromium.new_context(**{"permissions": ["local-network-access"], **options})
        made.append(context)
        context.on("page", complaints.watch)
        serve_pages(context)
        return context

    yield new
    for context in made:
        context.close()


@pytest.fixture
def context(new_context: Callable[..., BrowserContext]) -> BrowserContext:
    """The context of a test with one person."""
    return new_context()


@pytest.fixture
def open_page(request: pytest.FixtureRequest) -> Callable[..., Page]:
    """Opens pages of tests/browser/pages: `open_page(name, origin, query="", context=None)`."""

    def open_named(name: str, origin: str, *, query: str = "", context: BrowserContext | None = None) -> Page:
        bundle(name)  # what is wrong with it is told here, not to the browser
        page: Page = (context or request.getfixturevalue("context")).new_page()
        page.goto(f"{origin}/pages/{name}.html" + (f"?{query}" if query else ""))
        return page

    request.getfixturevalue("new_context")
    return open_named


@pytest.fixture
def open_url(request: pytest.FixtureRequest) -> Callable[..., Page]:
    """Opens any address: `open_url(url, context=None)`."""

    def open_address(url: str, *, context: BrowserContext | None = None) -> Page:
        page: Page = (context or request.getfixturevalue("context")).new_page()
        page.goto(url)
        return page

    request.getfixturevalue("new_context")
    return open_address


@pytest.fixture(scope="module")
def module_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for a test file. Its tests take channels of their own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def start_module_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts daemons for a test file: `start_module_daemon(redis_url, *flags)`. They may log no error."""
    yield from daemons(tmp_path_factory.mktemp("daemons"))


@pytest.fixture(scope="module")
def module_daemon(module_redis: RedisServer, start_module_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """One daemon for a test file, with the defaults."""
    return start_module_daemon(module_redis.url)
