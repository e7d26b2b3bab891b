"""Recorders without their daemons, and a listener that notes what Redis delivers, as it is in Redis."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from broker.config.sections import History, Redis
from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.history.keys import Keys
from broker.upstream.connection import RedisConnection, pack
from broker.upstream.recorder import Recorder
from broker.upstream.refusals import Refusals
from tests.actors.redis_server import RedisServer

_STAMPED = re.compile(rb"\x01(s|r|g\d+):(\d+):(\d+):(\d+) (.*)", re.DOTALL)


def section_of(server: RedisServer, **changes: Any) -> Redis:
    options: dict[str, Any] = {"url": server.url, "backoff_min_seconds": 0.02, "backoff_max_seconds": 0.05, **changes}
    return Redis(**options)


@define(eq=False)
class Recording:
    """One recorder, and what it was told."""

    recorder: Recorder
    refused: list[str]
    accepted: list[str]
    refusals: Refusals
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    @classmethod
    def at(
        cls,
        section: Redis,
        *,
        types: Mapping[str, TypeOptions] = BUILT_IN_TYPES,
        lease_seconds: float = 30.0,
        message_max_bytes: int = 1_000_000,
    ) -> Recording:
        refused: list[str] = []
        accepted: list[str] = []
        refusals = Refusals(types)
        history = History(lease_seconds=lease_seconds)
        recorder = Recorder(
            section,
            history,
            Keys(section.channel_prefix),
            types,
            message_max_bytes,
            refusals,
            refused.append,
            lambda: accepted.append("accepted"),
        )
        return cls(recorder, refused, accepted, refusals)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            await self.recorder.serve(task_status)

    @property
    def generation(self) -> int | None:
        generation = self.recorder.statistics()["generation"]
        assert generation is None or isinstance(generation, int)
        return generation

    @property
    def begun(self) -> int:
        """How many generations it has begun."""
        begun = self.recorder.statistics()["generationsBegun"]
        assert isinstance(begun, int)
        return begun

    async def wait_begun(self, count: int, *, seconds: float = 10.0) -> int:
        """Wait until it records, under at least its `count`th generation. Returns that."""
        return await self.wait_generation(lambda _: self.begun >= count, seconds=seconds)

    async def wait_generation(self, accept: Callable[[int], bool] = bool, *, seconds: float = 10.0) -> int:
        """Wait until it records, under a generation that `accept` takes."""
        with trio.fail_after(seconds):
            while self.generation is None or not accept(self.generation):
                await trio.sleep(0.005)
        return self.generation


@define(eq=False)
class Listener:
    """What was delivered on some channels, plain messages left out: the way in is the same channel."""

    _connection: RedisConnection
    heard: list[tuple[bytes, bytes]]

    @property
    def stamped(self) -> list[tuple[str, str, int, bytes]]:
        """Channel, how it came, offset and event of each."""
        found = []
        for channel, message in self.heard:
            if message.startswith(b"\x01u "):
                found.append((channel.decode(), "u", 0, message[3:]))
            elif match := _STAMPED.fullmatch(message):
                found.append((channel.decode(), match[1].decode(), int(match[3]), match[5]))
        return found

    async def wait(self, count: int, *, seconds: float = 10.0) -> list[tuple[str, str, int, bytes]]:
        """Wait for `count` stamped messages; then all that there are."""
        with trio.fail_after(seconds):
            while sum(message.startswith(b"\x01") for _, message in self.heard) < count:
                await trio.sleep(0.002)
        return self.stamped

    async def serve(self) -> None:
        while True:
            for reply in await self._connection.read():
                if reply[0] == b"pmessage":
                    self.heard.append((reply[2], reply[3]))


@asynccontextmanager
async def listening(server: RedisServer, pattern: str = "*") -> AsyncIterator[Listener]:
    connection = await RedisConnection.open(Redis(url=server.url))
    await connection.write(pack(b"PSUBSCRIBE", pattern.encode()))
    assert await connection.read() == [[b"psubscribe", pattern.encode(), 1]]
    listener = Listener(connection, [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve)
        try:
            yield listener
        finally:
            nursery.cancel_scope.cancel()
            connection.close()


async def in_redis(server: RedisServer, *commands: tuple[Any, ...]) -> list[Any]:
    """Run commands in one round trip, on a connection of their own."""

    def run() -> list[Any]:
        with server.client() as client, client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(pipe.execute())

    return await trio.to_thread.run_sync(run)


async def publish(server: RedisServer, channel: str, *payloads: bytes) -> None:
    await in_redis(server, *(("PUBLISH", channel, payload) for payload in payloads))


async def connections(server: RedisServer) -> dict[int, str]:
    """The connections of recorders, by id: `ear` or `commands`. A listener has one pattern, a recorder has more."""
    (clients,) = await in_redis(server, ("CLIENT LIST",))
    found = {}
    for client in clients:
        if int(client["psub"]) > 1:
            found[int(client["id"])] = "ear"
        elif client["cmd"] in ("evalsha", "script|load", "hset"):
            found[int(client["id"])] = "commands"
    return found


async def kill(server: RedisServer, kind: str) -> None:
    ids = [id for id, what in (await connections(server)).items() if what == kind]
    assert ids
    await in_redis(server, *(("CLIENT", "KILL", "ID", id) for id in ids))
