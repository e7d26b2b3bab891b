"""The checks over HTTP: health, stats, and the first event of each stream."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
from attrs import Factory, define, field

from broker import __version__
from broker.doctor.eventreader import EventReader, StreamEvent
from broker.doctor.finding import CheckFailed, CheckSkipped
from broker.doctor.streamanswer import StreamAnswer
from broker.doctor.target import Target

PROXY_ADVICE = "correct the URL, or let the proxy in front of the daemon pass this path on"
BUFFERING_ADVICE = (
    "switch buffering and compression of text/event-stream off in the proxy in between; nginx: proxy_buffering off"
)
STATS_PATH = "/api/realtime/stats"
_BODY_BYTES = 10_000
WAITING = "waiting for Redis"


class Degraded(CheckFailed):
    """The daemon says that Redis does not deliver."""


def open_client(target: Target, seconds: float) -> httpx.AsyncClient:
    """A client for `target`, which shows no token by itself.

    Proxies of the environment are not used: the WebSocket would not go through them.
    """
    return httpx.AsyncClient(
        base_url=target.url,
        timeout=seconds,
        trust_env=False,
        verify=target.tls if target.tls is not None else False,
        headers={"User-Agent": f"broker-doctor/{__version__}"},
    )


async def check_health(client: httpx.AsyncClient) -> str:
    """Whether the process is alive, and which version it is."""
    body = _object_of(await client.get("/health"))
    version = body.get("version")
    if body.get("status") != "healthy" or not isinstance(version, str):
        raise CheckFailed("what answers /health is no broker", PROXY_ADVICE)
    other = "" if version == __version__ else f" (this program is {__version__})"
    return f"healthy, version {version}{other}"


async def check_stats(client: httpx.AsyncClient, target: Target) -> str:
    """Whether Redis delivers, who is connected, what was refused.

    Raises:
        CheckSkipped: the token may not see it.
        Degraded: Redis does not deliver.
        CheckFailed: no broker answers.
    """
    response = await client.get(STATS_PATH, params={"clients": 0}, headers=target.headers)
    if response.status_code == 403 and target.token is not None:
        raise CheckSkipped("needs an admin token")
    body = _object_of(response)
    status = body.get("status")
    redis = _inside(body, "redis")
    if status == "degraded":
        raise Degraded(
            f"degraded: {_away(redis.get('awaySince'))}",
            "start Redis, or correct redis.url (`broker config show` says it): the daemon reconnects by itself; "
            "but a daemon whose embedded Valkey has ended must be restarted (its log says so)",
        )
    if status != "healthy":
        raise CheckFailed("what answers /api/realtime/stats is no broker", PROXY_ADVICE)
    clients = sum(int(_inside(body, transport).get("totalConnections") or 0) for transport in ("websocket", "sse"))
    words = [status, f"{clients} client{'' if clients == 1 else 's'}"]
    refused = _inside(redis, "refusedMessages")
    if refused:
        words.append("refused since its start: " + " ".join(f"{reason} {count}" for reason, count in refused.items()))
    return ", ".join(words)


@define(eq=False)
class StreamCheck:
    """Whether the first event of one stream comes, and with headers that keep it from being held back.

    Args:
        path: the stream's, with its query.
        refusal: the answer is an `error` event that begins so; empty for a stream that begins with `connected`.
        has_head: whether the answer's head has come.
    """

    _target: Target
    path: str
    refusal: str = ""
    has_head: bool = field(init=False, default=False)

    async def run(self) -> str:
        events = await EventStream.open(self._target, self.path)
        self.has_head = True
        try:
            while True:
                event = await events.next()
                if event.comment == WAITING:
                    raise CheckFailed("the daemon waits for Redis", "see what stats says")
                if event.data:
                    return self._judge(event, events.hop)
        finally:
            await events.cut()

    def _judge(self, event: StreamEvent, hop: str) -> str:
        body = _decoded(event.data)
        if self.refusal:
            error = body.get("error")
            if event.event != "error" or not isinstance(error, str) or not error.startswith(self.refusal):
                raise CheckFailed(
                    f"asked for nothing, it should refuse, and says {event.data[:80]!a}", "look into the daemon's log"
                )
            return f"asked without parameters{hop}: refused as it should be (whether a worker runs is not tried)"
        if body.get("type") != "connected":
            raise CheckFailed(f"its first event is {event.data[:80]!a}, not `connected`", PROXY_ADVICE)
        return f"connected{hop}"


@define(eq=False)
class EventStream:
    """The events of one stream. Whoever opened it calls `cut`."""

    _answer: StreamAnswer
    _reader: EventReader = Factory(EventReader)
    _events: deque[StreamEvent] = Factory(deque)

    @classmethod
    async def open(cls, target: Target, path: str) -> EventStream:
        """Ask for a stream.

        Raises:
            CheckFailed: the answer is none, or one that what stands between may hold back.
        """
        answer = await StreamAnswer.open(target, path)
        try:
            await _check_head(answer)
        except BaseException:
            await answer.cut()
            raise
        return cls(answer)

    async def next(self) -> StreamEvent:
        """The next event, or comment.

        Raises:
            CheckFailed: there is none, the stream has ended.
        """
        while not self._events:
            data = await self._answer.read()
            if not data:
                raise CheckFailed("the stream ended", "look into the daemon's log")
            self._events += self._reader.feed(data)
        return self._events.popleft()

    @property
    def hop(self) -> str:
        """A proxy that shows in the headers: nginx obeys X-Accel-Buffering and takes it out."""
        return "" if "x-accel-buffering" in self._answer.headers else " through a proxy"

    async def cut(self) -> None:
        """Close. Does not wait."""
        await self._answer.cut()


async def _check_head(answer: StreamAnswer) -> None:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if answer.status != 200:
        body = b""
        while len(body) < _BODY_BYTES and (data := await answer.read()):
            body += data
        raise _refusal(answer.status, kind, body)
    if kind != "text/event-stream":
        raise CheckFailed(f"it is {kind or 'nothing'}, not text/event-stream", PROXY_ADVICE)
    if "no-transform" not in answer.headers.get("cache-control", ""):
        raise CheckFailed(
            "a proxy in between takes no-transform out of Cache-Control", "let the proxy pass that header on unchanged"
        )
    if "content-encoding" in answer.headers:
        coding = answer.headers["content-encoding"]
        raise CheckFailed(f"a proxy in between compresses the stream ({coding[:20]})", BUFFERING_ADVICE)


def refusal_of(response: httpx.Response) -> CheckFailed:
    """What an error answer says."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    return _refusal(response.status_code, kind, response.content)


def _refusal(status: int, kind: str, body: bytes) -> CheckFailed:
    """The daemon's own words where it has some."""
    said = _decoded(body)
    detail, hint = said.get("detail"), said.get("hint")
    if isinstance(detail, str) and isinstance(hint, str):
        return CheckFailed(f"HTTP {status}: {detail}", hint)
    return CheckFailed(f"HTTP {status} with {kind[:60] or 'no type'}: no broker answers there", PROXY_ADVICE)


def _object_of(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise refusal_of(response)
    return _decoded(response.content)


def _decoded(body: bytes | str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _inside(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def _away(since: object) -> str:
    """When Redis was last heard, in the time of this machine. It may have gone later."""
    try:
        begun = datetime.fromisoformat(str(since)).astimezone()
    except ValueError:
        return "Redis does not deliver every channel"
    seconds = (datetime.now().astimezone() - begun).total_seconds()
    day = "" if begun.date() == datetime.now().date() else f"{begun:%Y-%m-%d} "
    return f"heard nothing from Redis since {day}{begun:%H:%M:%S} ({max(0.0, seconds):.0f} s)"
