"""The outbox of a client over TLS. All laws of `outbox.py` hold.

What waits is plain bytes, sealed when they are written: what is dropped, or counted, is what the client has not been
sent. At most one record is sealed and waits for the kernel; the pieces of the queue in it are begun, so they
stay when the rest is dropped. Small pieces that wait go out in one record together.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import cast

import trio
from attrs import define

from broker.ending import INTERNAL_ERROR, VANISHED, Ending
from broker.outbox import Outbox
from broker.outboxpool import OutboxPool
from broker.tlssocket import RECORD_BYTES, TlsSocket


@define(eq=False)
class SealedOutbox(Outbox):
    """Bytes to one TLS connection; `socket` is a `TlsSocket`."""

    def deliver(self, data: bytes, events: int, now: float) -> None:
        if events:
            self.events += events
            self.last_event_at = now
        if self._queue is not None:
            self._enqueue(data, now)
            return
        try:
            written = self._socket.send(data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._trouble(VANISHED)
            return
        except Exception:
            self.is_torn = True  # some of its records may be on the wire
            self._trouble(INTERNAL_ERROR)
            return
        if written != len(data):
            self._begin_queue(data, written, now)

    def _begun(self) -> int:
        begun, seen = super()._begun(), 0
        sealed = cast(TlsSocket, self._socket).sealed_bytes
        for place, (_, data) in enumerate(self._queue or (), 1):
            if seen >= sealed:
                break
            seen += len(data)
            begun = max(begun, place)
        return begun

    def _write_some(self) -> None:
        assert self._queue is not None
        # What is sealed already goes by itself; what is named here is not looked at then.
        written = self._socket.send(b"" if cast(TlsSocket, self._socket).sealed_bytes else self._next_record())
        self.queued_bytes -= written
        while written:
            then, data = self._queue.popleft()
            if written < len(data):
                self._queue.appendleft((then, memoryview(data)[written:]))
                return
            written -= len(data)

    def _next_record(self) -> bytes | memoryview:
        """The first bytes of the queue, as many as one record holds."""
        assert self._queue is not None
        parts: list[bytes | memoryview] = []
        room = RECORD_BYTES
        for _, data in self._queue:
            parts.append(data if len(data) <= room else memoryview(data)[:room])
            room -= len(parts[-1])
            if not room:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)


def outbox_for(
    sock: socket.socket,
    nursery: trio.Nursery,
    on_trouble: Callable[[Ending], None],
    max_bytes: int,
    max_age_seconds: float,
    patience_seconds: float = math.inf,
    on_drained: Callable[[], None] = lambda: None,
    pool: OutboxPool | None = None,
) -> Outbox:
    """The outbox that fits the socket; the arguments are those of `Outbox`."""
    kind = SealedOutbox if isinstance(sock, TlsSocket) else Outbox
    return kind(sock, nursery, on_trouble, max_bytes, max_age_seconds, patience_seconds, on_drained, pool)
