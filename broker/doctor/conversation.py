"""A WebSocket conversation with the daemon, on wsproto alone.

No client library stands between: a check must see what the handshake was answered, and by whom.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import trio
from attrs import Factory, define
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, RejectConnection, Request, TextMessage
from wsproto.utilities import ProtocolError

from broker.doctor.finding import CheckFailed
from broker.doctor.target import Target

RIGHTS_ADVICE = (
    "give a token that may, with --token: "
    "broker token create --user doctor --subscribe '*' --publish 'job_progress:*' --admin"
)
_READ_BYTES = 64 * 1024
_UPGRADE_ADVICE = (
    "let the proxy pass WebSockets on; nginx: proxy_http_version 1.1, "
    'proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection "upgrade"'
)


@define(eq=False)
class Conversation:
    """One WebSocket, open. Whoever opened it closes it, with `close` or `cut`."""

    _stream: trio.abc.Stream
    _protocol: WSConnection
    _texts: deque[str] = Factory(deque)
    _parts: list[str] = Factory(list)
    _close_code: int | None = None

    @classmethod
    async def open(cls, target: Target) -> Conversation:
        """Connect and shake hands.

        Raises:
            CheckFailed: no WebSocket there; says who took it away, where that can be told.
        """
        stream = await target.dial()
        conversation = cls(stream, WSConnection(ConnectionType.CLIENT))
        try:
            headers = [(name.encode(), value.encode()) for name, value in target.headers.items()]
            await conversation._shake_hands(
                Request(host=target.authority, target=f"{target.path}/ws", extra_headers=headers)
            )
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return conversation

    async def say(self, command: Mapping[str, Any]) -> None:
        await self._stream.send_all(self._protocol.send(TextMessage(json.dumps(command))))

    async def hear(self) -> str:
        """The next text.

        Raises:
            CheckFailed: the other side closed.
        """
        while not self._texts:
            if self._close_code is not None:
                raise CheckFailed(
                    f"closed with code {self._close_code}", "docs/endings.md and the daemon's log say why"
                )
            await self._read()
        return self._texts.popleft()

    async def hear_message(self, *types: str) -> dict[str, Any]:
        """The next JSON object whose `type` is one of `types`; others are passed over."""
        while True:
            message = _decoded(await self.hear())
            if message.get("type") in types:
                return message

    async def subscribe(self, channel: str) -> None:
        """Subscribe, and wait until that is confirmed.

        Raises:
            CheckFailed: it is refused, or Redis is away.
        """
        await self.say({"type": "subscribe", "channel": channel})
        answer = await self.hear_message("subscribed", "error")
        if answer["type"] == "error" and answer.get("code") == "forbidden":
            raise CheckFailed(f"forbidden: {answer.get('message')}", RIGHTS_ADVICE)
        if answer["type"] == "error":
            raise CheckFailed(
                f"{answer.get('code')}: {answer.get('message')}", "see what stats says, and docs/endings.md"
            )

    async def close(self) -> int:
        """Say goodbye and wait for the answer. Returns the other side's close code."""
        await self._stream.send_all(self._protocol.send(CloseConnection(1000)))
        while self._close_code is None:
            await self._read()
        await self._stream.aclose()
        return self._close_code

    async def cut(self) -> None:
        """Close without a goodbye. Does not wait."""
        await trio.aclose_forcefully(self._stream)

    async def _shake_hands(self, request: Request) -> None:
        await self._stream.send_all(self._protocol.send(request))
        while True:
            data = await self._receive("in place of a WebSocket handshake")
            if not data.startswith(b"HTTP/1."[: len(data)]):
                raise CheckFailed(f"answered {data[:40]!r}, which is no HTTP", "correct the port in the URL")
            events = self._events(data)
            for index, event in enumerate(events):
                if isinstance(event, AcceptConnection):
                    # The greeting may have come with it.
                    self._take_all(events[index + 1 :])
                    return
                if isinstance(event, RejectConnection):
                    raise _rejection(event)

    async def _read(self) -> None:
        answer = self._take_all(self._events(await self._receive("without a close frame")))
        if answer:
            await self._stream.send_all(answer)

    async def _receive(self, where: str) -> bytes:
        data = bytes(await self._stream.receive_some(_READ_BYTES))
        if not data:
            raise CheckFailed(f"the connection was closed {where}", _UPGRADE_ADVICE)
        return data

    def _events(self, data: bytes) -> list[Any]:
        try:
            if data:
                self._protocol.receive_data(data)
            return list(self._protocol.events())
        except ProtocolError as error:
            raise CheckFailed(f"what answers speaks no WebSocket: {error}", _UPGRADE_ADVICE) from None

    def _take_all(self, events: list[Any]) -> bytes:
        """Note what was said. Returns what to answer."""
        answer = b""
        for event in events:
            if isinstance(event, TextMessage):
                self._parts.append(event.data)
                if event.message_finished:
                    self._texts.append("".join(self._parts))
                    self._parts.clear()
            elif isinstance(event, Ping):
                answer += self._protocol.send(event.response())
            elif isinstance(event, CloseConnection):
                self._close_code = event.code
        return answer


def _rejection(event: RejectConnection) -> CheckFailed:
    status = event.status_code
    if status == 426:
        # The daemon answers so to a request without Upgrade, and ours had it.
        return CheckFailed("a proxy in between takes the Upgrade header away (HTTP 426)", _UPGRADE_ADVICE)
    if status in (502, 503, 504):
        return CheckFailed(
            f"HTTP {status} to the WebSocket handshake",
            "start the daemon behind the proxy, or see `connections` in its stats for whether it is full",
        )
    if status in (401, 403):
        return CheckFailed(f"HTTP {status} to the WebSocket handshake", "give a token that may connect, with --token")
    return CheckFailed(f"HTTP {status} to the WebSocket handshake: no broker is at that path", _UPGRADE_ADVICE)


def _decoded(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
