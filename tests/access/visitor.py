"""Somebody with or without a token, at a daemon that asks for one: over HTTP, SSE and WebSocket, blocking."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import jwt
from httpx_sse import EventSource, connect_sse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

SECRET = "a secret of the tests that is longer than 32 bytes"
BOUND_SECONDS = 10.0


def token(user: str | None = "ann", *, seconds: float = 300, secret: str = SECRET, **claims: Any) -> str:
    """A good token, unless `claims` make it a bad one; None leaves a claim out."""
    now = time.time()
    claims = {"sub": user, "iat": int(now), "exp": now + seconds, **claims}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, "HS256")


def bearer(text: str | None) -> dict[str, str]:
    return {} if text is None else {"Authorization": f"Bearer {text}"}


def authorization(text: str) -> bytes:
    """The header that shows a token, as its line."""
    return b"Authorization: Bearer " + text.encode()


class Talker:
    """A WebSocket client that keeps what it was told."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.told: list[Any] = []

    def say(self, kind: str, **fields: Any) -> None:
        self._connection.send(json.dumps({"type": kind, **fields}))

    def hear(self, *kinds: str) -> Any:
        """The next message of one of the types; the others are kept."""
        while True:
            message = json.loads(self._connection.recv(timeout=BOUND_SECONDS))
            self.told.append(message)
            if message.get("type") in kinds or ("event" in message and "event" in kinds):
                return message

    def ask(self, kind: str, *answers: str, **fields: Any) -> Any:
        self.say(kind, **fields)
        return self.hear("error", *answers)

    def subscribe(self, channel: Any) -> Any:
        return self.ask("subscribe", "subscribed", channel=channel)

    def ending(self) -> int:
        """Wait for the end. Returns the close code."""
        try:
            while True:
                self.told.append(json.loads(self._connection.recv(timeout=BOUND_SECONDS)))
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code


@contextmanager
def talking(url: str, **options: Any) -> Iterator[Talker]:
    """A WebSocket connection; it has heard its greeting."""
    with connect(url, close_timeout=1, **options) as connection:
        talker = Talker(connection)
        talker.hear("connected")
        yield talker


@contextmanager
def streaming(url: str, headers: Mapping[str, str] = {}) -> Iterator[EventSource]:
    with (
        httpx.Client(timeout=BOUND_SECONDS) as client,
        connect_sse(client, "GET", url, headers=dict(headers)) as source,
    ):
        yield source
