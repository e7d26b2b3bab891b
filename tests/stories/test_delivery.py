"""Many messages to many clients: complete, in order, byte for byte; and nobody pays for a reader that stalls."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import (
    Peer,
    SsePeer,
    WebSocketPeer,
    frames,
    open_streams,
    open_websockets,
    pump,
    stream,
    wait_until,
)
from tests.actors.redis_server import RedisServer

MIB = 1024 * 1024
CHANNEL = "feed:42"


def numbered(count: int, size: int = 0, first: int = 0) -> list[bytes]:
    return [b'{"n":%d,"pad":"%b"}' % (number, b"x" * size) for number in range(first, first + count)]


def assert_delivered(peer: Peer, payloads: list[bytes], mark: int) -> None:
    """Exactly `payloads` came after the first `mark` bytes."""
    if isinstance(peer, SsePeer):
        body = bytes(peer.parse())
        assert body[body.index(b"\n\n") + 2 :] == stream(payloads)
    else:
        assert bytes(peer.raw[mark:]) == frames(payloads)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_thousand_messages_to_a_hundred_clients_in_order_and_complete(
    redis_server: RedisServer, daemon: DaemonProcess
) -> None:
    websockets = open_websockets(daemon.port, 50, CHANNEL)
    streams = open_streams(daemon.port, 50, CHANNEL)
    peers: list[Peer] = [*websockets, *streams]
    marks = [len(peer.raw) for peer in peers]
    payloads = numbered(10_000)
    for start in range(0, len(payloads), 500):
        redis_server.publish(CHANNEL, *payloads[start : start + 500])
    last = payloads[-1]
    pump(
        peers,
        lambda: (
            all(peer.raw.endswith(last) for peer in websockets)
            and all(peer.raw.endswith(last + b"\n\n\r\n") for peer in streams)
        ),
        30,
    )
    for peer, mark in zip(peers, marks, strict=True):
        assert_delivered(peer, payloads, mark)
        peer.close()
    stats = daemon.stats()
    assert stats["delivery"]["messages"] == stats["redis"]["messages"] == 10_000
    assert stats["delivery"]["deliveries"] == 1_000_000
    assert (stats["websocket"]["totalEvents"], stats["sse"]["totalEvents"]) == (500_000, 500_000)


def publish_until(
    redis_server: RedisServer, healthy: list[Peer], done: Callable[[], bool], *, most: int
) -> list[bytes]:
    """Publish a quarter of a MiB at a time, each read by the healthy before the next, until `done`."""
    payloads: list[bytes] = []
    while not done():
        assert len(payloads) < most // 1024, "the stalled client was never ended"
        batch = numbered(256, 1000, len(payloads))
        redis_server.publish(CHANNEL, *batch)
        payloads += batch
        ends = (batch[-1], batch[-1] + b"\n\n\r\n")
        pump(healthy, lambda ends=ends: all(peer.raw.endswith(ends) for peer in healthy))
    return payloads


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_a_stalled_reader_is_ended_for_its_bytes_and_nobody_else_notices(
    transport: str, redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, "--clients-farewell-seconds", "0.3")
    stalled: WebSocketPeer | SsePeer
    if transport == "websocket":
        (stalled,) = open_websockets(daemon.port, 1, CHANNEL, receive_buffer=4096)
    else:
        (stalled,) = open_streams(daemon.port, 1, CHANNEL, receive_buffer=4096)
    healthy: list[Peer] = [*open_websockets(daemon.port, 3, CHANNEL), *open_streams(daemon.port, 3, CHANNEL)]
    marks = [len(peer.raw) for peer in healthy]
    before = resident_bytes(daemon.process.pid)
    payloads = publish_until(
        redis_server, healthy, lambda: daemon.stats()["delivery"]["endings"] == {"outbox_full": 1}, most=64 * MIB
    )
    assert resident_bytes(daemon.process.pid) - before < 12 * MIB
    for peer, mark in zip(healthy, marks, strict=True):
        assert_delivered(peer, payloads, mark)
        assert not peer.ended
    pump([stalled], lambda: stalled.ended)


def test_a_stalled_reader_that_reads_again_is_told_why_and_sees_whole_frames_only(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(redis_server.url, "--clients-farewell-seconds", "20")
    stalled: list[WebSocketPeer | SsePeer] = [
        *open_websockets(daemon.port, 1, CHANNEL, receive_buffer=4096),
        *open_streams(daemon.port, 1, CHANNEL, receive_buffer=4096),
    ]
    healthy: list[Peer] = list(open_websockets(daemon.port, 1, CHANNEL))

    def alive() -> list[bool]:
        listed = daemon.stats()["websocket"]["clients"]
        return [client["isAlive"] for client in listed]

    publish_until(redis_server, healthy, lambda: sorted(alive()) == [False, True], most=64 * MIB)
    websocket, events = stalled
    assert isinstance(websocket, WebSocketPeer)
    assert isinstance(events, SsePeer)

    def told() -> bool:
        websocket.parse()
        return websocket.close_code is not None and events.is_complete

    pump(stalled, told)
    websocket.send_close(4001)
    pump(stalled, lambda: all(peer.ended for peer in stalled))
    for peer in stalled:
        peer.close()
    wait_until(lambda: daemon.stats()["delivery"]["endings"] == {"outbox_full": 2})
    assert websocket.close_code == 4001
    assert not websocket.is_cut_off
    assert events.blocks[-1].startswith(b"event: error\ndata: ")
    assert "client too slow" in json.loads(events.blocks[-1].split(b"data: ")[1])["error"]
    for peer, found in ((websocket, websocket.texts[2:]), (events, [block[6:] for block in events.blocks[1:-1]])):
        numbers = [json.loads(text)["n"] for text in found]
        assert numbers == list(range(len(numbers))), peer


def test_a_stalled_reader_of_little_is_ended_for_its_age(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(
        redis_server.url,
        *("--clients-outbox-max-age-seconds", "0.5", "--clients-outbox-max-bytes", str(512 * MIB)),
        *("--limits-outbox-total-bytes", str(1024 * MIB)),
        *("--clients-farewell-seconds", "0.3"),
    )
    (stalled,) = open_websockets(daemon.port, 1, CHANNEL, receive_buffer=4096)
    healthy: list[Peer] = [*open_websockets(daemon.port, 2, CHANNEL), *open_streams(daemon.port, 1, CHANNEL)]
    marks = [len(peer.raw) for peer in healthy]
    payloads = publish_until(
        redis_server, healthy, lambda: daemon.stats()["delivery"]["endings"] == {"outbox_stale": 1}, most=256 * MIB
    )
    for peer, mark in zip(healthy, marks, strict=True):
        assert_delivered(peer, payloads, mark)
    assert not stalled.ended or stalled.was_reset


def test_a_slow_reader_gets_everything_once_in_order_and_byte_for_byte(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(
        redis_server.url, "--clients-outbox-max-bytes", str(64 * MIB), "--clients-outbox-max-age-seconds", "60"
    )
    slow: list[Peer] = [
        *open_websockets(daemon.port, 1, CHANNEL, receive_buffer=8192),
        *open_streams(daemon.port, 1, CHANNEL, receive_buffer=8192),
    ]
    (healthy,) = open_websockets(daemon.port, 1, CHANNEL)
    marks = [len(peer.raw) for peer in slow]
    payloads: list[bytes] = []
    rhythm = (1, 100, 4000, 65_536)
    for turn in range(40):
        # Sizes that make frames of every kind of head, and writes that end in odd places.
        batch = [b'{"n":%d,"pad":"%b"}' % (len(payloads) + i, b"y" * (i * 97 % 1500)) for i in range(400)]
        batch[7] = b'{"n":%d,"pad":"%b"}' % (len(payloads) + 7, b"z" * 70_000)
        redis_server.publish(CHANNEL, *batch)
        payloads += batch
        for peer in slow:
            peer.read(rhythm[turn % 4])
        pump([healthy], lambda end=batch[-1]: healthy.raw.endswith(end))
    total = sum(map(len, payloads))
    # The kernel cannot hold that much: most of it waits in the outbox.
    assert all(len(peer.raw) < total / 4 for peer in slow)
    ends = (payloads[-1], payloads[-1] + b"\n\n\r\n")
    pump(slow, lambda: all(peer.raw.endswith(ends) for peer in slow))
    for peer, mark in zip(slow, marks, strict=True):
        assert_delivered(peer, payloads, mark)
    assert daemon.stats()["delivery"]["endings"] == {}
