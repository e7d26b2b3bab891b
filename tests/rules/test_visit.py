"""A visit in virtual time: whoever asks for nothing is let go when it is time to go."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.config.sections import Listen
from broker.request import RequestRefused
from broker.visit import Visit, VisitorLeft

BOUNDS = Listen(head_seconds=10.0, idle_seconds=75.0)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with ours, peer:
        yield ours, peer


@pytest.mark.parametrize("waiting", [False, True])
async def test_who_is_dismissed_is_not_waited_for(
    waiting: bool, pair: tuple[socket.socket, socket.socket], autojump_clock: MockClock
) -> None:
    visit = Visit(pair[0], BOUNDS, trio.current_time())
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(VisitorLeft):
                await visit.read_request()

        if not waiting:
            visit.dismiss()
        nursery.start_soon(read)
        if waiting:
            await wait_all_tasks_blocked()
            visit.dismiss()
    assert trio.current_time() == begun


async def test_a_head_that_takes_too_long_is_refused_and_a_rest_is_not(
    pair: tuple[socket.socket, socket.socket], autojump_clock: MockClock
) -> None:
    ours, peer = pair
    visit = Visit(ours, BOUNDS, trio.current_time())
    peer.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    request = await visit.read_request()
    assert await visit.read_body(request) == b""
    begun = trio.current_time()
    with pytest.raises(VisitorLeft):
        await visit.read_request()
    assert trio.current_time() - begun == pytest.approx(BOUNDS.idle_seconds)

    late = Visit(ours, BOUNDS, trio.current_time())
    begun = trio.current_time()
    peer.sendall(b"GET / HTTP/1.1\r\n")
    with pytest.raises(RequestRefused) as caught:
        await late.read_request()
    assert (caught.value.status, trio.current_time() - begun) == (408, pytest.approx(BOUNDS.head_seconds))
