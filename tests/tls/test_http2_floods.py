"""HTTP/2 from hostile clients: what carries nothing has a budget, and over it the connection ends, alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import descriptors_of, resident_bytes, wait_until
from tests.actors.redis_server import RedisServer
from tests.bench.usage import cpu_seconds
from tests.tls.certificates import Authority
from tests.tls.http2_client import Http2Client

FRAMES = 20_000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture
def client(tls_daemon: DaemonProcess, tls_authority: Authority) -> Iterator[Http2Client]:
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:
        assert client.get("/health").status == 200
        yield client


def head_of(client: Http2Client, path: str = "/health") -> bytes:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
    return client.h2.encoder.encode(fields)


def opening(client: Http2Client) -> Callable[[int], bytes]:
    """A request on the stream of that number, with a head that needs no table."""
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/health")]
    block = client.h2.encoder.encode([(name, value, True) for name, value in fields])  # type: ignore[arg-type]
    return lambda number: HeadersFrame(2 * number + 3, block, flags=["END_HEADERS", "END_STREAM"]).serialize()


def rapid_resets(client: Http2Client) -> Iterator[bytes]:
    begin = opening(client)
    for number in range(FRAMES):
        yield begin(number) + RstStreamFrame(2 * number + 3, error_code=8).serialize()


def resets_that_the_daemon_is_made_to_send(client: Http2Client) -> Iterator[bytes]:
    begin = opening(client)
    for number in range(FRAMES):
        yield begin(number) + b"\0\0\4\x08\0" + (2 * number + 3).to_bytes(4, "big") + bytes(4)  # a window of 0 more


def repeated(frame: Frame) -> Callable[[Http2Client], Iterator[bytes]]:
    data = frame.serialize()
    return lambda client: (data for _ in range(FRAMES))


def empty_data(client: Http2Client) -> Iterator[bytes]:
    yield HeadersFrame(3, head_of(client), flags=["END_HEADERS"]).serialize()
    yield from (DataFrame(3, b"").serialize() for _ in range(FRAMES))


def a_head_without_end(client: Http2Client) -> Iterator[bytes]:
    yield HeadersFrame(3, b"").serialize()
    yield from (ContinuationFrame(3, bytes(1000)).serialize() for _ in range(FRAMES))


def a_head_of_nothing(client: Http2Client) -> Iterator[bytes]:
    yield HeadersFrame(3, b"").serialize()
    yield from (ContinuationFrame(3, b"").serialize() for _ in range(FRAMES))


def heads_that_grow_when_they_are_read(client: Http2Client) -> Iterator[bytes]:
    block = client.h2.encoder.encode([("x-a", "a" * 4000)]) + b"\xbe" * 10_000
    yield HeadersFrame(3, block, flags=["END_HEADERS", "END_STREAM"]).serialize()


def one_large_frame(client: Http2Client) -> Iterator[bytes]:
    yield b"\xff\xff\xff\0\0\0\0\0\3"
    yield from (bytes(1 << 16) for _ in range(300))


FLOODS = {
    "rapid resets": rapid_resets,
    "made to reset": resets_that_the_daemon_is_made_to_send,
    "pings": repeated(PingFrame(0, b"12345678")),
    "settings": repeated(SettingsFrame(0, {3: 100})),
    "acknowledgements": repeated(PingFrame(0, b"12345678", flags=["ACK"])),
    "windows": repeated(WindowUpdateFrame(0, window_increment=1)),
    "priorities": repeated(PriorityFrame(3, depends_on=1, stream_weight=5)),
    "unknown frames": repeated(ExtensionFrame(0x77, 0, body=b"x")),
    "empty data": empty_data,
    "endless head": a_head_without_end,
    "head of nothing": a_head_of_nothing,
    "growing heads": heads_that_grow_when_they_are_read,
    "large frame": one_large_frame,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_ends_its_connection_and_costs_little(
    flood: Callable[[Http2Client], Iterator[bytes]],
    client: Http2Client,
    tls_daemon: DaemonProcess,
    tls_authority: Authority,
) -> None:
    pid = tls_daemon.process.pid
    descriptors, memory = descriptors_of(pid), resident_bytes(pid)
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as hostile:
        hostile.get("/health")
        cpu = cpu_seconds(pid)
        pieces = list(flood(hostile))
        for at in range(0, len(pieces), 100):
            hostile.send(b"".join(pieces[at : at + 100]))
            if hostile.is_closed:
                break
        try:
            hostile.sock.settimeout(5)
            while hostile.sock.recv(1 << 16):
                pass
        except OSError:
            pass
        assert cpu_seconds(pid) - cpu < 1.0
    assert client.get("/health").status == 200
    assert resident_bytes(pid) - memory < 8 << 20
    wait_until(lambda: descriptors_of(pid) <= descriptors)


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
