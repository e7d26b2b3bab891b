"""Scenarios of those who look: stats, lists, metrics, probes and what decides, from every daemon, while others come."""

from __future__ import annotations

import trio

from tests.access.visitor import bearer, token
from tests.actors.followers import V1Follower
from tests.stress.room import Room
from tests.stress.scenario import Scenario

PATHS = (
    "/api/realtime/stats",
    "/api/realtime/stats?clients=0&channels=0",
    "/api/realtime/clients?limit=20",
    "/api/realtime/channels?limit=20&prefix=long",
    "/api/realtime/explain?action=subscribe&channel=long:1",
    "/metrics",
    "/health",
    "/livez",
    "/readyz",
)


@Scenario.among_others
async def everything_is_asked_at_once(room: Room) -> None:
    channel, is_over = room.channel(), trio.Event()
    room.nursery.start_soon(room.chatter, [channel], is_over, 0.005)
    room.guest(V1Follower, channel)

    async def ask() -> None:
        for path in room.dice.sample(PATHS * 2, 12):
            await room.get(path)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    is_over.set()
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def all_daemons_count_the_same(room: Room) -> None:
    """The clients of a channel are listed, wherever they are and whoever is asked."""
    channel = room.channel()
    guests = [room.guest(V1Follower, channel, port=daemon.port) for daemon in room.daemons * 2]
    await room.live()
    for daemon in room.daemons:
        found = (await room.get("/api/realtime/clients", daemon, params={"channel": channel})).json()
        assert len(found["clients"]) == len(guests), found
        found = (await room.get("/api/realtime/channels", daemon, params={"prefix": channel})).json()
        assert [each["subscribers"] for each in found["channels"]] == [len(guests)], found


@Scenario.among_others
async def who_asks_what_decides_is_told_the_same_everywhere(room: Room) -> None:
    headers = bearer(token(room.user()))
    for channel, allowed in ((f"alerts:{room.user()}", True), (f"alerts:{room.user('bob')}", False), ("long:1", False)):
        for daemon in room.daemons:
            url = f"{daemon.url}/api/realtime/explain"
            answer = await room.house.http.get(url, params={"action": "subscribe", "channel": channel}, headers=headers)
            assert answer.json()["allowed"] is allowed, answer.text


@Scenario.among_others
async def pages_and_paths_that_are_not_there(room: Room) -> None:
    for path, status in (("/nowhere", 404), ("/ws", 426), ("/api/publish", 405), ("/client/index.js", 200)) * 5:
        answer = await room.house.http.get(room.daemon().url + path)
        assert answer.status_code == status, (path, answer.status_code)
    for body in (b"{", b"\xff", b"x" * 70_000):
        answer = await room.house.http.post(f"{room.daemon().url}/api/realtime/disconnect", content=body)
        assert answer.status_code == 401
