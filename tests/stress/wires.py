"""Scenarios of bad wires between clients and daemons: late, cut, stalled, lossy, half-closed (`tests.actors.proxy`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from broker.subscriber import Notice, subscribe
from tests.actors.followers import Follower
from tests.actors.proxy import Proxy, proxy_to
from tests.stress.room import KINDS, PLACED, Room
from tests.stress.scenario import Scenario


@asynccontextmanager
async def clients_behind_a_wire(room: Room, kinds: Sequence[type[Follower]], *channels: str) -> AsyncIterator[Proxy]:
    """Live clients, and the wire that they all come over; in the end they have everything, and no gap was told."""
    async with proxy_to(room.port()) as wire:
        for kind in kinds:
            room.guest(kind, *channels, port=wire.port)
        await room.live()
        yield wire
        await room.all_have_all()
        room.no_gaps()
        room.end()


@Scenario.among_others
async def a_long_wire(room: Room) -> None:
    channel = room.channel()
    async with clients_behind_a_wire(room, KINDS * 2, channel) as wire:
        wire.delay(0.08)
        for _ in range(10):
            await room.say(channel, 10)


@Scenario.among_others
async def a_wire_that_is_cut_after_any_byte(room: Room) -> None:
    channels = [room.channel(), room.channel()]
    async with clients_behind_a_wire(room, PLACED * 3, *channels) as wire:
        for _ in range(25):
            wire.cut_after(room.dice.randint(1, 4000), room.dice.choice(("down", "down", "up")))
            await room.say(room.dice.choice(channels), 5, pad=100)
            await trio.sleep(0.02)


@Scenario.among_others
async def a_wire_that_stands_still_for_a_while(room: Room) -> None:
    channel = room.channel()
    async with clients_behind_a_wire(room, PLACED * 2, channel) as wire:
        for _ in range(3):
            wire.stall()
            await room.say(channel, 40, pad=1000)
            await trio.sleep(0.1)
            wire.flow()
            await room.say(channel, 5)


@Scenario.among_others
async def a_wire_that_loses_what_is_sent(room: Room) -> None:
    """Half-open: neither side hears of it, until it is cut."""
    channel = room.channel()
    async with clients_behind_a_wire(room, PLACED * 2, channel) as wire:
        for way in ("down", "up"):
            await room.say(channel, 5)
            await room.all_have_all()
            wire.lose(way)  # type: ignore[arg-type]
            await room.say(channel, 30)
            await trio.sleep(0.1)
            wire.cut()
            wire.flow()
        await room.say(channel, 5)


@Scenario.among_others
async def a_wire_that_nobody_gets_through(room: Room) -> None:
    channel = room.channel()
    async with clients_behind_a_wire(room, PLACED * 2, channel) as wire:
        for _ in range(4):
            wire.shut()
            await room.say(channel, 10)
            await trio.sleep(room.dice.random() * 0.2)
            wire.open()
            await trio.sleep(room.dice.random() * 0.1)


@Scenario.among_others
async def a_wire_that_is_half_closed(room: Room) -> None:
    channel = room.channel()
    async with clients_behind_a_wire(room, PLACED * 2, channel) as wire:
        for _ in range(4):
            wire.half_close(room.dice.choice(("up", "down")))
            await room.say(channel, 10)
            await trio.sleep(0.05)
        wire.cut()
        await room.say(channel, 10)


@Scenario.among_others
async def our_subscriber_behind_a_wire_that_is_cut(room: Room) -> None:
    channels, notices = [room.channel(), room.channel()], list[Notice]()
    heard: dict[str, list[int]] = {channel: [] for channel in channels}
    async with (
        proxy_to(room.port()) as wire,
        subscribe(wire.url, channels, on_notice=notices.append) as events,
    ):
        for turn in range(8):
            for channel in channels:
                await room.say(channel, 10, pad=50)
            if turn < 7:
                wire.cut_after(room.dice.randint(1, 3000))
            with trio.move_on_after(0.1):
                while True:
                    _note(heard, (await anext(events)).data)
        while sum(map(len, heard.values())) < 160:
            _note(heard, (await anext(events)).data)
        assert all(numbers == list(range(1, 81)) for numbers in heard.values()), heard
        assert events.statistics().reconnects > 0
    assert not [notice for notice in notices if notice.kind == "gap"]


def _note(heard: dict[str, list[int]], data: dict[str, object]) -> None:
    heard[str(data["c"])].append(int(str(data["n"])))
