"""The core client where the daemon wants tokens: what is refused is told and left, what is over is renewed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.actors import signer
from tests.actors.chromium import Complaints
from tests.actors.daemon_process import DaemonProcess
from tests.actors.page_readers import Publishing, call, check, wait_begun, wait_in
from tests.actors.redis_server import RedisServer
from tests.actors.wire import Wire

TRANSPORTS = ("websocket", "sse")


def token(seconds: float = 600, **changes: Any) -> str:
    return signer.token(exp=int(time.time() + seconds), iat=int(time.time()) - 5, **changes)


@pytest.fixture(scope="module")
def guarded(module_redis: RedisServer, start_module_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon that wants tokens."""
    return start_module_daemon(module_redis.url, "--auth-secret", signer.SECRET)


def test_a_forbidden_channel_is_told_and_left_and_the_others_go_on(
    module_redis: RedisServer, guarded: DaemonProcess, open_page: Callable[..., Any], complaints: Complaints
) -> None:
    complaints.expected += ["status of 403"]
    page = open_page("core", guarded.url)
    mine, theirs = "job_progress:1:ann", "job_progress:1:bob"
    for transport in TRANSPORTS:
        call(page, "make", transport, {"transport": transport, "tokens": [token()]})
        call(page, "read", transport, f"{transport} of ann", mine)
        call(page, "read", transport, f"{transport} of bob", theirs)
    wait_begun(page, mine, 2)
    wait_in(page, "Object.values(logs).filter((log) => log[given[0]]).length === 2", theirs)
    publishing = Publishing(module_redis, mine)
    publishing.publish(3)
    Publishing(module_redis, theirs).publish(3)
    besides = check(page, publishing, readers=2)
    assert besides == {f"{transport} of ann": [] for transport in TRANSPORTS}
    # Not after the next connection either.
    for transport in TRANSPORTS:
        page.evaluate("(name) => clients[name].reconnect()", transport)
    wait_begun(page, mine, 2, times=2)
    logs = page.evaluate("() => logs")
    refused = {theirs: [["error", "forbidden", False]]}
    assert [logs[f"{transport} of bob"] for transport in TRANSPORTS] == [refused, refused]
    assert page.evaluate("() => statuses.websocket") == ["connecting", "open"] * 2
    assert complaints.count("status of 403") == 1
    assert guarded.stats_as(token(broker_admin=True))["channels"]["channels"] == [mine]


def test_a_token_that_does_not_count_ends_it(
    guarded: DaemonProcess, open_page: Callable[..., Any], complaints: Complaints
) -> None:
    complaints.expected += ["status of 401"]
    with Wire(guarded.port) as wire:
        page = open_page("core", wire.url)
        for transport in TRANSPORTS:
            call(page, "make", transport, {"transport": transport, "tokens": ["no.such.token", "neither"]})
            call(page, "read", transport, transport, "job_progress:1:ann")
        wait_in(page, "Object.values(clients).every(({ status }) => status.state === 'failed')")
        asked = page.evaluate("() => asked")
        assert asked == {"websocket": 2, "sse": 2}
        visits = wire.visits
        page.clock.install()
        page.clock.run_for(120_000)
        errors = "Object.values(clients).map(({ status }) => [status.error.code, status.error.willRetry])"
        assert page.evaluate(errors) == [["bad_token", False], ["bad_token", False]]
        assert (wire.visits, page.evaluate("() => asked")) == (visits, asked)
        # A person who signs in again says so.
        for transport in TRANSPORTS:
            page.evaluate("(name) => clients[name].reconnect()", transport)
        wait_in(page, "Object.values(asked).every((times) => times > 2)")
        wait_in(page, "Object.values(clients).every(({ status }) => status.state === 'failed')")


def test_a_token_that_is_over_is_renewed_and_no_event_is_missing(
    module_redis: RedisServer, guarded: DaemonProcess, open_page: Callable[..., Any]
) -> None:
    page = open_page("core", guarded.url)
    publishing = Publishing(module_redis, "job_progress:renewed:ann")
    for transport in TRANSPORTS:
        # It is renewed when a fifth of its time is left: a second, also on a busy machine.
        call(page, "make", transport, {"transport": transport, "tokens": [token(6), token()]})
        call(page, "read", transport, transport, publishing.channel)
    wait_begun(page, publishing.channel, 2)
    before = page.evaluate("() => clients.websocket.status.clientId")
    with publishing.going_on():
        wait_begun(page, publishing.channel, 1, times=2)
        wait_in(page, "asked.websocket === 2")
    publishing.publish(1)
    besides = check(page, publishing, readers=2)
    assert besides == {transport: [] for transport in TRANSPORTS}
    # Over WebSocket on the same connection, before it was over; a stream is opened anew.
    assert page.evaluate("() => clients.websocket.status.clientId") == before
    assert page.evaluate("() => [statuses.websocket, asked]") == [["connecting", "open"], {"websocket": 2, "sse": 2}]
