"""A client: one connection that receives events, one nursery, one task while all is well.

The task reads; the same wait carries the heartbeat, as the deadline of its cancel scope. A second
task, the outbox's writer, runs only while the kernel does not take what is sent. Whoever wants the
client gone calls `end`, which never waits: the client then says goodbye by itself, under a deadline,
and leaves the hub before its socket closes.

Laws: nothing but this task closes the socket; every client has one ending, the first that was named. Whatever is
called for one client, from whichever task, and raises, ends that client and nobody else (`fenced`, `Client.fail`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

import structlog
import trio
from attrs import Factory, define, field, frozen

from broker.auth.identity import Identity
from broker.config.sections import Clients
from broker.ending import (
    COMPLETE,
    INTERNAL_ERROR,
    LEFT,
    OUTBOX_FULL,
    OUTBOX_STALE,
    OUTBOX_TOTAL,
    SHUTDOWN,
    VANISHED,
    Ending,
)
from broker.outbox import Outbox
from broker.outboxpool import OutboxPool
from broker.sealedoutbox import outbox_for

RECEIVE_BYTES = 16 * 1024
T = TypeVar("T", bound=Callable[..., None])

log = structlog.get_logger(__name__)


class Conversation(Protocol):
    """What is said on one connection: the WebSocket or the SSE side of a client. Never waits."""

    def opened(self) -> float:
        """Say hello. Returns when `pulse` is due, in loop seconds."""

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer."""

    def pulse(self, now: float) -> float:
        """Send what is due. Returns when `pulse` is due again."""

    def goodbye(self, ending: Ending) -> bytes:
        """The last bytes to send; empty for none."""

    @property
    def awaits_peer(self) -> bool:
        """Whether the peer still owes its half of the goodbye."""

    @property
    def channel_names(self) -> list[str]:
        """The channels that the client is on."""

    def tell(self, event: bytes) -> None:
        """Send an event that is for the client's user, on no channel."""

    def closed(self) -> None:
        """Leave every channel. Runs under cancellation too."""


@frozen
class ClientStatistics:
    """A snapshot. Times are seconds since 1970; `last_event_at` is None before the first event."""

    id: str
    user_id: str | None
    connected_at: float
    events: int
    last_event_at: float | None
    queued_bytes: int
    channels: tuple[str, ...]
    alive: bool


