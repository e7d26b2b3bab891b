"""Scenarios of subscribing: coming, being many, having many channels, and changing one's mind."""

from __future__ import annotations

import json

import httpx_sse
import trio

from tests.actors.followers import SseFollower, V1Follower, WebSocketFollower
from tests.stress.room import KINDS, Room
from tests.stress.scenario import Scenario


@Scenario.among_others
async def one_channel_and_many_clients(room: Room) -> None:
    channel = room.channel()
    await room.mixed_guests(36, channel)
    for _ in range(10):
        await room.say(channel, 8)
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def one_client_and_many_channels(room: Room) -> None:
    channels = [room.channel(room.dice.choice(("long", "passing"))) for _ in range(120)]
    room.guest(V1Follower, *channels)
    room.guest(WebSocketFollower, *channels)
    await room.live()
    for channel in room.dice.sample(channels * 2, 240):
        await room.say(channel)
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def streams_of_as_many_channels_as_may_be(room: Room) -> None:
    channels = [room.channel() for _ in range(32)]
    guests = [room.guest(SseFollower, *room.dice.sample(channels, 32)) for _ in range(4)]
    await room.live()
    for turn in range(4):
        for channel in channels:
            await room.say(channel)
        guests[turn].cut(room.dice.randrange(400))
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def clients_come_while_events_flow(room: Room) -> None:
    """The seam between history and live, over and over."""
    channels, is_over = [room.channel(), room.channel("recent"), room.channel()], trio.Event()

    async def flow(channel: str) -> None:
        while not is_over.is_set():
            await room.say(channel, room.dice.randint(1, 10), pad=500)

    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(flow, channel)
        for _ in range(40):
            room.guest(room.dice.choice(KINDS), *room.dice.sample(channels, room.dice.randint(1, 3)))
            await trio.sleep(room.dice.random() * 0.03)
        await room.live()
        is_over.set()
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def a_newcomer_is_told_the_newest_events(room: Room) -> None:
    channel = room.channel("recent")
    await room.say(channel, 10)
    async with room.talker(subprotocols=["broker.v1"]) as talker:
        assert (await talker.subscribe(channel))["replay"] == 3
        await room.say(channel, 2)
        while len(talker.numbers()) < 5:
            await talker.hear("event")
        assert talker.numbers() == [8, 9, 10, 11, 12]


@Scenario.among_others
async def a_client_changes_its_mind_all_the_time(room: Room) -> None:
    channel, is_over = room.channel("passing"), trio.Event()
    async with room.talker(subprotocols=["broker.v1"]) as talker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.chatter, [channel], is_over, 0.001)
            for _ in range(60):
                await talker.say("subscribe", channel=channel)
                if room.dice.random() < 0.5:
                    await trio.sleep(room.dice.random() * 0.02)
                await talker.say("unsubscribe", channel=channel)
            await talker.say("subscribe", channel=channel)
            # Who takes a wish back before it is granted is not told of the granting; of the taking back always.
            for _ in range(60):
                await talker.hear("unsubscribed")
            await talker.hear("subscribed")
            is_over.set()
        await room.say(channel, 5)
        last = room.truths[channel].published["stamped"]
        while talker.numbers()[-1:] != [last]:
            await talker.hear("event")
        numbers = talker.numbers()
        assert numbers == sorted(set(numbers)) and numbers[-5:] == list(range(last - 4, last + 1)), numbers[-9:]


@Scenario.among_others
async def subscribing_twice_gives_events_once(room: Room) -> None:
    channel = room.channel()
    async with room.talker() as talker:
        for _ in range(5):
            assert (await talker.subscribe(channel))["success"]
        await room.say(channel, 20)
        while len(talker.numbers()) < 20:
            await talker.hear("stress")
        await talker.ask("ping", "pong")
        assert talker.numbers() == list(range(1, 21))
        assert (await talker.ask("unsubscribe", "unsubscribed", channel=channel))["success"]
        await room.say(channel, 5)
        await talker.ask("ping", "pong")
        assert talker.numbers() == list(range(1, 21))


@Scenario.among_others
async def a_type_alone_ends_all_of_its_channels(room: Room) -> None:
    channels = [room.channel("short") for _ in range(10)] + [room.channel("long")]
    async with room.talker() as talker:
        for channel in channels:
            await talker.subscribe(channel)
        await talker.ask("unsubscribe", "unsubscribed", channel="short")
        for channel in channels:
            await room.say(channel)
        await talker.hear("stress")
        await talker.ask("ping", "pong")
        assert [message["c"] for message in talker.told if "c" in message] == channels[-1:]


@Scenario.among_others
async def published_bytes_arrive_as_they_are(room: Room) -> None:
    channel = room.channel("passing")
    texts = [
        json.dumps({"type": "odd", "text": text}, ensure_ascii=False) for text in ("\u2028é", "\U0001f600", "\x7f")
    ]
    texts += ['{"type":"odd",  "n" : 1e3 ,"a":[ ]}', '{"type":"odd","text":"\\r\\n\\u0000"}']
    async with (
        room.talker() as talker,
        httpx_sse.aconnect_sse(
            room.house.http, "GET", f"{room.daemon().url}/api/stream", params={"channel": channel}
        ) as source,
    ):
        events = source.aiter_sse()
        assert (await anext(events)).json()["type"] == "connected"
        await talker.subscribe(channel)
        for text in texts:
            await room.house.publisher.publish(channel, text.encode(), confirm=True)
        for text in texts:
            assert await talker.connection.get_message() == text
            assert (await anext(events)).data == text
