"""A room of the house: what one scenario has. Its channels are nobody else's, its dice come from the run's seed."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from trio_websocket import WebSocketConnection, open_websocket_url

from broker.errors import PublishError
from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower
from tests.promise.oracle import PLAIN, STAMPED, Truth
from tests.stress.guest import Guest
from tests.stress.house import ADMIN, House, aside

KINDS: tuple[type[Follower], ...] = (V1Follower, SseFollower, WebSocketFollower)
PLACED: tuple[type[Follower], ...] = (V1Follower, SseFollower)
"""Those that come back with their place."""
BOUND_SECONDS = 20.0
GREETED = ("connected", "heartbeat")


@define(eq=False)
class Room:
    """Made by the runner, with a nursery for what the scenario begins.

    Args:
        key: in the names of its channels and users.
        truths: what was published on each channel, for the oracle.
    """

    house: House
    key: str
    dice: random.Random
    nursery: trio.Nursery
    truths: Truths = field(factory=lambda: defaultdict(lambda: Truth({STAMPED: 0, PLAIN: 0})))
    guests: list[Guest] = field(factory=list)
    _channels: int = 0
    _news: trio.Event = field(factory=trio.Event)
    _locks: dict[tuple[str, str], trio.Lock] = field(factory=lambda: defaultdict(trio.Lock))

    # -- who is there

    def channel(self, kind: str = "long") -> str:
        self._channels += 1
        return f"{kind}:{self.key}-{self._channels}"

    def user(self, name: str = "ann") -> str:
        return f"{name}-{self.key}"

    @property
    def daemons(self) -> list[DaemonProcess]:
        return self.house.daemons

    def daemon(self) -> DaemonProcess:
        return self.dice.choice(self.house.daemons)

    def port(self) -> int:
        return self.daemon().port

    def guest(
        self,
        kind: type[Follower],
        *channels: str,
        port: int | None = None,
        receive_buffer: int | None = None,
        trickle: int | None = None,
    ) -> Guest:
        """Somebody who comes now, to any daemon unless `port` says which."""
        follower = kind(channels, self.truths, port or self.port(), receive_buffer)
        guest = Guest(follower, self._tell, trickle)
        self.guests.append(guest)
        self.nursery.start_soon(guest.live)
        return guest

    async def mixed_guests(self, count: int, *channels: str) -> list[Guest]:
        """Live ones of all kinds, over all daemons."""
        daemons = self.house.daemons
        made = [
            self.guest(KINDS[number % 3], *channels, port=daemons[number // 3 % len(daemons)].port)
            for number in range(count)
        ]
        await self.live()
        return made

    @asynccontextmanager
    async def talker(
        self, daemon: DaemonProcess | None = None, query: str = "", **options: Any
    ) -> AsyncIterator[Talker]:
        """A WebSocket of trio-websocket that has heard its greeting."""
        url = (daemon or self.daemon()).ws_url + query
        async with open_websocket_url(url, **options) as connection:
            talker = Talker(connection)
            await talker.hear("connected")
            yield talker

    # -- what is published

    def event(self, channel: str, voice: str = STAMPED, pad: int = 0) -> bytes:
        """The next of a voice on a channel. It is counted now: who comes later need not have it."""
        counts = self.truths[channel].published
        counts[voice] = counts.get(voice, 0) + 1
        event = {"type": "stress", "c": channel, "by": voice, "n": counts[voice], "pad": "x" * pad}
        return json.dumps(event).encode()

    async def say(self, channel: str, count: int = 1, voice: str = STAMPED, pad: int = 0) -> None:
        """Publish with a stamp, in one batch. What Redis did not take is an error."""
        async with self._locks[channel, voice]:
            items = [(channel, self.event(channel, voice, pad)) for _ in range(count)]
            await self.house.publisher.publish_many(items, confirm=True)

    async def say_plainly(self, channel: str, count: int = 1) -> None:
        """By PUBLISH alone."""
        await aside(self.house.redis_server.publish, channel, *[self.event(channel, PLAIN) for _ in range(count)])

    async def insist(self, channel: str, count: int = 1) -> None:
        """Publish one after the other, each again under the same key until Redis confirms it, whatever happens."""
        for _ in range(count):
            event = self.event(channel)
            key = f"{channel}/{self.truths[channel].published[STAMPED]}"
            while True:
                try:
                    await self.house.publisher.publish(channel, event, confirm=True, idempotency_key=key)
                    break
                except PublishError:
                    await trio.sleep(0.05)

    async def chatter(self, channels: Sequence[str], is_over: trio.Event, pause: float = 0.01) -> None:
        """Insist on any of the channels, until told."""
        while not is_over.is_set():
            await self.insist(self.dice.choice(channels))
            await trio.sleep(pause)

    # -- what comes of it

    async def live(self) -> None:
        """Wait until every guest that is here is live on all of its channels."""
        await self.until(lambda: all(guest.follower.is_live for guest in self._present()), self._not_live)

    async def all_have_all(self, seconds: float = BOUND_SECONDS) -> None:
        """Wait until every guest has everything, or was told that it has not; the oracle says what is wrong else."""
        await self.until(lambda: not self._missing(), self._missing, seconds)

    async def until(
        self, holds: Callable[[], object], why: Callable[[], object] = str, seconds: float = BOUND_SECONDS
    ) -> None:
        with trio.move_on_after(seconds):
            while not holds():
                with trio.move_on_after(0.05):
                    await self._news.wait()
            return
        raise AssertionError(f"it did not happen within {seconds:g} s: {str(why())[:1000]}")

    def check_records(self) -> None:
        """What the oracle found so far is an error."""
        found = [fault for guest in self.guests for fault in guest.follower.faults()]
        assert not found, found[:5]

    def no_gaps(self) -> None:
        """Nothing that happened is a reason for a gap."""
        self.check_records()
        gaps = [gap for guest in self.guests for gap in guest.follower.gaps()]
        assert not gaps, gaps[:5]

    async def get(self, path: str, daemon: DaemonProcess | None = None, **options: Any) -> Any:
        """An admin's question."""
        answer = await self.house.http.get((daemon or self.daemon()).url + path, headers=ADMIN, **options)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer

    async def post(self, path: str, body: Any, daemon: DaemonProcess | None = None, **headers: str) -> Any:
        url = (daemon or self.daemon()).url + path
        return await self.house.http.post(url, json=body, headers={**ADMIN, **headers})

    def end(self) -> None:
        for guest in self.guests:
            guest.leave()

    def _present(self) -> list[Guest]:
        return [guest for guest in self.guests if guest.follower.port is not None]

    def _missing(self) -> list[str]:
        present = self._present()
        return [fault for guest in present for fault in guest.follower.faults(is_end=True)] + self._not_live()

    def _not_live(self) -> list[str]:
        return [f"{guest.follower} is not live" for guest in self._present() if not guest.follower.is_live]

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


@define(eq=False)
class Talker:
    """A WebSocket client that keeps what it was told."""

    connection: WebSocketConnection
    told: list[Any] = field(factory=list)

    async def say(self, kind: str, **fields: Any) -> None:
        await self.connection.send_message(json.dumps({"type": kind, **fields}))

    async def hear(self, *kinds: str) -> Any:
        """The next message of one of the types, or with an `event` for "event"; the others are kept."""
        with trio.fail_after(BOUND_SECONDS):
            while True:
                message = json.loads(await self.connection.get_message())
                self.told.append(message)
                if message.get("type") in kinds or ("event" in message and "event" in kinds):
                    return message

    async def ask(self, kind: str, *answers: str, **fields: Any) -> Any:
        await self.say(kind, **fields)
        return await self.hear("error", *answers)

    async def subscribe(self, channel: str, **fields: Any) -> Any:
        return await self.ask("subscribe", "subscribed", channel=channel, **fields)

    def numbers(self) -> list[int]:
        """Of the events that it was told, in their order."""
        return [event["n"] for event in map(_event_in, self.told) if "n" in event]


def _event_in(message: Mapping[str, Any]) -> Mapping[str, Any]:
    event = message.get("event", message)
    return event if isinstance(event, dict) else {}
