"""Scenarios of coming back: with a place, without one, with a wrong one, after much was said or all was lost."""

from __future__ import annotations

import httpx_sse
import trio

from broker.history.keys import Keys
from broker.subscriber import Notice, subscribe
from tests.actors.followers import SseFollower, V1Follower
from tests.stress.house import SHORT_LENGTH, aside
from tests.stress.room import PLACED, Room
from tests.stress.scenario import Scenario


@Scenario.among_others
async def cut_at_any_byte(room: Room) -> None:
    channels = [room.channel() for _ in range(3)]
    guests = [room.guest(PLACED[number % 2], *room.dice.sample(channels, 2)) for number in range(12)]
    await room.live()
    is_over = trio.Event()
    room.nursery.start_soon(room.chatter, channels, is_over, 0.002)
    for _ in range(150):
        guest = room.dice.choice(guests)
        guest.go_to(room.port())
        guest.cut(room.dice.randrange(600))
        await trio.sleep(0.01)
    is_over.set()
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def away_while_much_is_said(room: Room) -> None:
    channel = room.channel()
    guests = [room.guest(kind, channel) for kind in PLACED * 3]
    await room.live()
    await room.say(channel, 3)
    await room.all_have_all()
    for guest in guests:
        guest.leave()
    for _ in range(20):
        await room.say(channel, 50)
    for guest in guests:
        guest.go_to(room.port())
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def away_for_longer_than_the_history(room: Room) -> None:
    channel = room.channel("short")
    guests = [room.guest(kind, channel) for kind in PLACED * 2]
    await room.live()
    await room.say(channel, 3)
    await room.all_have_all()
    for guest in guests:
        guest.leave()
    await room.say(channel, 3 * SHORT_LENGTH)
    for guest in guests:
        guest.go_to(room.port())
    await room.all_have_all()
    room.check_records()
    assert [[gap.reason for gap in guest.follower.gaps()] for guest in guests] == [["trimmed"]] * 4


@Scenario.among_others
async def a_place_that_no_channel_has(room: Room) -> None:
    kept, passing = room.channel("recent"), room.channel("passing")
    await room.say(kept, 5)
    for since in ("0:0:0", "1:2:3", "x" * 40, ""):
        async with room.talker(subprotocols=["broker.v1"]) as talker:
            answer = await talker.subscribe(kept, since=since)
            assert answer["recovered"] is False
            gap = await talker.hear("gap")
            assert gap["reason"] in ("unknown_position", "epoch_changed"), gap
            answer = await talker.subscribe(passing, since=since)
            assert (answer["position"], answer["recovered"]) == (None, False)
            assert (await talker.hear("gap"))["reason"] == "no_history"


@Scenario.among_others
async def history_is_trimmed_and_deleted_under_the_readers(room: Room) -> None:
    channels, keys = [room.channel() for _ in range(2)], Keys("")
    guests = [room.guest(PLACED[number % 2], *channels) for number in range(8)]
    await room.live()
    for turn in range(6):
        channel = channels[turn % 2]
        for guest in guests[turn::3]:
            guest.leave()
        await room.say(channel, 30)
        with room.house.redis_server.client() as client:
            if turn % 3 == 2:
                await aside(client.delete, keys.top(channel), keys.events(channel))
            else:
                await aside(client.execute_command, "XTRIM", keys.events(channel), "MAXLEN", 5)
        for guest in guests:
            guest.go_to(room.port())
        await room.say(channel, 5)
        await room.all_have_all()
    room.check_records()
    reasons = {gap.reason for guest in guests for gap in guest.follower.gaps()}
    assert reasons >= {"trimmed", "epoch_changed"}, reasons


@Scenario.among_others
async def a_herd_comes_back(room: Room) -> None:
    channel = room.channel()
    guests = [room.guest(PLACED[number % 2], channel) for number in range(50)]
    await room.live()
    for _ in range(4):
        for guest in guests:
            guest.go_to(room.port())
            guest.cut()
        await room.say(channel, 20)
        await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def a_program_stores_its_places_and_starts_again(room: Room) -> None:
    """Our own subscriber, each time a new one, anywhere."""
    channels = [room.channel() for _ in range(3)]
    heard: dict[str, list[int]] = {channel: [] for channel in channels}
    places: dict[str, str] = {}
    gaps: list[Notice] = []
    for turn in range(8):
        url = room.daemon().url
        notices: list[Notice] = []
        async with subscribe(url, channels, since=places, on_notice=notices.append) as events:
            for channel in channels:
                await room.say(channel, room.dice.randint(1, 12))
            if turn == 7:
                while any(heard[channel][-1:] != [room.truths[channel].published["stamped"]] for channel in channels):
                    _note(heard, await anext(events))
            else:
                for _ in range(room.dice.randint(1, 12)):
                    with trio.move_on_after(0.2):
                        _note(heard, await anext(events))
            places = events.positions
        gaps += [notice for notice in notices if notice.kind == "gap"]
    assert gaps == []
    for channel in channels:
        assert heard[channel] == list(range(1, room.truths[channel].published["stamped"] + 1))


@Scenario.among_others
async def an_event_source_comes_back_anywhere(room: Room) -> None:
    """A client that nobody here wrote gives its last id back, to another daemon each time."""
    channels = [room.channel(), room.channel("recent")]
    heard: dict[str, list[int]] = {channel: [] for channel in channels}
    last, count = "", 0
    for turn in range(10):
        daemon = room.daemons[turn % len(room.daemons)]
        headers = {"Last-Event-ID": last} if last else {}
        params = {"channel": channels}
        async with httpx_sse.aconnect_sse(
            room.house.http, "GET", f"{daemon.url}/api/stream", params=params, headers=headers
        ) as source:
            events = source.aiter_sse()
            last = (await anext(events)).id
            for channel in channels:
                await room.say(channel, 4)
            count += 8
            due = count if turn == 9 else count - room.dice.randint(0, 6)
            while sum(map(len, heard.values())) < due:
                event = await anext(events)
                assert event.event == "message", event
                heard[event.json()["c"]].append(event.json()["n"])
                last = event.id
    assert all(numbers == list(range(1, 41)) for numbers in heard.values()), heard


@Scenario.among_others
async def some_say_the_same_place_at_once(room: Room) -> None:
    channel = room.channel()
    first = room.guest(V1Follower, channel)
    await room.live()
    await room.say(channel, 2)
    await room.all_have_all()
    assert isinstance(first.follower, V1Follower)
    place = first.follower.places[channel]
    await room.say(channel, 40)
    wanted = list(range(3, 43))

    async def come(via: str) -> None:
        if via == "ws":
            async with room.talker(subprotocols=["broker.v1"]) as talker:
                assert (await talker.subscribe(channel, since=place))["recovered"] is True
                while len(talker.numbers()) < 40:
                    await talker.hear("event")
                assert talker.numbers() == wanted
            return
        guest = room.guest(SseFollower, channel)
        assert isinstance(guest.follower, SseFollower)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(come, ("ws", "sse")[number % 2])
    await room.all_have_all()


def _note(heard: dict[str, list[int]], event: object) -> None:
    data = event.data  # type: ignore[attr-defined]
    heard[data["c"]].append(data["n"])
