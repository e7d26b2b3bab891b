"""How the doctor publishes: through Redis, as a service does, or through the daemon's own HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

import httpx
import trio
from attrs import define, field

from broker.config.secret import mask_url
from broker.doctor.finding import CheckFailed
from broker.doctor.web import refusal_of

if TYPE_CHECKING:
    from redis import Redis

_REDIS_ADVICE = (
    "give --redis URL: then the event goes through Redis, as services publish; or a token that may publish "
    "job_progress:*, with --token"
)


class Publisher(Protocol):
    """Publishes one event at a time."""

    @property
    def way(self) -> str: ...

    async def publish(self, channel: str, payload: bytes) -> int | None:
        """Publish. Returns how many connections Redis handed it to; None where that is not known.

        Raises:
            CheckFailed: it was not taken.
        """


@define(eq=False)
class HttpPublisher:
    """`POST /api/publish`."""

    _client: httpx.AsyncClient
    _headers: Mapping[str, str] = field(repr=False)
    way: str = "POST /api/publish"

    async def publish(self, channel: str, payload: bytes) -> int | None:
        body = b'{"channel":"%b","event":%b}' % (channel.encode(), payload)
        headers = {"Content-Type": "application/json", **self._headers}
        response = await self._client.post("/api/publish", content=body, headers=headers)
        if response.status_code != 200:
            failed = refusal_of(response)
            raise CheckFailed(failed.text, failed.advice if response.status_code >= 500 else _REDIS_ADVICE)
        return None


@define(eq=False)
class RedisPublisher:
    """PUBLISH, from a thread: redis-py blocks. `close` it.

    Args:
        channel_prefix: as the daemon's `redis.channel_prefix`.
        seconds: for connecting and for each answer.
    """

    _url: str = field(repr=False)
    _channel_prefix: str
    _seconds: float
    way: str = "Redis"
    _redis: Redis = field(init=False)

    def __attrs_post_init__(self) -> None:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._redis = Redis.from_url(
            self._url,
            socket_connect_timeout=self._seconds,
            socket_timeout=self._seconds,
            retry=Retry(NoBackoff(), 0),
        )

    async def publish(self, channel: str, payload: bytes) -> int | None:
        from redis import RedisError

        command = partial(self._redis.publish, self._channel_prefix + channel, payload)
        try:
            return int(await trio.to_thread.run_sync(command, abandon_on_cancel=True))
        except (RedisError, OSError) as error:
            shown = mask_url(self._url)
            why = " ".join(str(error).replace(self._url, shown).split()).rstrip(".")
            raise CheckFailed(f"Redis at {shown} did not take it: {why}", "start it, or correct --redis") from None

    def close(self) -> None:
        self._redis.close()
