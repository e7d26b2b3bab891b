"""A loss: why a connection ended, in words, and whether another one can mend it."""

from __future__ import annotations

import json
from typing import Any

import trio
from attrs import frozen
from trio_websocket import ConnectionClosed, ConnectionRejected

from broker.ending import ENDINGS, REVOKED, TOKEN_EXPIRED, TOO_MANY_COMMANDS, TOO_MANY_CONNECTIONS, UNAUTHENTICATED
from broker.subscriber.credential import NoToken

FINAL_CODES = {e.code for e in ENDINGS if not e.reconnect} - {e.code for e in ENDINGS if e.reconnect}
TOKEN_CODES = {UNAUTHENTICATED.code, TOKEN_EXPIRED.code, REVOKED.code}
HASTE_CODES = {TOO_MANY_COMMANDS.code, TOO_MANY_CONNECTIONS.code}
_TOKEN_STATUSES = (401, 403)

HASTE_SECONDS = 1.0  # where a second try at once would not help, and the broker has no way to say when one would
RETRY_MAX_SECONDS = 300.0  # whatever it says
_WORDS_CHARACTERS = 200

_START = "start it with `broker serve`, or correct the URL"
_TOKEN = "give a token that it takes"


@frozen
class Loss:
    """Why there is no connection.

    Args:
        is_final: the broker does not want this subscriber back.
        is_of_token: it is the token that it does not want, or not any more.
        is_expiry: the token is over.
        wait_seconds: how long it wants to be left alone.
        hint: what a person may do about it.
    """

    why: str
    is_final: bool = False
    is_of_token: bool = False
    is_expiry: bool = False
    wait_seconds: float = 0.0
    hint: str = _START

    @classmethod
    def of(cls, error: Exception | None, *, silence_seconds: float, was_live: bool) -> Loss:
        """What `error`, which ended a connection, means; None for a connection that just ended."""
        if isinstance(error, trio.TooSlowError):
            return cls(f"nothing came for {silence_seconds:g} s" if was_live else "it did not answer in time")
        if isinstance(error, NoToken):
            return cls(str(error), hint="see what the callable asks")
        if isinstance(error, ConnectionRejected):
            return cls._of_answer(error)
        if isinstance(error, ConnectionClosed):
            if error.reason is None or error.reason.code == 1006:
                return cls("the connection broke")
            return cls._of_close(error.reason.code, error.reason.reason)
        if error is None:
            return cls("the connection broke")
        cause = error.__cause__ or error
        return cls(str(leaves(cause)[0] if isinstance(cause, BaseExceptionGroup) else cause) or repr(cause))

    @classmethod
    def _of_answer(cls, error: ConnectionRejected) -> Loss:
        """An HTTP answer in place of a WebSocket."""
        status = error.status_code
        detail = _detail(error.body)
        why = f"it answered HTTP {status} to the WebSocket handshake" + (f": {detail}" if detail else "")
        if status in _TOKEN_STATUSES:
            return cls(why, is_final=True, is_of_token=True, wait_seconds=HASTE_SECONDS, hint=_TOKEN)
        if status in (429, 503):
            seconds = _retry_after(error.headers)
            return cls(why, wait_seconds=seconds, hint=f"try again in {seconds:g} s" if seconds else _START)
        return cls(why, is_final=400 <= status < 500 and status not in (408, 425))

    @classmethod
    def _of_close(cls, code: int, reason: str | None) -> Loss:
        why = f"closed with code {code}: {reason or 'no reason given'}"
        if code in TOKEN_CODES:
            is_expiry = code == TOKEN_EXPIRED.code
            seconds = 0.0 if is_expiry else HASTE_SECONDS
            return cls(why, is_final=True, is_of_token=True, is_expiry=is_expiry, wait_seconds=seconds, hint=_TOKEN)
        return cls(why, code in FINAL_CODES, wait_seconds=HASTE_SECONDS if code in HASTE_CODES else 0.0)


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """What is in a group at any depth, without the cancellations."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return [error for error in found if not isinstance(error, trio.Cancelled)]


def _detail(body: bytes | None) -> str:
    """The broker's words in an error's body, on one line; empty where there are none."""
    try:
        said = json.loads(body or b"")
    except (ValueError, RecursionError):
        return ""
    detail = said.get("detail") if isinstance(said, dict) else None
    words = detail if isinstance(detail, str) else ""
    return "".join(each if each.isprintable() else " " for each in words)[:_WORDS_CHARACTERS]


def _retry_after(headers: tuple[tuple[bytes, bytes], ...]) -> float:
    """Seconds; 0 where nothing is said, or not in seconds."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.strip().isdigit():
            return min(float(value), RETRY_MAX_SECONDS)
    return 0.0
