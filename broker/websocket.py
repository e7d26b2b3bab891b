"""A WebSocket client: the opening handshake, frames in by wsproto, frames out by the outbox.

wsproto's `Connection` owns the protocol state; everything that it wants sent goes through the same
outbox as the frames that the hub pushes, so the order on the wire is one. No extension is ever
negotiated: a compressed message has no bound before it is unpacked.

Source: RFC 6455; the wire contract, "Base: WebSocket".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import trio
from attrs import define, field
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from broker.client import Client
from broker.clientele import Clientele
from broker.config.sections import Clients, WebSocket
from broker.ending import (
    BAD_TEXT,
    FRAME_TOO_BIG,
    INTERNAL_ERROR,
    LEFT,
    OUTBOX_FULL,
    OUTBOX_STALE,
    PROTOCOL_ERROR,
    SHUTDOWN,
    SILENT,
    VANISHED,
    Ending,
)
from broker.frames import PING, text_frame
from broker.hub import Hub
from broker.position import Since, Start
from broker.request import Request, RequestRefused
from broker.session import Reply, Session, Step, Subscribe, Unsubscribe
from broker.topic.topic import Outlet
from broker.visit import Visit
from broker.wireformat import WEBSOCKET, WEBSOCKET_V1, WireFormat

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_EMPTY_FRAGMENTS_MAX = 1000
SUBPROTOCOL = b"broker.v1"


class Talk(Protocol):
    """What a conversation says: the broker's commands, or the tests' echo."""

    def opened(self) -> bytes: ...
    def text(self, text: str) -> None: ...
    def binary(self, data: bytes) -> None: ...
    def heartbeat(self) -> None: ...
    def farewell(self) -> bytes: ...
    def closed(self) -> None: ...
    @property
    def channel_names(self) -> list[str]: ...


def asks_for_v1(request: Request) -> bool:
    """Whether the client names `broker.v1` among the subprotocols that it speaks."""
    offered = [value for name, value in request.headers if name == b"sec-websocket-protocol"]
    return SUBPROTOCOL in [part.strip() for part in b",".join(offered).split(b",")]


def handshake(request: Request, subprotocol: bytes | None = None) -> bytes:
    """The answer to an upgrade request.

    Raises:
        RequestRefused: it is not a WebSocket handshake of version 13 (RFC 6455, 4.2.1).
    """
    if request.method != "GET":
        raise RequestRefused(405, "a WebSocket begins with GET", "Use GET.", {"Allow": "GET"})
    if not request.upgrades_to_websocket or request.http_version != b"1.1":
        raise RequestRefused(
            426,
            "this path speaks WebSocket only",
            "Send Connection: Upgrade and Upgrade: websocket, or use /api/stream for Server-Sent Events.",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        )
    if request.header(b"sec-websocket-version") != b"13":
        raise RequestRefused(
            426,
            "only WebSocket version 13 is spoken here",
            "Send Sec-WebSocket-Version: 13.",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        )
    keys = [value for name, value in request.headers if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _is_key(keys[0]):
        raise RequestRefused(
            400, "Sec-WebSocket-Key is not 16 bytes of base64", "Send one Sec-WebSocket-Key of 16 random bytes."
        )
    accept = base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest())
    chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, chosen)
    )


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


@define(eq=False)
class WebSocketDoor:
    """Serves `/ws`. `served` are the channel types; None for all."""

    _hub: Hub
    _clientele: Clientele
    _clients: Clients
    _websocket: WebSocket
    _served: frozenset[str] | None
    is_upstream_away: Callable[[], bool]

    async def serve(self, visit: Visit, request: Request) -> bool:
        is_v1 = asks_for_v1(request)
        answer = handshake(request, SUBPROTOCOL if is_v1 else None)
        user_id = dict(request.query()).get("userId")
        client = Client(f"ws_{os.urandom(8).hex()}", "websocket", user_id, visit.socket, self._clients)

        def converse(client: Client) -> WebSocketConversation:
            session = Session(self._clients.subscriptions_max, self._served, is_v1)
            format = WEBSOCKET_V1 if is_v1 else WEBSOCKET
            talk = WebSocketSubscriber(client, self._hub, session, format, self.is_upstream_away)
            return WebSocketConversation(client, self._websocket, talk, answer, visit.hand_over())

        ending = await self._clientele.serve(client, converse)
        visit.served = f"{client.id} until {ending.name}"
        return False


@define(eq=False)
class WebSocketConversation:
    """The protocol on one connection: handshake answer, messages, heartbeat, close.

    Args:
        answer: the handshake's answer, sent first.
        early: bytes that came behind the handshake.
    """

    _client: Client
    _bounds: WebSocket
    _talk: Talk
    _answer: bytes
    _early: bytes
    _wire: Connection = field(init=False)
    _parts: list[str | bytes] | None = field(init=False, default=None)
    _size: int = field(init=False, default=0)
    _empty_fragments: int = field(init=False, default=0)
    _heard_at: float = field(init=False, default=0.0)
    _ping_at: float = field(init=False, default=0.0)
    _close_reply: CloseConnection | None = field(init=False, default=None)
    _why: str = field(init=False, default="")
    # Behind a close frame or an error wsproto reads nothing more, and would keep all that it is given. A message
    # that is too big goes on and on: what is left of it is not worth parsing.
    _deaf: bool = field(init=False, default=False)

    def opened(self) -> float:
        self._wire = Connection(ConnectionType.SERVER)
        self._heard_at = trio.current_time()
        self._ping_at = self._heard_at + self._bounds.ping_seconds
        self._client.outbox.send(self._answer + self._talk.opened(), self._heard_at)
        self._answer = b""
        if self._early:
            self.receive(self._early)
            self._early = b""
        return self._wake_at()

    def receive(self, data: bytes) -> None:
        self._heard_at = trio.current_time()
        if self._deaf:
            return
        self._wire.receive_data(data)
        for event in self._wire.events():
            if isinstance(event, CloseConnection):
                self._on_close(event)
                return
            if self._client.ending is not None:
                continue  # ours to close: what else arrives is too late
            if isinstance(event, Message):
                self._on_message(event)
                if self._deaf:
                    return
            elif isinstance(event, Ping):
                self._client.outbox.send(self._wire.send(event.response()), self._heard_at)

    def pulse(self, now: float) -> float:
        if now - self._heard_at >= self._bounds.silence_seconds:
            self._client.end(SILENT)
        elif now >= self._ping_at:
            self._ping_at = now + self._bounds.ping_seconds
            self._client.outbox.send(PING, now)
            self._talk.heartbeat()
        return self._wake_at()

    def goodbye(self, ending: Ending) -> bytes:
        if self._wire.state is ConnectionState.REMOTE_CLOSING:
            reply = self._close_reply
            return self._wire.send(reply) if reply is not None else b""
        if ending.code is None or ending is LEFT or self._wire.state is not ConnectionState.OPEN:
            return b""
        last = self._talk.farewell() if ending is SHUTDOWN else b""
        return last + self._wire.send(CloseConnection(ending.code, self._why or ending.reason))

    @property
    def awaits_peer(self) -> bool:
        return (
            self._wire.state is ConnectionState.LOCAL_CLOSING
            and not self._deaf
            and self._client.ending not in _BEYOND_TALKING
        )

    @property
    def channel_names(self) -> list[str]:
        return self._talk.channel_names

    def closed(self) -> None:
        self._talk.closed()

    def _wake_at(self) -> float:
        return min(self._ping_at, self._heard_at + self._bounds.silence_seconds)

    def _on_message(self, event: Message) -> None:  # type: ignore[type-arg]
        size = len(event.data) if isinstance(event, BytesMessage) else len(event.data.encode())
        self._size += size
        self._empty_fragments += event.frame_finished and not size
        if self._size > self._bounds.message_max_bytes or self._empty_fragments > _EMPTY_FRAGMENTS_MAX:
            self._parts = None
            self._deaf = True
            self._client.end(FRAME_TOO_BIG)
            return
        if self._parts is None and event.message_finished:
            data = event.data
        else:
            if self._parts is None:
                self._parts = []
            self._parts.append(event.data)
            if not event.message_finished:
                return
            data = "".join(self._parts) if isinstance(event, TextMessage) else b"".join(self._parts)  # type: ignore[arg-type]
            self._parts = None
        self._size = self._empty_fragments = 0
        if isinstance(event, TextMessage):
            self._talk.text(data)
        else:
            self._talk.binary(data)

    def _on_close(self, event: CloseConnection) -> None:
        self._deaf = True
        if self._wire.state is not ConnectionState.OPEN:
            self._close_reply = event.response()
            self._client.end(LEFT)
            return
        # wsproto names what the peer did wrong in a close event of its own, with its state unchanged.
        self._why = (event.reason or "")[:100]
        self._client.end(BAD_TEXT if event.code == CloseReason.INVALID_FRAME_PAYLOAD_DATA else PROTOCOL_ERROR)


# Endings after which the peer's half of the goodbye is not waited for (RFC 6455, 7.1.7).
_BEYOND_TALKING = (VANISHED, INTERNAL_ERROR, OUTBOX_FULL, OUTBOX_STALE, SILENT)


@define(eq=False)
class WebSocketSubscriber:
    """The broker's side of the talk: runs what the session's rules say."""

    _client: Client
    _hub: Hub
    _session: Session
    _format: WireFormat
    _is_upstream_away: Callable[[], bool]

    @property
    def outlet(self) -> Outlet:
        return self._client.outbox

    @property
    def channel_names(self) -> list[str]:
        return self._session.channel_names

    def opened(self) -> bytes:
        self._client.outbox.on_drained = self._drained
        return text_frame(self._session.greeting(self._client.id, time.time()))

    def text(self, text: str) -> None:
        self._run(self._session.receive_text(text, time.time()))

    def binary(self, data: bytes) -> None:
        self._run(self._session.receive_binary(time.time()))

    def heartbeat(self) -> None:
        self._send(self._session.heartbeat(time.time()))

    def farewell(self) -> bytes:
        return text_frame(self._session.farewell(time.time()))

    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        for name in names:
            self._run(self._session.joined(name.decode(), starts.get(name), time.time()))

    def refused(self, name: bytes, why: str) -> None:
        self._run(self._session.refused(name.decode(), why, time.time()))

    def stream_ended(self, name: bytes) -> None:
        """A WebSocket outlives the streams on it."""

    def closed(self) -> None:
        for channel in self._session.every_channel():
            self._hub.leave(self, channel.name.encode())

    def _drained(self) -> None:
        names = [channel.name.encode() for channel in self._session.every_channel()]
        self._hub.drained(self, names, trio.current_time())

    def _run(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Reply):
                self._send(step.body)
            elif isinstance(step, Subscribe):
                self._join(step.channel.name.encode(), step.since)
            else:
                self._leave(step)

    def _join(self, name: bytes, since: Since | None) -> None:
        was = {} if since is None else {name: since}
        if not self._hub.join(self, (name,), self._format, was, trio.current_time()) and self._is_upstream_away():
            self._run(self._session.waiting(name.decode(), time.time()))

    def _leave(self, step: Unsubscribe) -> None:
        for channel in step.channels:
            self._hub.leave(self, channel.name.encode())

    def _send(self, body: bytes) -> None:
        self._client.outbox.send(text_frame(body), trio.current_time())
