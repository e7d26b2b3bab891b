"""The answer to a request for an event stream: its head, its keep-alives, its last words.

Over HTTP/1.1 it is chunked, so that a client can tell its end from a cut; over HTTP/1.0 it is bare
and ends with the connection. Everything goes through the client's outbox. Bytes that the client sends
behind its request are ignored, up to a bound.

Source: WHATWG HTML, 9.2; the wire contract, "Base: SSE".
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import trio
from attrs import define, field

from broker import eventstream
from broker.client import Client, fenced
from broker.config.sections import Sse
from broker.ending import (
    DISCONNECTED,
    INTERNAL_ERROR,
    LEFT,
    OUTBOX_FULL,
    OUTBOX_STALE,
    OUTBOX_TOTAL,
    REQUEST_TOO_BIG,
    REVOKED,
    SHUTDOWN,
    TOKEN_EXPIRED,
    VANISHED,
    Ending,
)
from broker.headers import NOSNIFF
from broker.timestamp import timestamp

_IGNORED_BYTES_MAX = 64 * 1024
_UNTOLD_MAX_BYTES = 256 * 1024


def stream_head(chunked: bool, cors: dict[str, str]) -> bytes:
    """The head of the answer, to the empty line."""
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: text/event-stream",
        "Cache-Control: no-cache, no-transform",
        "X-Accel-Buffering: no",
        NOSNIFF,
        "Connection: keep-alive" if chunked else "Connection: close",
    ]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    lines += [f"{name}: {value}" for name, value in cors.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def failure(message: str, *, id: str | None = None, **facts: str) -> bytes:
    """An `error` event."""
    return eventstream.block(failure_body(message, **facts), event="error", id=id)


def failure_body(message: str, **facts: str) -> bytes:
    """What an `error` event carries."""
    return msgspec.json.encode({"type": "error", "error": message, **facts, "timestamp": timestamp(time.time())})


@define(eq=False)
class AnswerStream:
    """The part of a client's conversation that every event stream shares.

    Args:
        head: the answer's head, sent with whatever is sent first.
    """

    _client: Client
    _bounds: Sse
    _chunked: bool
    _head: bytes
    _ignored: int = field(init=False, default=0)
    # `connected` comes first: what is for the user before that waits.
    _untold: list[bytes] | None = field(init=False, factory=list)

    def receive(self, data: bytes) -> None:
        self._ignored += len(data)
        if self._ignored > _IGNORED_BYTES_MAX:
            self._client.end(REQUEST_TOO_BIG)

    def pulse(self, now: float) -> float:
        self.send(eventstream.comment(f"keep-alive {timestamp(time.time())}"))
        return now + self._bounds.keep_alive_seconds

    def goodbye(self, ending: Ending) -> bytes:
        if ending in (LEFT, VANISHED, REQUEST_TOO_BIG):
            return b""
        last = _LAST_WORDS.get(ending, _no_words)(self._client)
        head, self._head = self._head, b""  # still there where opening it failed
        if not self._chunked:
            return head + last
        return head + (eventstream.chunk(last) if last else b"") + eventstream.END_OF_CHUNKS

    @property
    def awaits_peer(self) -> bool:
        return False

    def greet(self, *, id: str | None = None, **facts: object) -> None:
        """Say `connected`."""
        greeting = {
            "type": "connected",
            "message": "SSE connection established",
            "clientId": self._client.id,
            **facts,
            "timestamp": timestamp(time.time()),
        }
        self.send(eventstream.block(msgspec.json.encode(greeting), id=id))
        untold, self._untold = self._untold or (), None
        for event in untold:
            self.tell(event)

    def failed(self) -> None:
        """What came on its channel could not be handed on, as the log says."""
        self._client.fail(is_logged=True)

    @fenced
    def tell(self, event: bytes) -> None:
        """Send an event that is for the client's user, on no channel."""
        if self._untold is None:
            self.send(eventstream.block(self.user_event(event)), 1)
        elif sum(map(len, self._untold)) < _UNTOLD_MAX_BYTES:
            self._untold.append(event)
        else:
            self._client.end(OUTBOX_FULL)

    def user_event(self, event: bytes) -> bytes:
        """An event that is for the client's user, as this stream has it."""
        return event

    def send(self, data: bytes, events: int = 0) -> None:
        """Send whole blocks, which hold `events` events of a channel. Never waits, raises nothing."""
        if data and self._chunked:
            data = eventstream.chunk(data)
        head, self._head = self._head, b""
        self._client.outbox.deliver(head + data, events, trio.current_time())


def _shutdown_words(client: Client) -> bytes:
    body = {
        "type": "server_shutdown",
        "message": "Server is shutting down",
        "timestamp": timestamp(time.time()),
    }
    return eventstream.block(msgspec.json.encode(body), retry_milliseconds=client.reconnect_milliseconds)


def _slow_words(client: Client) -> bytes:
    return failure("client too slow: events were dropped; reconnect to go on")


def _named(ending: Ending, message: str) -> bytes:
    """The last event of a stream, called as its ending."""
    body = {"type": ending.name, "message": message, "timestamp": timestamp(time.time())}
    return eventstream.block(msgspec.json.encode(body), event=ending.name)


def _no_words(client: Client) -> bytes:
    return b""


_LAST_WORDS: dict[Ending, Callable[[Client], bytes]] = {
    SHUTDOWN: _shutdown_words,
    OUTBOX_FULL: _slow_words,
    OUTBOX_STALE: _slow_words,
    OUTBOX_TOTAL: _slow_words,
    TOKEN_EXPIRED: lambda client: _named(TOKEN_EXPIRED, "the token expired; come back with a new one"),
    REVOKED: lambda client: _named(REVOKED, "the token was revoked; get a new one"),
    DISCONNECTED: lambda client: _named(DISCONNECTED, "disconnected by the operator"),
    INTERNAL_ERROR: lambda client: failure("internal error; it is in the daemon's log"),
}
