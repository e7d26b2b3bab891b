"""HTTP/2 from hostile clients: what carries nothing has a budget, and over it the connection ends, alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from h2.errors import ErrorCodes

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import descriptors_of, resident_bytes, wait_until
from tests.actors.redis_server import RedisServer
from tests.tls.certificates import Authority
from tests.tls.http2_client import Http2Client

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture
def client(tls_daemon: DaemonProcess, tls_authority: Authority) -> Iterator[Http2Client]:
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:
        assert client.get("/health").status == 200
        yield client


def test_the_reason_is_said_and_counted(client: Http2Client, tls_daemon: DaemonProcess) -> None:
    def counted() -> Any:
        return json.loads(bytes(client.get("/api/realtime/stats").data))["tls"]["http2EndedForFlood"]

    before = counted()
    with Http2Client.connect(tls_daemon.port, client.sock.context) as hostile:
        for _ in range(300):
            id = hostile.ask("/health", flush=False)
            hostile.h2.reset_stream(id, ErrorCodes.CANCEL)
        hostile.flush()
        hostile.await_close()
        assert hostile.goaway == ErrorCodes.ENHANCE_YOUR_CALM
    assert counted() == before + 1


def test_requests_that_are_reset_at_once_leave_nothing(client: Http2Client, tls_daemon: DaemonProcess) -> None:
    """They were opened and reset in one read; who asked for them goes on."""
    descriptors = descriptors_of(tls_daemon.process.pid)
    for _ in range(100):
        client.h2.reset_stream(client.ask("/health", flush=False), ErrorCodes.CANCEL)
    client.flush()
    counts = json.loads(bytes(client.get("/api/realtime/stats").data))["tls"]
    assert counts["http2Streams"] == 1  # the one that asks
    wait_until(lambda: descriptors_of(tls_daemon.process.pid) <= descriptors)


def test_who_reads_nothing_is_not_served_without_bound(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority, tls_redis: RedisServer
) -> None:
    """Its windows are as wide as can be: what waits is in the outboxes, and the connection ends."""
    small = str(1 << 17)
    daemon = start_tls_daemon(
        {"CLIENTS_PATIENCE_SECONDS": "1", "CLIENTS_OUTBOX_MAX_BYTES": small, "CHANNELS_MESSAGE_MAX_BYTES": small}
    )
    context = authority.client_context("h2")
    with (
        Http2Client.connect(daemon.port, context, receive_buffer=4096) as hostile,
        Http2Client.connect(daemon.port, context) as good,
        tls_redis.client() as redis,
    ):
        hostile.h2.increment_flow_control_window(1 << 30)
        hostile.h2.update_settings({4: 1 << 30})
        hostile.subscribe(*["bench:a"] * 10)
        good_stream = good.subscribe("bench:a")[0]
        memory = resident_bytes(daemon.process.pid)
        for number in range(60):
            redis.publish("bench:a", json.dumps({"type": "alert", "n": number, "fill": "x" * 30_000}))
            good.pump(lambda number=number: len(good.streams[good_stream].events()) > number)

        def connections() -> Any:
            return json.loads(bytes(good.get("/api/realtime/stats").data))["tls"]["http2Connections"]

        wait_until(lambda: connections() == 1)
        # Ten socket pairs and outboxes, one socket: not the 18 MB that were published for it.
        assert resident_bytes(daemon.process.pid) - memory < 8 << 20


def test_streams_count_as_two_connections_each_as_they_have_descriptors(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority
) -> None:
    daemon = start_tls_daemon({"CLIENTS_MAX_CONNECTIONS": "7"})
    with Http2Client.connect(daemon.port, authority.client_context("h2")) as client:
        ids = client.subscribe("bench:1", "bench:2", "bench:3")
        full = client.get("/health")
        assert (full.status, json.loads(bytes(full.data))["error"]) == (503, "Service Unavailable")
        client.h2.reset_stream(ids[0], ErrorCodes.CANCEL)
        client.flush()
        wait_until(lambda: client.get("/health").status == 200)


def test_streams_count_for_their_address(start_tls_daemon: Callable[..., DaemonProcess], authority: Authority) -> None:
    daemon = start_tls_daemon({"LIMITS_LOOPBACK": "limited", "LIMITS_CONNECTIONS_PER_IP": "3"})
    with Http2Client.connect(daemon.port, authority.client_context("h2")) as client:
        ids = client.subscribe("bench:1", "bench:2")
        for _ in range(40):  # more often than refusals may be under way at once
            over = client.get("/health")
            assert (over.status, json.loads(bytes(over.data))["error"]) == (429, "Too Many Requests")
        client.h2.reset_stream(ids[0], ErrorCodes.CANCEL)
        client.flush()
        wait_until(lambda: client.get("/health").status == 200)


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", bytes(500), PREFACE + bytes(9) * 50],
)
def test_no_preface_no_connection(first: bytes, tls_daemon: DaemonProcess, tls_authority: Authority) -> None:
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2"), greets=False) as client:
        client.send(first)
        client.await_close()
