"""Scenarios that hurt everybody, each alone: Redis killed, frozen, emptied, cut off; daemons that go, stop and come."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from broker.subscriber import Notice, subscribe
from tests.stress.guest import Guest
from tests.stress.house import aside
from tests.stress.room import PLACED, Room
from tests.stress.scenario import Scenario

GUESTS = 24


@asynccontextmanager
async def _busy(room: Room, *channels: str) -> AsyncIterator[list[Guest]]:
    """Guests on all daemons while services insist on the channels. In the end all have everything, or were told."""
    guests = []
    for number in range(GUESTS):
        daemon = room.daemons[number % len(room.daemons)]
        names = room.dice.sample(channels, min(2, len(channels)))
        guests.append(room.guest(PLACED[number // len(room.daemons) % 2], *names, port=daemon.port))
    await room.live()
    is_over = trio.Event()
    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(room.chatter, [channel], is_over, 0.01)
        await trio.sleep(0.2)
        yield guests
        await trio.sleep(0.2)
        is_over.set()
    for channel in channels:
        await room.insist(channel)
    await room.all_have_all()
    room.check_records()


@Scenario.alone
async def redis_is_killed_and_comes_back(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()):
        for _ in range(2):
            await aside(room.house.redis_server.kill)
            await trio.sleep(room.dice.random() * 0.3)
            await aside(room.house.redis_server.start)
            await room.house.settled()
    room.no_gaps()


@Scenario.alone
async def redis_cuts_everybody_off(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()):
        with room.house.redis_server.client() as client:
            for _ in range(6):
                kind = room.dice.choice(("pubsub", "normal"))
                await aside(client.execute_command, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                await trio.sleep(room.dice.random() * 0.4)
    room.no_gaps()


@Scenario.alone
async def redis_stands_still(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()):
        for _ in range(2):
            room.house.redis_server.freeze()
            try:
                await trio.sleep(0.3 + room.dice.random())
            finally:
                room.house.redis_server.thaw()
            await trio.sleep(0.2)
    room.no_gaps()


@Scenario.alone
async def redis_is_emptied(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()) as guests:
        with room.house.redis_server.client() as client:
            await aside(client.execute_command, "FLUSHALL")
            await aside(client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
        await room.house.settled()
    for guest in guests:
        assert {gap.reason for gap in guest.follower.gaps()} & {"epoch_changed", "recorder_changed"}


@Scenario.alone
async def a_daemon_is_killed(room: Room) -> None:
    """Its clients go elsewhere, with their places."""
    async with _busy(room, room.channel(), room.channel()) as guests:
        killed = room.daemon()
        await room.house.stop(killed, signal.SIGKILL)
        others = [daemon for daemon in room.daemons if daemon is not killed]
        for guest in guests:
            if guest.follower.port == killed.port:
                guest.go_to(room.dice.choice(others or [killed]).port)
        await trio.sleep(0.3)
        await room.house.start(killed)
        await room.house.settled()
    room.no_gaps()


@Scenario.alone
async def a_daemon_is_stopped_in_order(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()) as guests:
        stopped = room.daemon()
        assert await room.house.stop(stopped) == 0
        assert all(guest.follower.endings for guest in guests if guest.follower.port == stopped.port)
        await room.house.start(stopped)
        await room.house.settled()
    room.no_gaps()


@Scenario.alone
async def all_daemons_are_started_again_one_by_one(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()):
        for daemon in room.daemons:
            assert await room.house.stop(daemon) == 0
            await room.house.start(daemon)
            await room.house.settled()
    room.no_gaps()


@Scenario.alone
async def the_recorder_goes_while_plain_events_come(room: Room) -> None:
    """It hands over: nothing is missed, and nobody is told anything."""
    channel = room.channel()
    others = [daemon for daemon in room.daemons if daemon is not await room.house.recorder()]
    recorder = await room.house.recorder()
    if not others:
        return
    for number in range(8):
        room.guest(PLACED[number % 2], channel, port=others[number // 2 % len(others)].port)
    await room.live()
    is_over = trio.Event()

    async def speak() -> None:
        while not is_over.is_set():
            await room.say_plainly(channel)
            await trio.sleep(0.005)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        await trio.sleep(0.2)
        assert await room.house.stop(recorder) == 0
        await trio.sleep(0.3)
        is_over.set()
    await room.all_have_all()
    room.no_gaps()
    await room.house.start(recorder)


@Scenario.alone
async def a_daemon_stands_still(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()):
        process = room.daemon().process
        process.send_signal(signal.SIGSTOP)
        try:
            await trio.sleep(1.5)
        finally:
            process.send_signal(signal.SIGCONT)
    room.no_gaps()


@Scenario.alone
async def settings_are_read_again(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()) as guests:
        for _ in range(6):
            for daemon in room.daemons:
                room.house.reload(daemon)
            await trio.sleep(0.15)
    room.no_gaps()
    assert sum(guest.follower.endings for guest in guests) == 0


@Scenario.alone
async def everything_is_written_to_the_log(room: Room) -> None:
    async with _busy(room, room.channel(), room.channel()) as guests:
        for _ in range(4):
            for daemon in room.daemons:
                daemon.process.send_signal(signal.SIGUSR1)
            await trio.sleep(0.1)
    room.no_gaps()
    assert sum(guest.follower.endings for guest in guests) == 0


@Scenario.alone
async def our_own_clients_live_through_all_of_it(room: Room) -> None:
    """Subscribers of ours, and publishers that insist: Redis and a daemon are killed."""
    channel, notices = room.channel(), list[Notice]()
    daemon = room.daemon()
    async with subscribe(daemon.url, [channel], on_notice=notices.append) as events, trio.open_nursery() as nursery:
        nursery.start_soon(room.insist, channel, 100)
        heard = []
        while len(heard) < 100:
            heard.append((await anext(events)).data["n"])
            if len(heard) == 30:
                await room.house.stop(daemon, signal.SIGKILL)
                await room.house.start(daemon)
            if len(heard) == 60:
                await aside(room.house.redis_server.kill)
                await aside(room.house.redis_server.start)
    assert heard == list(range(1, 101))
    assert not [notice for notice in notices if notice.kind == "gap"], notices
