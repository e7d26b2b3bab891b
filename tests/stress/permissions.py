"""Scenarios of rights: strangers, tokens that end, are renewed and revoked, limits of a user, what is for a user."""

from __future__ import annotations

from typing import Any

import httpx_sse
import trio
from trio_websocket import ConnectionClosed

from broker.subscriber import subscribe
from tests.access.visitor import bearer, token
from tests.actors.followers import V1Follower
from tests.stress.house import CONNECTIONS_PER_USER
from tests.stress.room import Room, Talker
from tests.stress.scenario import Scenario


def _headers(text: str) -> dict[str, Any]:
    return {"extra_headers": [(name.encode(), value.encode()) for name, value in bearer(text).items()]}


async def _ending(talker: Talker, seconds: float = 10.0) -> int:
    """Wait for the end. Returns the close code."""
    with trio.fail_after(seconds):
        try:
            while True:
                await talker.hear("nothing")
        except ConnectionClosed as closed:
            assert closed.reason is not None
            return int(closed.reason.code)


@Scenario.among_others
async def strangers_hear_nothing(room: Room) -> None:
    mine, closed = room.channel(), room.channel("closed")
    owned = f"alerts:{room.user()}"
    bad = (
        token("x", secret="another secret that is longer than 32 bytes"),
        token("x", seconds=-5),
        "no.token",
        token(None),
    )
    for daemon in room.daemons:
        url = f"{daemon.url}/api/stream"
        for channel in (closed, owned):
            assert (await room.house.http.get(url, params={"channel": channel})).status_code == 401
        for text in bad:
            answer = await room.house.http.get(url, params={"channel": mine}, headers=bearer(text))
            assert answer.status_code == 401, (text, answer.text)
        answer = await room.house.http.get(url, params={"channel": owned}, headers=bearer(token("bob")))
        assert answer.status_code == 403
    async with room.talker() as talker:
        for channel in (closed, owned):
            assert (await talker.subscribe(channel))["code"] == "forbidden"
            await room.say(channel, 3)
        await talker.subscribe(mine)
        await room.say(mine)
        await talker.hear("stress")
        assert [each["c"] for each in talker.told if "c" in each] == [mine]


@Scenario.among_others
async def a_token_ends_while_its_client_listens(room: Room) -> None:
    channel = room.channel("closed")
    text = token(room.user(), seconds=3.5, subscribe=["closed:*"])
    beside = token(room.user("bob"), subscribe=["closed:*"])
    async with room.talker(**_headers(text)) as talker, room.talker(**_headers(beside)) as other:
        for each in (talker, other):
            assert (await each.subscribe(channel))["success"]
        await room.say(channel, 5)
        assert await _ending(talker) == 4402
        assert talker.numbers() == [1, 2, 3, 4, 5]
        await room.say(channel, 5)
        while len(other.numbers()) < 10:
            await other.hear("stress")


@Scenario.among_others
async def a_token_is_renewed_in_time(room: Room) -> None:
    channel, asked = room.channel("closed"), 0

    async def fresh() -> str:
        nonlocal asked
        asked += 1
        return token(room.user(), seconds=1.5, subscribe=["closed:*"], jti=str(asked))

    async with subscribe(room.daemon().url, [channel], token=fresh) as events:
        for number in range(12):
            await room.say(channel)
            assert (await anext(events)).data["n"] == number + 1
            await trio.sleep(0.3)
        assert events.statistics().reconnects == 0
    assert asked >= 3


@Scenario.among_others
async def a_user_is_revoked_everywhere(room: Room) -> None:
    channel = room.channel("closed")
    text = token(room.user(), subscribe=["closed:*"])
    async with trio.open_nursery() as nursery:
        are_here: list[trio.Event] = []

        async def listen(daemon: Any, is_here: trio.Event) -> None:
            async with room.talker(daemon, **_headers(text)) as talker:
                await talker.subscribe(channel)
                is_here.set()
                assert await _ending(talker) == 4403

        for daemon in room.daemons * 2:
            are_here.append(trio.Event())
            nursery.start_soon(listen, daemon, are_here[-1])
        for is_here in are_here:
            await is_here.wait()
        answer = await room.post("/api/realtime/revoke", {"user": room.user(), "seconds": 60})
        assert answer.json() == {"daemons": len(room.daemons)}, answer.text
    for daemon in room.daemons:
        url = f"{daemon.url}/api/stream"
        answer = await room.house.http.get(url, params={"channel": channel}, headers=bearer(text))
        assert answer.status_code == 401


