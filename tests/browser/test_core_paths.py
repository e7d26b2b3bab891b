"""The core client where no WebSocket passes, and in a page that the browser froze, or kept while it was left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from tests.actors.chromium import Chromium, Complaints, PageServer
from tests.actors.daemon_process import DaemonProcess
from tests.actors.live_page import LivePage
from tests.actors.page_readers import Publishing, call, check, wait_begun
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.wire import Wire


@pytest.mark.parametrize("upgrades", ["refuse", "ignore"])
def test_where_no_websocket_passes_it_reads_a_stream(
    upgrades: Literal["refuse", "ignore"],
    module_redis: RedisServer,
    module_daemon: DaemonProcess,
    open_page: Callable[..., Any],
    complaints: Complaints,
) -> None:
    complaints.expected += ["^WebSocket connection to .* failed", "net::ERR_INCOMPLETE_CHUNKED"]
    with Wire(module_daemon.port, upgrades=upgrades) as wire:
        page = open_page("core", wire.url)
        publishing = Publishing(module_redis, f"job_progress:{upgrades}")
        page.clock.install()
        call(page, "make", "auto")
        call(page, "read", "auto", "auto", publishing.channel)
        if upgrades == "ignore":
            # Who is told nothing waits five seconds, by the page's clock.
            page.clock.run_for(5_000)
        wait_begun(page, publishing.channel, 1)
        publishing.publish(2)
        assert check(page, publishing, readers=1) == {"auto": []}
        assert page.evaluate("() => clients.auto.status.transport") == "sse"
        # What worked is tried first: a page behind such a proxy comes back without the detour.
        assert wire.stopped == 1
        wire.cut()
        publishing.publish(2)
        page.clock.run_for(1_000)
        wait_begun(page, publishing.channel, 1, times=2)
        assert check(page, publishing, readers=1) == {"auto": []}
        assert (page.evaluate("() => clients.auto.status.transport"), wire.stopped) == ("sse", 1)
        assert module_daemon.stats()["websocket"]["totalConnections"] == 0
        page.close()  # before the wire, or it tries to come back


def test_a_frozen_page_goes_on_where_it_was(
    module_redis: RedisServer,
    start_module_daemon: Callable[..., DaemonProcess],
    chromium: Chromium,
    page_server: PageServer,
) -> None:
    """On another origin than the daemon's, too."""
    daemon = start_module_daemon(module_redis.url, "--listen-allowed-origins", page_server.origin)
    publishing = Publishing(module_redis, "job_progress:frozen")
    address = f"{page_server.origin}/pages/core.html"
    with Wire(daemon.port) as wire, LivePage(chromium.devtools_port, address) as page:
        page.wait_for_function("() => globalThis.make !== undefined", polling=20, timeout=15_000)
        for transport in ("websocket", "sse"):
            call(page, "make", transport, {"transport": transport, "url": wire.url})
            call(page, "read", transport, transport, publishing.channel)
        wait_begun(page, publishing.channel, 2)
        publishing.publish(1)
        # For a moment; so long that its connections are gone; and longer than the history is (100 events).
        for missed, is_cut, besides in ((30, False, []), (60, True, []), (150, True, ["trimmed"])):
            check(page, publishing, readers=2)
            page.freeze()
            publishing.publish(missed)
            if is_cut:
                wire.cut()
            page.thaw()
            publishing.publish(1)
            assert check(page, publishing, readers=2) == {"websocket": besides, "sse": besides}
        assert page.evaluate("() => lives") == ["frozen", "awake"] * 3
        assert page.evaluate("() => Object.values(statuses).map((told) => told.at(-1))") == ["open", "open"]


def test_a_page_that_was_left_comes_back_where_it_was(
    module_redis: RedisServer, module_daemon: DaemonProcess, open_page: Callable[..., Any], complaints: Complaints
) -> None:
    page = open_page("core", module_daemon.url)
    publishing = Publishing(module_redis, "job_progress:left")
    for transport in ("websocket", "sse"):
        call(page, "make", transport, {"transport": transport})
        call(page, "read", transport, transport, publishing.channel)
    wait_begun(page, publishing.channel, 2)
    publishing.publish(2)
    check(page, publishing, readers=2)
    page.goto(f"{module_daemon.url}/pages/probe.html")
    # It holds no connection while nobody sees it.
    wait_until(lambda: module_daemon.stats()["connections"]["open"] <= 1)
    publishing.publish(5)
    page.go_back(wait_until="commit")
    publishing.publish(1)
    assert check(page, publishing, readers=2) == {"websocket": [], "sse": []}
    assert page.evaluate("() => lives") == ["frozen", "awake", "back"]
