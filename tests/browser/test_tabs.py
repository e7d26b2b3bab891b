"""Several tabs of one browser with one connection (`share: true`): the leader goes away in every way there is.

Each page reads one channel with history; what each had is compared with what was published. The pages are of another
origin than the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors.chromium import Chromium, Complaints, PageServer
from tests.actors.daemon_process import DaemonProcess
from tests.actors.live_page import LivePage
from tests.actors.page_readers import Publishing, call, check, wait_begun, wait_in
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.wire import Wire

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

# Browsers open six connections to a host over HTTP/1.1, and no more.
TABS = 7
NO_HISTORY = "council_score:left"


@pytest.fixture(scope="module")
def daemon(
    module_redis: RedisServer, start_module_daemon: Callable[..., DaemonProcess], page_server: PageServer
) -> DaemonProcess:
    return start_module_daemon(module_redis.url, "--listen-allowed-origins", page_server.origin)


def begin(page: Any, channel: str, **options: object) -> Any:
    """A client of its own in this page, which shares its connection, with one reader."""
    wait_in(page, "globalThis.make !== undefined")
    call(page, "make", "tab", {"share": True, **options})
    call(page, "read", "tab", "tab", channel)
    return page


def wait_gaps(page: Page, channel: str, reasons: list[str]) -> None:
    """Until the reader was told of so many gaps, and these."""
    gaps = "logs.tab[given[0]].filter(([kind]) => kind === 'gap')"
    wait_in(page, f"{gaps}.length >= given[1]", channel, len(reasons))
    assert page.evaluate(f"(given) => {gaps}.map((told) => told[1])", [channel]) == reasons


def leaders_name(pages: list[Any]) -> str:
    """What the daemon calls the one connection of these pages."""

    def names() -> set[Any]:
        return {page.evaluate("() => clients.tab.status.clientId") for page in pages}

    # A page that the machine holds up for seconds is deposed too; then they agree on another.
    wait_until(lambda: len(names()) == 1)
    (name,) = names()
    return str(name)


def wait_led(pages: list[Any], publishing: Publishing, old: str) -> str:
    """Until these pages have another leader, and what was published under it. Returns what the daemon calls it."""
    publishing.publish()
    for page in pages:
        wait_in(page, "![null, given[0]].includes(clients.tab.status.clientId)", old)
        wait_in(page, "lasts(given[0])[0] >= given[1]", publishing.channel, publishing.count - 1)
    return leaders_name(pages)


def test_seven_tabs_have_one_stream(
    module_redis: RedisServer, daemon: DaemonProcess, open_page: Callable[..., Any], page_server: PageServer
) -> None:
    """Who comes late gets what a new subscriber gets."""
    publishing = Publishing(module_redis, "job_progress:seven")
    pages: list[Page] = []
    for number in range(TABS):
        page = begin(open_page("core", page_server.origin), publishing.channel, url=daemon.url, transport="sse")
        pages.append(page)
        if number == 0:
            wait_begun(page, publishing.channel, 1)
            publishing.publish(1)
            wait_in(page, "lasts(given[0])[0] === 0", publishing.channel)
    for page in pages:
        wait_begun(page, publishing.channel, 1)
    publishing.publish(3)
    for page in pages:
        assert check(page, publishing, readers=1) == {"tab": []}
    assert leaders_name(pages).startswith("sse_")
    assert daemon.stats()["sse"]["totalConnections"] == 1


def test_a_leader_that_goes_takes_no_event_along(
    module_redis: RedisServer,
    daemon: DaemonProcess,
    open_page: Callable[..., Any],
    page_server: PageServer,
    context: BrowserContext,
) -> None:
    """It is closed, crashes, and hangs without a word; another leads on."""
    from playwright.sync_api import Error as PlaywrightError

    # Intervals of these pages are half as long, so that the silent one is given up in half the time.
    context.add_init_script("const own = setInterval; setInterval = (what, ms) => own(what, ms / 2);")
    publishing = Publishing(module_redis, "job_progress:leaders")
    pages = [
        begin(open_page("core", page_server.origin), publishing.channel, url=daemon.url, transport="websocket")
        for _ in range(4)
    ]
    for page in pages:
        wait_begun(page, publishing.channel, 1)
    closed, crashed, hanging, last = pages
    name = leaders_name(pages)
    with publishing.going_on():
        closed.close()
        name = wait_led([crashed, hanging, last], publishing, name)
        with crashed.expect_event("crash"), pytest.raises(PlaywrightError, match="crash"):
            crashed.goto("chrome://crash")
        name = wait_led([hanging, last], publishing, name)
        hanging.evaluate("() => setTimeout(() => { for (const end = Date.now() + 3500; Date.now() < end; ); })")
        name = wait_led([last], publishing, name)
        # Once it does something again it steps down.
        wait_in(hanging, "clients.tab.status.clientId === given[0]", name)
    publishing.publish()
    for page in (hanging, last):
        assert check(page, publishing, readers=1) == {"tab": []}
    wait_until(lambda: daemon.stats()["websocket"]["totalConnections"] == 1)


def test_a_leader_that_the_browser_freezes(
    module_redis: RedisServer, daemon: DaemonProcess, chromium: Chromium, page_server: PageServer
) -> None:
    publishing = Publishing(module_redis, "job_progress:frozen-leader")
    address = f"{page_server.origin}/pages/core.html"
    with LivePage(chromium.devtools_port, address) as leader, LivePage(chromium.devtools_port, address) as follower:
        for page in (leader, follower):
            begin(page, publishing.channel, url=daemon.url, transport="websocket")
            wait_begun(page, publishing.channel, 1)
        name = leaders_name([leader, follower])
        leader.freeze()
        name = wait_led([follower], publishing, name)
        leader.thaw()
        publishing.publish()
        for page in (leader, follower):
            assert check(page, publishing, readers=1) == {"tab": []}
        assert leaders_name([leader, follower]) == name


def test_a_leader_that_is_left_and_comes_back_and_a_connection_that_breaks(
    module_redis: RedisServer,
    daemon: DaemonProcess,
    open_page: Callable[..., Any],
    page_server: PageServer,
    complaints: Complaints,
) -> None:
    """On a channel without history whoever may have missed an event is told so."""
    complaints.expected += ["net::ERR_"]
    publishing = Publishing(module_redis, "job_progress:left")
    with Wire(daemon.port) as wire:
        pages = [begin(open_page("core", page_server.origin), publishing.channel, url=wire.url) for _ in range(2)]
        for page in pages:
            call(page, "read", "tab", "tab", NO_HISTORY)
            wait_begun(page, publishing.channel, 1)
            wait_begun(page, NO_HISTORY, 1)
        leader, follower = pages
        publishing.publish(1)
        leader.goto(f"{page_server.origin}/pages/probe.html")
        publishing.publish(1)
        assert check(follower, publishing, readers=1) == {"tab": []}
        wait_gaps(follower, NO_HISTORY, ["no_history"])
        leader.go_back(wait_until="commit")
        publishing.publish(1)
        for page in pages:
            assert check(page, publishing, readers=1) == {"tab": []}
        wait_gaps(leader, NO_HISTORY, ["no_history"])
        position = follower.evaluate("(channel) => subscriptions.tab[channel].position", publishing.channel)
        wire.cut()
        publishing.publish(1)
        for page in pages:
            assert check(page, publishing, readers=1) == {"tab": []}
            wait_gaps(page, NO_HISTORY, ["no_history", "no_history"])
        # At first, under another leader, and after the cut.
        wait_begun(follower, publishing.channel, 1, times=3)
        call(follower, "read", "tab", "late", publishing.channel)
        call(follower, "read", "tab", "with a place", publishing.channel, {"since": position})
        wait_begun(follower, publishing.channel, 3)
        wait_until(lambda: daemon.stats()["websocket"]["totalConnections"] == 1)
