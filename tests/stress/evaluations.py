"""Scenarios of evaluations: watched by several, left, come back to on another daemon, and failing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx_sse
import trio

from tests.access.visitor import bearer, token
from tests.actors.daemon_process import DaemonProcess
from tests.stress.evaluator import PIECES
from tests.stress.room import Room
from tests.stress.scenario import Scenario

PATH = "/api/stream/council-score"


@asynccontextmanager
async def _watching(
    room: Room, daemon: DaemonProcess, *, transcript: str = "", id: str = "", last: str = ""
) -> AsyncIterator[AsyncIterator[httpx_sse.ServerSentEvent]]:
    params = {"videoUrl": "https://v/1", "transcript": transcript} if transcript else {}
    headers = bearer(token(room.user(), subscribe=["council_score:*"])) | ({"Last-Event-ID": last} if last else {})
    url = f"{daemon.url}{PATH}" + (f"/{id}" if id else "")
    async with httpx_sse.aconnect_sse(room.house.http, "GET", url, params=params, headers=headers) as source:
        yield source.aiter_sse()


def _id_of(greeting: httpx_sse.ServerSentEvent) -> str:
    assert greeting.json()["type"] == "connected", greeting
    return str(greeting.json()["evaluationId"])


async def _rest(events: AsyncIterator[httpx_sse.ServerSentEvent]) -> tuple[list[int], str]:
    """The pieces that are left, and how it ended."""
    seen = [event async for event in events]
    pieces = [int(event.json()["thinking"]) for event in seen if event.json()["type"] == "council_score_stream"]
    return pieces, seen[-1].event


@Scenario.among_others
async def an_evaluation_is_watched_on_every_daemon(room: Room) -> None:
    async def watch(daemon: DaemonProcess, id: str) -> None:
        async with _watching(room, daemon, id=id) as events:
            assert _id_of(await anext(events)) == id
            assert await _rest(events) == (list(range(PIECES)), "complete")

    async with _watching(room, room.daemon(), transcript="well") as events, trio.open_nursery() as nursery:
        id = _id_of(await anext(events))
        for daemon in room.daemons * 2:
            nursery.start_soon(watch, daemon, id)
        assert await _rest(events) == (list(range(PIECES)), "complete")


@Scenario.among_others
async def an_evaluation_is_left_and_come_back_to(room: Room) -> None:
    async with _watching(room, room.daemon(), transcript="well") as events:
        _id_of(await anext(events))
        seen = [await anext(events) for _ in range(5)]
    for _ in range(3):
        async with _watching(room, room.daemon(), last=seen[-1].id) as events:
            await anext(events)
            seen += [await anext(events) for _ in range(4)]
    async with _watching(room, room.daemon(), last=seen[-1].id) as events:
        await anext(events)
        pieces, end = await _rest(events)
    assert [int(event.json()["thinking"]) for event in seen] + pieces == list(range(PIECES))
    assert end == "complete"


@Scenario.among_others
async def an_evaluation_fails_after_its_pieces(room: Room) -> None:
    async with _watching(room, room.daemon(), transcript="fail") as events:
        await anext(events)
        seen = [event async for event in events]
    assert [event.event for event in seen] == ["message"] * PIECES + ["error"]
    assert seen[-1].json()["error"] == "the model said no"


@Scenario.among_others
async def evaluations_by_the_dozen(room: Room) -> None:
    ends: list[tuple[list[int], str]] = []

    async def watch(number: int) -> None:
        async with _watching(room, room.daemons[number % len(room.daemons)], transcript="well") as events:
            await anext(events)
            ends.append(await _rest(events))

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(watch, number)
    assert ends == [(list(range(PIECES)), "complete")] * 12
