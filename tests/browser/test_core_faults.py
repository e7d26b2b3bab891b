"""The core client in a page through the faults of others: daemon, Redis and network go away and come back.

In each the readers are the core over WebSocket and over SSE, and two native `EventSource` without a library; what they
had is compared with what was published.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors.chromium import Complaints
from tests.actors.daemon_process import DaemonProcess
from tests.actors.page_readers import Publishing, call, check, wait_begun, wait_in
from tests.actors.redis_server import RedisServer
from tests.actors.wire import Wire

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

CHANNEL = "job_progress:faults"
OTHER = "ab_test_results:faults"
FORGETFUL = "notes:faults"
# What a browser itself says of connections that fail.
FAILED = ["^Failed to load resource: net::ERR_", "^WebSocket connection to .* failed", "net::ERR_INCOMPLETE_CHUNKED"]


@pytest.fixture
def restartable(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], complaints: Complaints
) -> DaemonProcess:
    """A daemon that comes back on its port."""
    daemon = start_daemon(redis_server.url, "--daemon-reconnect-seconds", "0.2")
    daemon.listen = f"127.0.0.1:{daemon.port}"
    complaints.expected += FAILED
    return daemon


def begin(page: Page, *, natives: bool = True) -> int:
    """All the readers of CHANNEL; returns how many."""
    for transport in ("websocket", "sse"):
        call(page, "make", transport, {"transport": transport})
        call(page, "read", transport, transport, CHANNEL)
        call(page, "read", transport, f"{transport} other", OTHER)
    if natives:
        call(page, "readNatively", "native", [CHANNEL])
        call(page, "readNatively", "native of two", [CHANNEL, OTHER])
    readers = 4 if natives else 2
    wait_begun(page, CHANNEL, readers)
    wait_begun(page, OTHER, readers - natives)
    return readers


def have_one(page: Page, publishing: Publishing, *, readers: int) -> None:
    """A first event. On a channel that never had one, nobody knows whether plain ones were missed with the recorder."""
    publishing.publish(1)
    check(page, publishing, readers=readers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_the_daemon_restarts(
    number: signal.Signals, redis_server: RedisServer, restartable: DaemonProcess, open_page: Callable[..., Any]
) -> None:
    page = open_page("core", restartable.url)
    # Whom nobody tells when to come back, as after a kill, the browser makes wait for three seconds.
    readers = begin(page, natives=number is signal.SIGTERM)
    one, two = (Publishing(redis_server, channel) for channel in (CHANNEL, OTHER))
    have_one(page, one, readers=readers)
    have_one(page, two, readers=readers - (number is signal.SIGTERM))
    with one.going_on(), two.going_on():
        restartable.stop(number)
        one.publish(5)
        restartable.start()
        wait_begun(page, CHANNEL, readers, times=2)
    two.publish(1)
    one.publish(1)
    for publishing, count in ((one, readers), (two, readers - (number is signal.SIGTERM))):
        besides = check(page, publishing, readers=count)
        assert besides == {name: [] for name in besides}


def test_the_daemon_loses_redis(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], open_page: Callable[..., Any]
) -> None:
    with Wire(redis_server.port) as wire:
        daemon = start_daemon(f"redis://127.0.0.1:{wire.port}/0", "--redis-backoff-max-seconds", "0.2")
        page = open_page("core", daemon.url)
        readers = begin(page)
        statuses = page.evaluate("() => statuses")
        publishing = Publishing(redis_server, CHANNEL)
        have_one(page, publishing, readers=readers)
        with publishing.going_on():
            wire.shut()
            publishing.publish(20)
            wire.open()
        publishing.publish(1)
        besides = check(page, publishing, readers=readers)
        assert besides == {name: [] for name in besides}
        # Nobody came back: only the daemon had lost its connection.
        assert page.evaluate("() => statuses") == statuses


def test_redis_comes_back_with_nothing(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], open_page: Callable[..., Any]
) -> None:
    daemon = start_daemon(redis_server.url, "--redis-backoff-max-seconds", "0.2")
    page = open_page("core", daemon.url)
    readers = begin(page)
    publishing = Publishing(redis_server, CHANNEL)
    publishing.publish(3)
    check(page, publishing, readers=readers)
    redis_server.kill()
    redis_server.start()
    publishing.publish(3)
    besides = check(page, publishing, readers=readers)
    assert besides == {name: ["epoch_changed"] for name in besides}


def test_the_network_goes_away_and_comes_back(
    redis_server: RedisServer,
    restartable: DaemonProcess,
    open_page: Callable[..., Any],
    context: BrowserContext,
) -> None:
    """The wire is cut, too. A browser that is offline ends its streams; of WebSockets it hears nothing until later."""
    with Wire(restartable.port) as wire:
        page = open_page("core", wire.url)
        readers = begin(page, natives=False)
        for transport in ("websocket", "sse"):
            call(page, "read", transport, f"{transport} without history", FORGETFUL)
        wait_begun(page, FORGETFUL, readers)
        one, other = (Publishing(redis_server, channel) for channel in (CHANNEL, FORGETFUL))
        other.publish(1)
        check(page, other, readers=readers)
        with one.going_on():
            context.set_offline(True)
            wire.shut()
            wait_in(page, "clients.sse.status.state === 'waiting'")
            other.publish(1)
            wire.open()
            context.set_offline(False)
            wait_begun(page, FORGETFUL, readers, times=2)
            other.publish(1)
            check(page, other, readers=readers)
            # In the middle of whatever is on its way.
            for times in (3, 4, 5):
                wire.cut()
                wait_begun(page, FORGETFUL, readers, times=times)
        for publishing in (one, other):
            publishing.publish(1)
        besides = check(page, one, readers=readers)
        assert besides == {name: [] for name in besides}
        # Where there is no history every new connection may have missed something, and says so.
        besides = check(page, other, readers=readers)
        assert {name: set(reasons) for name, reasons in besides.items()} == {
            f"{transport} without history": {"no_history"} for transport in ("websocket", "sse")
        }


@pytest.fixture
def half_open(restartable: DaemonProcess) -> Iterator[Wire]:
    with Wire(restartable.port) as wire:
        yield wire


def test_a_connection_that_is_open_and_dead_is_found(
    redis_server: RedisServer, half_open: Wire, open_page: Callable[..., Any], context: BrowserContext
) -> None:
    """By the page's clock, half a minute later."""
    page = open_page("core", half_open.url)
    page.clock.install()
    readers = begin(page, natives=False)
    publishing = Publishing(redis_server, CHANNEL)
    publishing.publish(2)
    check(page, publishing, readers=readers)
    half_open.lose()
    publishing.publish(2)
    page.clock.run_for(70_000)
    wait_begun(page, CHANNEL, readers, times=2)
    besides = check(page, publishing, readers=readers)
    assert besides == {name: [] for name in besides}
