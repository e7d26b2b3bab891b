"""A WebSocket client's talk with the broker: runs what the session's rules say, with the hub, the gate and the intake.

Synchronous. Bounds: `_HELD_MAX` messages that wait while a token is looked at; `_BAD_TOKENS_MAX` tokens that do not
count; `_TOKENS_PER_SECOND` of those that do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

import trio
from attrs import define, field

from broker.auth.identity import USER, Identity
from broker.bucket import Bucket
from broker.channel import Channel
from broker.client import Client, fenced
from broker.clientele import Clientele
from broker.ending import TOO_MANY_COMMANDS, TOO_MANY_CONNECTIONS, UNAUTHENTICATED
from broker.errors import TokenRefused
from broker.frames import text_frame
from broker.gate import Gate
from broker.hub import Hub
from broker.intake import Intake
from broker.position import Since, Start
from broker.seats import NO_SEAT, Seat
from broker.session import Authenticate, Publish, Reply, Session, Step, Subscribe, Unsubscribe
from broker.topic.topic import Outlet
from broker.wireformat import USER_EVENT, WireFormat

_HELD_MAX = 100
_HELD_MAX_CHARACTERS = 64 * 1024
# Looking at a token costs more than anything else that a client can ask for.
_BAD_TOKENS_MAX = 5
_TOKENS_PER_SECOND = 0.1
_TOKENS_BURST = 10


@define(eq=False)
class WebSocketSubscriber:
    """The broker's side of the talk: runs what the session's rules say."""

    _client: Client
    _hub: Hub
    _clientele: Clientele
    _gate: Gate
    _intake: Intake
    _session: Session
    _format: WireFormat
    _is_upstream_away: Callable[[], bool]
    _errors: Counter[str]
    # While a token is looked at, what the client says next waits.
    _held: list[str] | None = field(init=False, default=None)
    _bad_tokens: int = field(init=False, default=0)
    _tokens: Bucket | None = field(init=False, default=None)
    _seat: Seat = field(init=False, default=NO_SEAT)
    _is_closed: bool = field(init=False, default=False)

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
        if self._held is None:
            self._run(self._session.receive_text(text, time.time()))
        elif len(self._held) < _HELD_MAX and sum(map(len, self._held)) + len(text) <= _HELD_MAX_CHARACTERS:
            self._held.append(text)
        else:
            self._client.end(TOO_MANY_COMMANDS)

    @fenced
    def tell(self, event: bytes) -> None:
        self._client.outbox.deliver(USER_EVENT[self._format](event), 1, trio.current_time())

    def binary(self, data: bytes) -> None:
        self._run(self._session.receive_binary(time.time()))

    def heartbeat(self) -> None:
        self._send(self._session.heartbeat(time.time()))

    def farewell(self) -> bytes:
        return text_frame(self._session.farewell(self._client.reconnect_milliseconds, time.time()))

    @fenced
    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        for name in names:
            self._run(self._session.joined(name.decode(), starts.get(name), time.time()))

    @fenced
    def refused(self, name: bytes, why: str) -> None:
        self._run(self._session.refused(name.decode(), why, time.time()))

    def stream_ended(self, name: bytes) -> None:
        """A WebSocket outlives the streams on it."""

    def failed(self) -> None:
        self._client.fail(is_logged=True)

    def closed(self) -> None:
        self._is_closed = True
        self._seat.leave()
        for channel in self._session.every_channel():
            self._hub.leave(self, channel.name.encode())

    @fenced
    def _drained(self) -> None:
        names = [channel.name.encode() for channel in self._session.every_channel()]
        self._hub.drained(self, names, trio.current_time())

    def _run(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Reply):
                if step.code:
                    self._errors[step.code] += 1
                self._send(step.body)
            elif isinstance(step, Subscribe):
                self._join(step.channel.name.encode(), step.since)
            elif isinstance(step, Unsubscribe):
                self._leave(step)
            elif isinstance(step, Authenticate):
                self._authenticate(step)
            else:
                self._publish(step)

    def _authenticate(self, step: Authenticate) -> None:
        if self._tokens is None:
            self._tokens = Bucket(_TOKENS_PER_SECOND, _TOKENS_BURST)
        if self._tokens.take(trio.current_time()):
            self._client.end(TOO_MANY_COMMANDS)
            return
        self._held = []
        self._gate.look_at_soon(step.token, self._looked_at)

    @fenced
    def _looked_at(self, found: Identity | TokenRefused) -> None:
        """The token of an `authenticate` was looked at. Synchronous; may come from within `_run`, or later."""
        held, self._held = self._held or (), None
        if self._client.ending is not None:
            return
        now = time.time()
        why = str(found) if isinstance(found, TokenRefused) else self._session.objection(found)
        if why is not None or isinstance(found, TokenRefused):
            self._bad_tokens += 1
            self._run(self._session.not_authenticated(why or "", now))
            if self._bad_tokens >= _BAD_TOKENS_MAX:
                self._client.end(UNAUTHENTICATED)
                return
        elif self._client.identity.kind != USER and found.limited_user is not None:
            self._held = list(held)  # until there is a seat for the user
            self._clientele.seats.take_soon(found.limited_user, "websocket", lambda seat: self._seated(found, seat))
            return
        else:
            self._become(found)
        for text in held:
            self.text(text)

    @fenced
    def _seated(self, found: Identity, seat: Seat | str) -> None:
        """There is room for one more client of the user, or not."""
        held, self._held = self._held or (), None
        if isinstance(seat, str):
            self._client.end(TOO_MANY_CONNECTIONS)
            return
        if self._client.ending is not None or self._is_closed:
            seat.leave()
            return
        self._seat = seat
        why = self._gate.objection(found)
        if why is not None:
            self._run(self._session.not_authenticated(why, time.time()))
            self._client.end(UNAUTHENTICATED)
            return
        self._become(found)
        for text in held:
            self.text(text)

    def _become(self, found: Identity) -> None:
        self._client.spare()
        self._clientele.identify(self._client, found)
        self._run(self._session.authenticated(found, time.time()))

    def _publish(self, step: Publish) -> None:
        self._intake.take(step.channel, step.payload, lambda code, why: self._published(step.channel, code, why))

    @fenced
    def _published(self, channel: Channel, code: str | None, why: str) -> None:
        now, session = time.time(), self._session
        self._run(session.published(channel, now) if code is None else session.not_published(code, why, now))

    def _join(self, name: bytes, since: Since | None) -> None:
        was = {} if since is None else {name: since}
        if not self._hub.join(self, (name,), self._format, was, trio.current_time()) and self._is_upstream_away():
            self._run(self._session.waiting(name.decode(), time.time()))

    def _leave(self, step: Unsubscribe) -> None:
        for channel in step.channels:
            self._hub.leave(self, channel.name.encode())

    def _send(self, body: bytes) -> None:
        self._client.outbox.send(text_frame(body), trio.current_time())
