"""The SSE side of a client, between a hub and a socket pair."""

from __future__ import annotations

import socket

import trio
import trio.testing

from broker.auth.identity import NOBODY
from broker.client import Client
from broker.config.sections import Clients, Sse
from broker.ending import COMPLETE
from broker.sse import EventStream
from broker.stream import Stream
from tests.rules.test_hub import FakeUpstream, hub_on


async def test_nothing_comes_behind_the_end_of_a_stream() -> None:
    """Also where the next dispatch comes before the client's task has had a turn."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    hub = hub_on(FakeUpstream(live={b"video_render:7"}))
    client = Client("sse_1", "sse", NOBODY, ours, Clients())
    names = (b"video_render:7",)
    endings = []

    async def run() -> None:
        endings.append(
            await client.run(
                lambda client: EventStream(client, Sse(), False, b"", hub, names, Stream((), True), lambda: False)
            )
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        hub.dispatch({b"video_render:7": [b'{"stage":"complete"}']}, trio.current_time())
        hub.dispatch({b"video_render:7": [b'{"stage":"late"}', b'{"stage":"complete"}']}, trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        peer.setblocking(False)
        heard = peer.recv(1 << 16)
        peer.close()
    assert endings == [COMPLETE]
    assert heard.count(b"event: complete") == 1
    assert b"late" not in heard


async def test_a_stream_says_why_it_waits() -> None:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    hub = hub_on(FakeUpstream())
    client = Client("sse_1", "sse", NOBODY, ours, Clients())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            client.run,
            lambda client: EventStream(client, Sse(), False, b"HEAD ", hub, (b"a",), Stream((), False), lambda: True),
        )
        await trio.testing.wait_all_tasks_blocked()
        assert peer.recv(1 << 16) == b"HEAD : waiting for Redis\n\n"
        peer.close()
