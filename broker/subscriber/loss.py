"""A loss: why a connection ended, in words, and whether another one can mend it."""

from __future__ import annotations

from typing import Any

import trio
from attrs import frozen
from trio_websocket import ConnectionClosed, ConnectionRejected

from broker.ending import ENDINGS

FINAL_CODES = {e.code for e in ENDINGS if not e.reconnect} - {e.code for e in ENDINGS if e.reconnect}


@frozen
class Loss:
    """`is_final`: the broker does not want this subscriber back."""

    why: str
    is_final: bool = False

    @classmethod
    def of(cls, error: Exception | None, *, silence_seconds: float, was_live: bool) -> Loss:
        """What `error`, which ended a connection, means; None for a connection that just ended."""
        if isinstance(error, trio.TooSlowError):
            return cls(f"nothing came for {silence_seconds:g} s" if was_live else "it did not answer in time")
        if isinstance(error, ConnectionRejected):
            status = error.status_code
            is_final = 400 <= status < 500 and status not in (408, 425, 429)
            return cls(f"it answered HTTP {status} to the WebSocket handshake", is_final)
        if isinstance(error, ConnectionClosed):
            if error.reason is None or error.reason.code == 1006:
                return cls("the connection broke")
            code, reason = error.reason.code, error.reason.reason
            return cls(f"closed with code {code}: {reason or 'no reason given'}", code in FINAL_CODES)
        if error is None:
            return cls("the connection broke")
        cause = error.__cause__ or error
        return cls(str(leaves(cause)[0] if isinstance(cause, BaseExceptionGroup) else cause) or repr(cause))


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """What is in a group at any depth, without the cancellations."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return [error for error in found if not isinstance(error, trio.Cancelled)]