@define(eq=False)
class Client:
    """One connected client, until `run` returns.

    Args:
        socket: non-blocking; owned from here on.
        transport: `websocket` or `sse`.
        identity: who it is; `Clientele.identify` changes it.
        reconnect_milliseconds: how long it is told to wait before it comes back, where the daemon stops.
    """

    id: str
    transport: str
    identity: Identity
    _socket: socket.socket
    _bounds: Clients
    connected_at: float = Factory(time.time)
    reconnect_milliseconds: int = field(init=False, default=0)
    conversation: Conversation = field(init=False)
    outbox: Outbox = field(init=False)
    ending: Ending | None = field(init=False, default=None)
    _due: tuple[float, Ending] | None = field(init=False, default=None)
    _scope: trio.CancelScope | None = field(init=False, default=None)
    _has_failed: bool = field(init=False, default=False)

    async def run(self, converse: Callable[[Client], Conversation], pool: OutboxPool | None = None) -> Ending:
        """Serve the client until it ends. Runs until then, or until cancelled.

        Args:
            converse: makes the conversation once the outbox is there.
            pool: what may wait for all clients together; None for no such bound.
        """
        abort = True
        async with trio.open_nursery() as nursery:
            self.outbox = outbox_for(
                self._socket,
                nursery,
                self._troubled,
                self._bounds.outbox_max_bytes,
                self._bounds.outbox_max_age_seconds,
                self._bounds.patience_seconds,
                pool=pool,
            )
            conversation = self.conversation = converse(self)
            try:
                try:
                    await self._read()
                except Exception:
                    self.fail()
                try:
                    abort = not await self._farewell()
                except Exception:
                    log.exception("client failed while it left", client=self.id)
            finally:
                # Before the nursery closes: a delivery may still want to start the writer in it.
                self.outbox.close(abort=abort)
                try:
                    conversation.closed()
                except Exception:
                    log.exception("client failed while it left", client=self.id)
            nursery.cancel_scope.cancel()
        return self.ending or VANISHED

    def end(self, ending: Ending) -> None:
        """Ask the client to leave. The first ending stands. Synchronous; never waits."""
        if self.ending is None:
            self.ending = ending
            if self._scope is not None:
                self._scope.cancel()

    def fail(self, *, is_logged: bool = False) -> None:
        """Something was raised, and is being handled, that nobody expected: the log has it, and the client ends.

        Synchronous; never waits. What is delivered later is not taken: it would hide what was not.

        Args:
            is_logged: the log has it already, as it concerns many clients.
        """
        is_news, self._has_failed = not self._has_failed and not is_logged, True
        self.outbox.finish(b"", drop_unsent=False)
        self.end(INTERNAL_ERROR)
        if is_news:
            log.exception("client failed", client=self.id)

    def end_at(self, due: float, ending: Ending) -> None:
        """Have the client end at a time, in loop seconds, unless `spare` is called first. Before it runs."""
        self._due = due, ending

    def spare(self) -> None:
        """Take `end_at` back."""
        self._due = None

    @property
    def user_id(self) -> str | None:
        return self.identity.user_id

    def statistics(self) -> ClientStatistics:
        last = None
        if self.outbox.events:
            last = time.time() - (trio.current_time() - self.outbox.last_event_at)
        return ClientStatistics(
            self.id,
            self.user_id,
            self.connected_at,
            self.outbox.events,
            last,
            self.outbox.queued_bytes,
            tuple(self.conversation.channel_names),
            self.ending is None,
        )

    def _troubled(self, ending: Ending) -> None:
        if ending is INTERNAL_ERROR:
            self.fail()
        else:
            self.end(ending)

    async def _read(self) -> None:
        conversation, sock = self.conversation, self._socket
        wake_at = conversation.opened()
        while self.ending is None:
            with trio.CancelScope(deadline=wake_at if self._due is None else min(wake_at, self._due[0])) as self._scope:
                while self.ending is None:
                    await trio.lowlevel.wait_readable(sock)
                    try:
                        data = sock.recv(RECEIVE_BYTES)
                    except BlockingIOError:
                        continue
                    except OSError:
                        data = b""
                        self.end(VANISHED)
                    if data:
                        conversation.receive(data)
                    else:
                        self.end(LEFT)
            now = trio.current_time()
            if self._due is not None and now >= self._due[0]:
                self.end(self._due[1])
            if self.ending is None and now >= wake_at:
                wake_at = conversation.pulse(now)

    async def _farewell(self) -> bool:
        """Say goodbye. Returns whether everything that was said was taken."""
        assert self.ending is not None
        if self.ending is VANISHED:
            return False
        slow = self.ending in (OUTBOX_FULL, OUTBOX_STALE, OUTBOX_TOTAL)
        data = self.conversation.goodbye(self.ending)
        self.outbox.finish(data, drop_unsent=slow)
        # Who has done nothing wrong may read what is queued as slowly as ever.
        patient = self.ending in (COMPLETE, SHUTDOWN)
        with trio.move_on_after(self._bounds.outbox_max_age_seconds if patient else self._bounds.farewell_seconds):
            await self.outbox.flush()
        if self.outbox.queued_bytes or self.outbox.is_torn:
            return False
        if data or self.ending is not LEFT:
            with trio.move_on_after(self._bounds.farewell_seconds):
                await self._linger()
        return True

    async def _linger(self) -> None:
        """Read what is still under way: closing before it is read would reset the peer before it has read us."""
        half_closed = False
        while True:
            if not half_closed and not self.conversation.awaits_peer:
                half_closed = True
                try:
                    self._socket.shutdown(socket.SHUT_WR)
                except OSError:
                    return
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            self.conversation.receive(data)


def fenced(method: T) -> T:
    """For what others call, of an object with a `_client`: what it raises ends that client, and not the caller."""

    @wraps(method)
    def call(self: Any, *arguments: Any) -> None:
        try:
            method(self, *arguments)
        except Exception:
            self._client.fail()

    return call  # type: ignore[return-value]