@Scenario.among_others
async def an_operator_disconnects_a_channel(room: Room) -> None:
    channel, other = room.channel(), room.channel()
    stays = room.guest(V1Follower, other)
    await room.live()
    async with room.talker(room.daemons[0]) as talker, room.talker(room.daemons[-1]) as another:
        for each in (talker, another):
            await each.subscribe(channel)
        assert (await room.post("/api/realtime/disconnect", {"channel": channel})).status_code == 200
        assert [await _ending(each) for each in (talker, another)] == [4006, 4006]
    await room.say(other, 5)
    await room.all_have_all()
    assert stays.follower.endings == 0


@Scenario.among_others
async def a_user_has_so_many_connections_and_no_more(room: Room) -> None:
    """Counted over all daemons; who leaves makes room."""
    headers = bearer(token(room.user(), subscribe=["closed:*"]))
    channel = room.channel("closed")
    for _ in range(2):
        statuses: list[int] = []
        full = trio.Event()

        async def come(number: int, statuses: list[int] = statuses, full: trio.Event = full) -> None:
            url = f"{room.daemons[number % len(room.daemons)].url}/api/stream"
            async with room.house.http.stream("GET", url, params={"channel": channel}, headers=headers) as answer:
                statuses.append(answer.status_code)
                if len(statuses) == CONNECTIONS_PER_USER + 6:
                    full.set()
                await full.wait()

        async with trio.open_nursery() as nursery:
            for number in range(CONNECTIONS_PER_USER + 6):
                nursery.start_soon(come, number)
        assert sorted(statuses) == [200] * CONNECTIONS_PER_USER + [429] * 6, statuses
        await trio.sleep(0.5)


@Scenario.among_others
async def what_is_for_a_user_reaches_all_of_its_connections(room: Room) -> None:
    texts = [token(room.user(name), subscribe=["closed:*"]) for name in ("ann", "bob")]
    async with trio.open_nursery() as nursery:
        here: list[trio.Event] = []
        told: dict[str, list[list[int]]] = {"ann": [], "bob": []}

        async def listen(daemon: Any, name: str, text: str, is_here: trio.Event) -> None:
            async with room.talker(daemon, **_headers(text)) as talker:
                is_here.set()
                while talker.numbers()[-1:] != [20]:
                    await talker.hear("stress")
                told[name].append(talker.numbers())

        for daemon in room.daemons:
            for name, text in zip(("ann", "bob"), texts, strict=True):
                here.append(trio.Event())
                nursery.start_soon(listen, daemon, name, text, here[-1])
        for is_here in here:
            await is_here.wait()
        for number in range(1, 21):
            for name in ("ann", "bob"):
                event = {"type": "stress", "n": number}
                await room.house.publisher.publish_to_user(room.user(name), event, confirm=True)
    expected = [list(range(1, 21))] * len(room.daemons)
    assert told == {"ann": expected, "bob": expected}


@Scenario.among_others
async def streams_of_a_token_that_ends(room: Room) -> None:
    channel = room.channel("closed")
    params = {"channel": channel, "token": token(room.user(), seconds=3.5, subscribe=["closed:*"])}
    async with httpx_sse.aconnect_sse(
        room.house.http, "GET", f"{room.daemon().url}/api/stream", params=params
    ) as source:
        events = source.aiter_sse()
        await anext(events)
        await room.say(channel, 3)
        with trio.fail_after(10.0):
            seen = [event async for event in events]
        assert [event.event for event in seen] == ["message"] * 3 + ["token_expired"]
