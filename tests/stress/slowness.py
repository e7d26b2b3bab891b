"""Scenarios of slow clients: each meets its channel's policy, and those beside it notice nothing."""

from __future__ import annotations

import trio

from tests.actors.followers import SseFollower, V1Follower, WebSocketFollower
from tests.actors.peers import SsePeer, WebSocketPeer, pump
from tests.promise.oracle import STAMPED
from tests.stress.house import aside
from tests.stress.room import PLACED, Room
from tests.stress.scenario import Scenario

BUFFER = 4096
PAD = 8000
"""With these, some hundred events are more than the kernel and an outbox hold."""


@Scenario.among_others
async def slow_ones_catch_up_from_history(room: Room) -> None:
    channel = room.channel()
    slow = [room.guest(kind, channel, receive_buffer=BUFFER) for kind in PLACED * 2]
    room.guest(V1Follower, channel)
    await room.live()
    for guest in slow:
        guest.stall()
    for _ in range(10):
        await room.say(channel, 40, pad=PAD)
    for guest in slow:
        guest.go_on()
    await room.say(channel, 5)
    await room.all_have_all(30.0)
    room.no_gaps()


@Scenario.among_others
async def slow_ones_lose_the_oldest_and_are_told_how_many(room: Room) -> None:
    channel = room.channel("dropping")
    slow = [room.guest(kind, channel, receive_buffer=BUFFER) for kind in PLACED * 2]
    room.guest(V1Follower, channel)
    await room.live()
    for guest in slow:
        guest.stall()
    # Not faster than those who do read: they are to lose nothing.
    for _ in range(80):
        await room.say(channel, 5, pad=PAD)
    await trio.sleep(0.2)
    for guest in slow:
        guest.go_on()
    await room.say(channel, 5)
    await room.all_have_all(30.0)
    room.check_records()
    for guest in slow:
        reasons = [gap.reason for gap in guest.follower.gaps()]
        assert "overflow" in reasons and set(reasons) <= {"overflow", "trimmed"}, reasons


@Scenario.among_others
async def slow_ones_get_the_newest(room: Room) -> None:
    channel = room.channel("newest")
    slow = [WebSocketPeer(room.port(), receive_buffer=BUFFER) for _ in range(3)]
    for peer in slow:
        peer.subscribe(channel)
    await aside(pump, slow, lambda: all(peer.events("subscribed") for peer in slow))
    for _ in range(60):
        await room.say(channel, 5, pad=3 * PAD)
    last = room.truths[channel].published[STAMPED]
    # Asked by its bytes: to decode everything each time would take longer than to read it.
    await aside(pump, slow, lambda: all(b'"n": %d,' % last in peer.raw[-4 * PAD :] for peer in slow))
    await aside(pump, slow, lambda: not any(peer.is_cut_off for peer in slow))
    for peer in slow:
        numbers = [event["n"] for event in peer.events("stress")]
        assert numbers == sorted(set(numbers)) and len(numbers) < last == numbers[-1], numbers[-5:]
        peer.close()


@Scenario.among_others
async def slow_ones_are_ended_where_there_is_no_history(room: Room) -> None:
    channel = room.channel("passing")
    socket = WebSocketPeer(room.port(), receive_buffer=BUFFER)
    socket.subscribe(channel)
    stream = SsePeer(room.port(), channel, receive_buffer=BUFFER)
    healthy = [room.guest(WebSocketFollower, channel), room.guest(V1Follower, channel)]
    await room.live()
    await aside(pump, [socket, stream], lambda: socket.events("subscribed") and stream.is_open)
    for _ in range(80):
        await room.say(channel, 5, pad=PAD)
    await room.all_have_all()
    await aside(pump, [socket, stream], lambda: socket.ended and stream.ended)
    socket.parse()
    # Who reads nothing at all may be cut off before its goodbye.
    assert socket.close_code in (4001, None)
    room.no_gaps()
    assert [guest.follower.endings for guest in healthy] == [0, 0]


@Scenario.among_others
async def a_trickling_reader_gets_everything(room: Room) -> None:
    channel = room.channel()
    for kind in PLACED:
        room.guest(kind, channel, receive_buffer=BUFFER, trickle=2048)
    await room.live()
    for _ in range(10):
        await room.say(channel, 10, pad=300)
    await room.all_have_all(30.0)
    room.no_gaps()


@Scenario.among_others
async def stopping_and_going_on_all_the_time(room: Room) -> None:
    channels = [room.channel() for _ in range(2)]
    guests = [room.guest(PLACED[number % 2], *channels, receive_buffer=BUFFER) for number in range(8)]
    await room.live()
    for _ in range(40):
        guest = room.dice.choice(guests)
        guest.go_on() if guest.follower.is_stalled else guest.stall()
        await room.say(room.dice.choice(channels), 4, pad=2000)
        if room.dice.random() < 0.2:
            guest.cut(room.dice.randrange(2000))
    for guest in guests:
        guest.go_on()
    await room.all_have_all(30.0)
    room.no_gaps()


@Scenario.among_others
async def a_slow_one_leaves_in_the_middle(room: Room) -> None:
    channel = room.channel()
    healthy = room.guest(SseFollower, channel)
    await room.live()
    for _ in range(6):
        slow = [room.guest(kind, channel, receive_buffer=BUFFER) for kind in PLACED]
        await room.live()
        for guest in slow:
            guest.stall()
        await room.say(channel, 60, pad=PAD)
        for guest in slow:
            guest.leave()
    await room.all_have_all()
    assert healthy.follower.gaps() == []
    room.check_records()
