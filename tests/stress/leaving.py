"""Scenarios of leaving: at any moment, with a goodbye, with a reset, in the middle of a request, or with nonsense."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence

import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from tests.actors.followers import V1Follower
from tests.actors.peers import Peer, SsePeer, WebSocketPeer, _masked, pump
from tests.stress.house import aside
from tests.stress.room import Room
from tests.stress.scenario import Scenario

RESET = struct.pack("ii", 1, 0)
HANDSHAKE = (
    b"GET /ws?userId=u HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def _go(room: Room, peers: Sequence[Peer]) -> None:
    """Some with a goodbye of TCP, some with a reset."""
    for peer in peers:
        if room.dice.random() < 0.5:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()


@Scenario.among_others
async def gone_at_any_byte_of_a_request(room: Room) -> None:
    channel = room.channel()
    room.guest(V1Follower, channel)
    await room.live()
    requests = (HANDSHAKE, f"GET /api/stream?channel={channel} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    for _ in range(20):
        peers = []
        for _ in range(10):
            request = room.dice.choice(requests)
            peers.append(Peer(room.port(), request[: room.dice.randint(0, len(request))]))
        await trio.sleep(room.dice.random() * 0.01)
        _go(room, peers)
        await room.say(channel)
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def gone_in_the_middle_of_subscribing(room: Room) -> None:
    for _ in range(12):
        peers = [WebSocketPeer(room.port()) for _ in range(4)]
        for peer in peers:
            peer.subscribe(*(room.channel(room.dice.choice(("long", "passing"))) for _ in range(40)))
        await trio.sleep(room.dice.random() * 0.02)
        _go(room, peers)


@Scenario.among_others
async def streams_that_are_gone_at_once(room: Room) -> None:
    channels = [room.channel("recent") for _ in range(4)]
    for channel in channels:
        await room.say(channel, 5)
    for _ in range(15):
        peers = [SsePeer(room.port(), *room.dice.sample(channels, 3)) for _ in range(6)]
        await trio.sleep(room.dice.random() * 0.02)
        _go(room, peers)


@Scenario.among_others
async def close_handshakes_of_all_kinds(room: Room) -> None:
    channel = room.channel()

    async def visit(code: int) -> None:
        async with open_websocket_url(room.daemon().ws_url) as connection:
            await connection.send_message(json.dumps({"type": "subscribe", "channel": channel}))
            await connection.aclose(code, "bye")
            try:
                while True:
                    await connection.get_message()
            except ConnectionClosed as closed:
                assert closed.reason is not None and closed.reason.code == code, closed.reason

    async with trio.open_nursery() as nursery:
        for code in (1000, 1001, 1003, 1008, 3000, 4000, 4999) * 5:
            nursery.start_soon(visit, code)
        for _ in range(10):
            await room.say(channel, 5)


@Scenario.among_others
async def nonsense_in_frames(room: Room) -> None:
    """Each is ended with the code that its mistake has, and who reads beside it loses nothing."""
    channel = room.channel()
    room.guest(V1Follower, channel)
    await room.live()
    mistakes = {
        b"\x81\x05hello": 1002,  # not masked
        _masked(3, b""): 1002,  # no such opcode
        _masked(1, b"\xff\xfe"): 1007,
        _masked(9, b"x" * 126): 1002,  # a ping that is too large
        b"\xc1\x80\0\0\0\0": 1002,  # a reserved bit
        _masked(8, b"\x03"): 1002,
        _masked(8, struct.pack("!H", 1005)): 1002,
        _masked(0, b"x"): 1002,  # goes on with nothing
        b"\x81\xff" + struct.pack("!Q", 1 << 40) + bytes(4 + 66_000): 1009,
    }
    for frame, code in mistakes.items():
        peer = WebSocketPeer(room.port())
        peer.subscribe(channel)
        peer.socket.setblocking(True)
        peer.socket.sendall(frame)
        peer.socket.setblocking(False)
        await room.say(channel)
        await aside(pump, [peer], lambda peer=peer: peer.ended)
        peer.parse()
        assert peer.close_code == code, (frame[:20], peer.close_code)
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def commands_that_nobody_knows(room: Room) -> None:
    texts = ("{", "[]", "1", '"x"', "null", '{"type":1}', '{"type":"what"}', '{"type":"subscribe"}')
    texts += (
        '{"type":"subscribe","channel":"a b"}',
        '{"type":"subscribe","channel":"broker:x"}',
        '{"type":"subscribe","channel":{}}',
    )
    async with room.talker() as talker:
        for text in room.dice.choices(texts, k=100):
            await talker.connection.send_message(text)
        for _ in range(100):
            assert (await talker.hear("error"))["code"] != "internal_error"
        assert (await talker.subscribe(room.channel()))["success"]


@Scenario.among_others
async def streams_whose_client_says_it_sends_no_more(room: Room) -> None:
    """A half-closed client is a client: some tools do so."""
    channel = room.channel()
    peer = SsePeer(room.port(), channel)
    await aside(pump, [peer], lambda: peer.is_open)
    peer.socket.shutdown(socket.SHUT_WR)
    await trio.sleep(0.1)
    await room.say(channel, 10)
    await aside(pump, [peer], lambda: peer.ended or peer.raw.count(b'"by"') == 10)
    peer.close()
