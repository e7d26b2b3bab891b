"""Publishing with a stamp, as bare as it gets: the scripts of history over one blocking connection, no retries.

The events say who publishes them (`by`) and count up from 1 (`n`): see `oracle`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import redis
from attrs import define

from broker.history.keys import Keys
from broker.history.scripts import PUBLISH, PUBLISH_ALL
from tests.actors.redis_server import RedisServer

_POSITION_MILLISECONDS = 86_400_000
_MEMORY_MILLISECONDS = 120_000


@define(eq=False)
class StampingPublisher:
    """Publishes over one connection, which `close` ends. Blocks."""

    _client: redis.Redis
    _keys: Keys
    _dice: random.Random

    @classmethod
    def at(cls, server: RedisServer, *, prefix: str = "", seed: int | None = None) -> StampingPublisher:
        """Connected, and the scripts are loaded.

        Args:
            prefix: `redis.channel_prefix` of the daemons.
            seed: of the tags.

        Raises:
            redis.RedisError: the server is not there.
        """
        client = redis.Redis.from_url(server.url, socket_timeout=10, retry=None, single_connection_client=True)
        client.script_load(PUBLISH.text)
        client.script_load(PUBLISH_ALL.text)
        return cls(client, Keys(prefix), random.Random(seed))

    def publish(self, channel: str, payloads: Sequence[bytes], *, once: Sequence[str] = ()) -> list[Any]:
        """Publish in one round trip. Returns how many received each; an error is an exception among them.

        Args:
            once: an idempotency key for each payload.

        Raises:
            redis.RedisError: the connection broke; what was published is not known.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for index, payload in enumerate(payloads):
                pipe.execute_command(*self._command(channel, payload, once[index] if once else None))
            return list(pipe.execute(raise_on_error=False))

    def publish_all(self, items: Sequence[tuple[str, bytes]]) -> Any:
        """Publish channels and payloads as one step, as `POST /api/publish` does."""
        keys = [self._keys.types]
        arguments: list[str | bytes | int] = [self._tag(), _POSITION_MILLISECONDS, "digest", _MEMORY_MILLISECONDS]
        for channel, payload in items:
            keys += [self._keys.top(channel), self._keys.events(channel)]
            arguments += [f"{self._keys.channel_prefix}{channel}", channel.partition(":")[0], "0 0", payload]
        return self.execute("EVALSHA", PUBLISH_ALL.digest, len(keys), *keys, *arguments)

    def send(self, channel: str, payloads: Sequence[bytes], *, once: Sequence[str]) -> None:
        """Write the commands and read no answer: whether they are run stays unknown. Then `close` it."""
        connection = self._client.connection
        assert connection is not None
        commands = [self._command(channel, payload, key) for payload, key in zip(payloads, once, strict=True)]
        connection.send_packed_command(connection.pack_commands(commands))

    def execute(self, *command: str | bytes | int) -> Any:
        """Anything else over the same connection."""
        return self._client.execute_command(*command)

    def close(self) -> None:
        self._client.close()

    def _command(self, channel: str, payload: bytes, once: str | None) -> tuple[str | bytes | int, ...]:
        keys = [self._keys.types, self._keys.top(channel), self._keys.events(channel)]
        if once is not None:
            keys.append(self._keys.memory(channel, once))
        return (
            "EVALSHA",
            PUBLISH.digest,
            len(keys),
            *keys,
            f"{self._keys.channel_prefix}{channel}",
            channel.partition(":")[0],
            "0 0",
            payload,
            self._tag(),
            _POSITION_MILLISECONDS,
            _MEMORY_MILLISECONDS,
        )

    def _tag(self) -> int:
        return self._dice.getrandbits(30) or 1
