"""A WebSocket client: the opening handshake, frames in by wsproto, frames out by the outbox.

wsproto's `Connection` owns the protocol state; everything that it wants sent goes through the same
outbox as the frames that the hub pushes, so the order on the wire is one. No extension is ever
negotiated: a compressed message has no bound before it is unpacked.

Source: RFC 6455; the wire contract, "Base: WebSocket".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import trio
from attrs import Factory, define, field
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from broker.auth.identity import ANONYMOUS
from broker.auth.rules import RuleBook
from broker.bucket import Bucket
from broker.client import Client
from broker.clientele import Clientele
from broker.config.access import Limits
from broker.config.sections import Clients, WebSocket
from broker.ending import (
    BAD_TEXT,
    FRAME_TOO_BIG,
    INTERNAL_ERROR,
    LEFT,
    OUTBOX_FULL,
    OUTBOX_STALE,
    OUTBOX_TOTAL,
    PROTOCOL_ERROR,
    SHUTDOWN,
    SILENT,
    TOO_MANY_COMMANDS,
    UNAUTHENTICATED,
    VANISHED,
    Ending,
)
from broker.frames import PING
from broker.gate import Gate
from broker.handshake import SUBPROTOCOL, handshake, subprotocol_of
from broker.hub import Hub
from broker.intake import Intake
from broker.request import Request
from broker.session import Session
from broker.visit import Visit
from broker.websocketsubscriber import WebSocketSubscriber
from broker.wireformat import WEBSOCKET, WEBSOCKET_V1

_EMPTY_FRAGMENTS_MAX = 1000


class Talk(Protocol):
    """What a conversation says: the broker's commands, or the tests' echo."""

    def opened(self) -> bytes: ...
    def text(self, text: str) -> None: ...
    def binary(self, data: bytes) -> None: ...
    def heartbeat(self) -> None: ...
    def tell(self, event: bytes) -> None: ...
    def farewell(self) -> bytes: ...
    def closed(self) -> None: ...
    @property
    def channel_names(self) -> list[str]: ...


@define(eq=False)
class WebSocketDoor:
    """Serves `/ws`.

    Args:
        gate: says who the clients are.
        intake: takes what they publish.
        served: the channel types; None for all.
        errors: `error` events sent, by their code, since the start.
    """

    _hub: Hub
    _clientele: Clientele
    _gate: Gate
    _rules: RuleBook
    _intake: Intake
    _clients: Clients
    _websocket: WebSocket
    _limits: Limits
    _served: frozenset[str] | None
    is_upstream_away: Callable[[], bool]
    errors: Counter[str] = Factory(Counter)

    def adapt(self, clients: Clients, websocket: WebSocket, limits: Limits) -> None:
        """Go by other bounds from here on, for clients that come."""
        self._clients, self._websocket, self._limits = clients, websocket, limits

    async def serve(self, visit: Visit, request: Request) -> bool:
        subprotocol = subprotocol_of(request)
        is_v1 = subprotocol == SUBPROTOCOL
        answer = handshake(request, subprotocol)
        identity = await self._gate.identify(request)
        visit.user_id, claimed = identity.user_id, self._gate.claimed_user(request)
        del request
        seat = await self._clientele.admit(identity, "websocket", self._gate.check_still)
        client = Client(f"ws_{os.urandom(8).hex()}", "websocket", identity, visit.socket, self._clients)
        needs_token = identity.kind == ANONYMOUS and not self._gate.lets_anonymous_in
        if needs_token:
            client.end_at(trio.current_time() + self._gate.patience_seconds, UNAUTHENTICATED)

        def converse(client: Client) -> WebSocketConversation:
            session = Session(
                self._clients.subscriptions_max,
                self._served,
                is_v1,
                identity,
                self._rules,
                claimed,
                needs_token,
            )
            format = WEBSOCKET_V1 if is_v1 else WEBSOCKET
            talk = WebSocketSubscriber(
                client,
                self._hub,
                self._clientele,
                self._gate,
                self._intake,
                session,
                format,
                self.is_upstream_away,
                self.errors,
            )
            commands = Bucket(self._limits.commands_per_second, self._limits.commands_burst)
            return WebSocketConversation(client, self._websocket, talk, answer, visit.hand_over(), commands)

        ending = await self._clientele.serve(client, converse, seat)
        visit.served = f"{client.id} until {ending.name}"
        return False


@define(eq=False)
class WebSocketConversation:
    """The protocol on one connection: handshake answer, messages, heartbeat, close.

    Args:
        answer: the handshake's answer, sent first.
        early: bytes that came behind the handshake.
        commands: how many messages and pings it may still send.
    """

    _client: Client
    _bounds: WebSocket
    _talk: Talk
    _answer: bytes
    _early: bytes
    _commands: Bucket = Factory(lambda: Bucket(0.0, 1))
    _wire: Connection = field(init=False, factory=lambda: Connection(ConnectionType.SERVER))
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
            elif isinstance(event, Ping | Pong) and self._may_speak() and isinstance(event, Ping):
                self._client.outbox.send(self._wire.send(event.response()), self._heard_at)

    def tell(self, event: bytes) -> None:
        self._talk.tell(event)

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
        answer, self._answer = self._answer, b""  # still there where opening it failed
        return answer + last + self._wire.send(CloseConnection(ending.code, self._why or ending.reason))

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
        if not self._may_speak():
            return
        if isinstance(event, TextMessage):
            self._talk.text(data)
        else:
            self._talk.binary(data)

    def _may_speak(self) -> bool:
        if self._commands.take(self._heard_at):
            self._client.end(TOO_MANY_COMMANDS)
            return False
        return True

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
_BEYOND_TALKING = (VANISHED, INTERNAL_ERROR, OUTBOX_FULL, OUTBOX_STALE, OUTBOX_TOTAL, SILENT)
