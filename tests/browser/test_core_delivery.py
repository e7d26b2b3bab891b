"""The core client in a page: every event once and in order, many a second, over one connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.page_readers import Publishing, call, check, wait_begun, wait_in
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer

RATE = 500
SECONDS = 3.0
TURNS = 5
FRAMES_LEAST = 60
# On a machine that does other things too; a frame is due every 16 ms.
FROZEN_MS = 2000


def test_500_events_a_second_reach_every_reader_and_the_page_goes_on(
    module_redis: RedisServer, module_daemon: DaemonProcess, open_page: Callable[..., Any]
) -> None:
    page = open_page("core", module_daemon.url)
    channel, forgetful = "job_progress:many", "notes:many"
    for transport in ("websocket", "sse"):
        call(page, "make", transport, {"transport": transport, "lingerMs": 50})
        for each in ("first", "second"):
            call(page, "read", transport, f"{transport} {each}", channel)
            call(page, "read", transport, f"{transport} {each} without history", forgetful)
        page.evaluate("(given) => void iterate(...given)", [transport, f"{transport} iterated", channel])
    wait_begun(page, channel, 4)
    wait_begun(page, forgetful, 4)
    call(page, "countFrames")
    one, other = Publishing(module_redis, channel, is_stamped=False), Publishing(module_redis, forgetful)
    flowing = threading.Thread(target=one.flow, args=(RATE, SECONDS))
    flowing.start()
    with other.going_on():
        # Other channels come and go meanwhile; over SSE each time that is another stream.
        for turn in range(TURNS):
            for transport in ("websocket", "sse"):
                call(page, "read", transport, transport, f"alerts:{turn}")
            wait_begun(page, f"alerts:{turn}", 2)
            for transport in ("websocket", "sse"):
                call(page, "unsubscribe", transport, f"alerts:{turn}")
        flowing.join()
    assert one.count == RATE * SECONDS
    for publishing, readers in ((one, 6), (other, 4)):
        besides = check(page, publishing, readers=readers)
        assert besides == {name: [] for name in besides}
    counted = call(page, "framesCounted")
    assert counted["frames"] >= FRAMES_LEAST, counted
    assert counted["longestFrameMs"] < FROZEN_MS, counted


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_subscribers_of_a_page_share_one_connection_which_lingers(
    transport: str, module_redis: RedisServer, module_daemon: DaemonProcess, open_page: Callable[..., Any]
) -> None:
    key = {"websocket": "websocket", "sse": "sse"}[transport]
    before = module_daemon.stats()[key]["totalConnections"]
    page = open_page("core", module_daemon.url)
    # So long that a busy machine does the steps below within it.
    call(page, "make", "shared", {"transport": transport, "lingerMs": 3000})
    publishing = Publishing(module_redis, f"job_progress:{transport}-shared")
    call(page, "read", "shared", "first", publishing.channel)
    wait_begun(page, publishing.channel, 1)
    publishing.publish(2)
    wait_in(page, "lasts(given[0])[0] === 1", publishing.channel)
    # Who comes later gets what a new subscriber gets: of this type the last event.
    call(page, "read", "shared", "second", publishing.channel)
    call(page, "read", "shared", "third", "job_progress:another")
    wait_begun(page, publishing.channel, 2)
    wait_begun(page, "job_progress:another", 1)
    publishing.publish(2)
    wait_in(page, "lasts(given[0]).every((each) => each === 3)", publishing.channel)
    logs = page.evaluate("() => logs")
    events = [["event", 0], ["event", 1], ["event", 2], ["event", 3]]
    assert logs == {
        "first": {publishing.channel: [["start", False], *events]},
        "second": {publishing.channel: [["start", False], *events[1:]]},
        "third": {"job_progress:another": [["start", False]]},
    }
    assert module_daemon.stats()[key]["totalConnections"] == before + 1
    client = page.evaluate("() => clients.shared.status.clientId")
    # Between the last that goes and the next that comes the connection is kept, for so long.
    for reader in ("first", "second"):
        call(page, "unsubscribe", reader, publishing.channel)
    call(page, "unsubscribe", "third", "job_progress:another")
    call(page, "read", "shared", "fourth", publishing.channel)
    wait_begun(page, publishing.channel, 3)
    assert page.evaluate("() => clients.shared.status.clientId") == client
    call(page, "unsubscribe", "fourth", publishing.channel)
    wait_in(page, "clients.shared.status.state === 'idle'")
    wait_until(lambda: module_daemon.stats()[key]["totalConnections"] == before)


def test_a_reader_goes_on_from_its_place_in_another_page(
    module_redis: RedisServer, module_daemon: DaemonProcess, open_page: Callable[..., Any]
) -> None:
    page = open_page("core", module_daemon.url)
    publishing = Publishing(module_redis, "job_progress:kept-place")
    call(page, "make", "any", {"transport": "websocket"})
    call(page, "read", "any", "before", publishing.channel)
    wait_begun(page, publishing.channel, 1)
    publishing.publish(3)
    wait_in(page, "lasts(given[0])[0] === 2", publishing.channel)
    since = page.evaluate("(name) => subscriptions.before[name].position", publishing.channel)
    page.reload()
    publishing.publish(3)
    for transport in ("websocket", "sse"):
        call(page, "make", transport, {"transport": transport})
        call(page, "read", transport, transport, publishing.channel, {"since": since})
    wait_begun(page, publishing.channel, 2)
    publishing.publish(1)
    wait_in(page, "lasts(given[0]).every((each) => each === 6)", publishing.channel)
    expected = {publishing.channel: [["start", True], *(["event", n] for n in range(3, 7))]}
    assert page.evaluate("() => logs") == {"websocket": expected, "sse": expected}
