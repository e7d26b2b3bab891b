"""Scenarios of publishing: by our own publisher, over HTTP, over WebSocket and by plain PUBLISH, all at once."""

from __future__ import annotations

import json
from typing import Any

import trio

from broker.publisher import TrioPublisher
from broker.subscriber import subscribe
from tests.access.visitor import bearer, token
from tests.promise.oracle import STAMPED
from tests.stress.house import MESSAGE_MAX_BYTES
from tests.stress.room import Room
from tests.stress.scenario import Scenario


@Scenario.among_others
async def many_voices_on_one_channel(room: Room) -> None:
    channel = room.channel()
    await room.mixed_guests(9, channel)

    async def speak(voice: str) -> None:
        for _ in range(20):
            await room.say(channel, room.dice.randint(1, 4), voice)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(speak, f"voice {number}")
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def stamped_and_plain_on_one_channel(room: Room) -> None:
    channel = room.channel()
    guests = await room.mixed_guests(9, channel)
    for turn in range(12):
        await room.say(channel, 3)
        await room.say_plainly(channel, 3)
        if turn % 4 == 1:
            for guest in guests:
                guest.cut(room.dice.randrange(300)) if guest.follower.__class__.__name__ != "WebSocketFollower" else 0
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def batches_over_many_channels(room: Room) -> None:
    channels = [room.channel(kind) for kind in ("long", "short", "recent", "passing") for _ in range(3)]
    await room.mixed_guests(6, *channels)
    for _ in range(10):
        items = [(name, room.event(name)) for name in room.dice.choices(channels, k=40)]
        assert all(await room.house.publisher.publish_many(items, confirm=True))
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def http_requests_in_order(room: Room) -> None:
    channel = room.channel()
    await room.mixed_guests(6, channel)
    for number in range(15):
        body = [_item(room, channel) for _ in range(room.dice.randint(1, 20))]
        answer = await room.post("/api/publish", body, None, **{"Idempotency-Key": f"{room.key}-{number}"})
        assert (answer.status_code, answer.json()) == (200, {"published": len(body)}), answer.text
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def one_request_at_every_daemon_at_once_counts_once(room: Room) -> None:
    channel = room.channel()
    await room.mixed_guests(6, channel)
    for number in range(8):
        body = [_item(room, channel), _item(room, channel)]
        found: list[Any] = []

        async def ask(place: int, number: int = number, body: Any = body, found: list[Any] = found) -> None:
            daemon = room.daemons[place % len(room.daemons)]
            key = {"Idempotency-Key": f"{room.key}-{number}"}
            found.append(await room.post("/api/publish", body, daemon, **key))

        async with trio.open_nursery() as nursery:
            for place in range(6):
                nursery.start_soon(ask, place)
        assert [(each.status_code, each.json()) for each in found] == [(200, {"published": 2})] * 6
        assert sum("Idempotency-Replayed" in each.headers for each in found) == 5
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def websockets_that_publish(room: Room) -> None:
    channel = room.channel()
    await room.mixed_guests(6, channel)

    async def speak(voice: str) -> None:
        async with room.talker() as talker:
            for _ in range(25):
                event = json.loads(room.event(channel, voice))
                assert "success" in await talker.ask("publish", "published", channel=channel, event=event)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(speak, f"page {number}")
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def events_as_large_as_may_be(room: Room) -> None:
    channel = room.channel()
    await room.mixed_guests(6, channel)
    base = len(room.event(channel)) + 4
    room.truths[channel].published[STAMPED] -= 1
    for size in (125, 126, 127, 4096, 16_384, 65_535, MESSAGE_MAX_BYTES):
        await room.say(channel, 2, pad=max(0, size - base))
    await room.all_have_all()
    room.no_gaps()


@Scenario.among_others
async def what_is_refused_is_skipped_and_nothing_else(room: Room) -> None:
    channel = room.channel("passing")
    await room.mixed_guests(6, channel)
    bad = (b"{", b"\xff\xfe", b"", b'{"type":"stress","pad":"%b"}' % (b"x" * MESSAGE_MAX_BYTES), b"[1,")
    for _ in range(10):
        await room.say(channel, 2)
        with room.house.redis_server.client() as client:
            await trio.to_thread.run_sync(client.publish, channel, room.dice.choice(bad))
    await room.all_have_all()
    room.no_gaps()
    events = [{"channel": channel, "event": {"type": "stress"}}, {"channel": "no channel", "event": {"type": "stress"}}]
    for body in (events, [*events[:1], {"channel": channel}], "x", [], [events[:1]]):
        assert (await room.post("/api/publish", body)).status_code in (400, 422), body
    await room.all_have_all()


@Scenario.among_others
async def jobs_tell_their_progress(room: Room) -> None:
    """Publisher and subscriber of ours, the whole way."""
    names = [f"{room.key}-{number}" for number in range(6)]
    channels = [f"job_progress:{name}" for name in names]
    seen: dict[str, list[dict[str, Any]]] = {channel: [] for channel in channels}

    async def work(publisher: TrioPublisher, name: str) -> None:
        try:
            async with publisher.job(name) as job:
                for step in range(10):
                    await job.progress(step / 10, "rendering")
                    await trio.sleep(room.dice.random() * 0.04)
                if name == names[0]:
                    raise RuntimeError("a job may fail")
        except RuntimeError:
            pass

    async with (
        subscribe(room.daemon().url, channels) as events,
        TrioPublisher(room.house.redis_server.url, timeout_seconds=10.0) as publisher,
        trio.open_nursery() as nursery,
    ):
        for name in names:
            nursery.start_soon(work, publisher, name)
        while any(not told or told[-1]["status"] not in ("completed", "failed") for told in seen.values()):
            event = await anext(events)
            assert event.channel is not None
            seen[event.channel].append(event.data)
    for channel, told in seen.items():
        assert told[-1]["status"] == ("failed" if channel == channels[0] else "completed")
        progress = [each["progress"] for each in told]
        assert progress == sorted(progress) and told[0]["status"] == "queued"


@Scenario.among_others
async def a_publisher_without_the_right(room: Room) -> None:
    channel = room.channel("closed")
    owner = bearer(token(room.user(), publish=["long:*"]))
    for daemon in room.daemons:
        url = f"{daemon.url}/api/publish"
        body = {"channel": channel, "event": {"type": "stress"}}
        assert (await room.house.http.post(url, json=body)).status_code == 401
        assert (await room.house.http.post(url, json=body, headers=owner)).status_code == 403
    async with room.talker() as talker:
        answer = await talker.ask("publish", "published", channel=channel, event={"type": "stress"})
        assert answer["code"] == "forbidden", answer


def _item(room: Room, channel: str) -> dict[str, Any]:
    return {"channel": channel, "event": json.loads(room.event(channel))}
