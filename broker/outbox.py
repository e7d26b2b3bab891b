"""The outbox: everything that goes to one client's socket, in order and bounded.

Write now, queue only the rest. While the queue is empty, bytes go straight to the kernel from
whoever delivers them; what the kernel does not take is queued, and only then does a writer task run
in the client's nursery. Bytes are shared between clients, never copied for one.

Laws: `deliver` and `offer` never wait and never raise. Bounded in bytes (`max_bytes`, or a single batch where
that alone is larger) and in the age of the oldest byte (who is served as slowly as it reads: in the time
since it took anything); over either bound `on_trouble` is told the
ending, once, and nothing more is queued. The outbox owns the descriptor from its making to `close`:
closed means that no late delivery can reach a reused number. What waits counts in the pool of all outboxes.

Over TLS it is a `SealedOutbox`, which changes the three methods that write.

Concurrency: everything but `flush` and the writer is synchronous; one trio thread.
"""

from __future__ import annotations

import math
import os
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice

import structlog
import trio
from attrs import define, field

from broker.ending import INTERNAL_ERROR, OUTBOX_FULL, OUTBOX_STALE, VANISHED, Ending
from broker.outboxpool import OutboxPool, PoolShare

log = structlog.get_logger(__name__)
_write = os.write
_BUFFERS_PER_WRITE = 64


@define(eq=False)
class Outbox:
    """Bytes to one non-blocking socket.

    Args:
        socket: the client's; closed by `close`.
        nursery: where the writer runs while there is a queue.
        on_trouble: told why the client must go; INTERNAL_ERROR while what was raised is being handled. Called from
            within `deliver`; must not deliver.
        patience_seconds: how long a client that was offered what it had no room for may take nothing at all.
        on_drained: told when nothing waits any more, after an offer was refused. May deliver.
        pool: what may wait in all outboxes together; None for no such bound.
    """

    _socket: socket.socket
    _nursery: trio.Nursery
    _on_trouble: Callable[[Ending], None]
    _max_bytes: int
    _max_age_seconds: float
    _patience_seconds: float = math.inf
    on_drained: Callable[[], None] = field(default=lambda: None)
    _pool: OutboxPool | None = None
    _share: PoolShare | None = field(init=False, default=None)
    _fd: int = field(init=False)
    _queue: deque[tuple[float, bytes | memoryview]] | None = field(init=False, default=None)
    _emptied: trio.Event | None = field(init=False, default=None)
    _finished: bool = field(init=False, default=False)
    _writing: bool = field(init=False, default=False)
    _written_at: float = field(init=False, default=0.0)
    _is_patient: bool = field(init=False, default=False)
    _is_refusing: bool = field(init=False, default=False)
    is_torn: bool = field(init=False, default=False)  # nobody knows where the wire is: no last words
    queued_bytes: int = field(init=False, default=0)
    backlog_bytes: int = field(init=False, default=0)  # kept for it elsewhere, until nothing is queued
    events: int = field(init=False, default=0)
    last_event_at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._fd = self._socket.fileno()
        if self._pool is not None:
            self._share = self._pool.share(self._end_for_all)

    def deliver(self, data: bytes, events: int, now: float) -> None:
        """Send `data`, which holds `events` events. Never waits, raises nothing.

        Args:
            now: the time of the loop, in seconds; the age of what is queued counts from it.
        """
        if events:
            self.events += events
            self.last_event_at = now
        if self._queue is not None:
            self._enqueue(data, now)
            return
        try:
            written = _write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._trouble(VANISHED)
            return
        except Exception:
            self._trouble(INTERNAL_ERROR)
            return
        if written != len(data):
            self._begin_queue(data, written, now)

    def offer(self, data: bytes, events: int, now: float, most: int) -> bool:
        """As `deliver`, for who is served as slowly as it reads. Never waits, raises nothing.

        Args:
            most: so many bytes may wait already. Over it, or where `data` has no room, nothing is taken,
                and `on_drained` is called once nothing waits any more.

        Returns:
            Whether it was taken, or it is too late for anything.
        """
        waiting = self.queued_bytes
        if self._queue is not None and not self._finished and (waiting > most or waiting + len(data) > self._max_bytes):
            self._is_patient = self._is_refusing = True
            return False
        self.deliver(data, events, now)
        if self._queue is not None:
            self._is_patient = True
        return True

    def send(self, data: bytes, now: float) -> None:
        """Send what is no event: greetings, answers, heartbeats. Never waits, raises nothing."""
        self.deliver(data, 0, now)

    def finish(self, data: bytes, *, drop_unsent: bool) -> None:
        """Send the last words; what is delivered later is ignored.

        Args:
            drop_unsent: forget what is queued, except what the wire has half of, so that a client
                that is too slow for its queue still has a chance to read why it must go.
        """
        if self._fd < 0 or self.is_torn:
            return
        now = trio.current_time()
        if drop_unsent and self._queue:
            self._queue = deque(islice(self._queue, self._begun()))
        if data and self._queue is None:
            self.send(data, now)
        elif data and self._queue is not None:
            self._queue.append((now, data))
        if self._queue is None:
            # Later deliveries are queued behind the end, where nothing is taken.
            self._queue = deque()
        self.queued_bytes = sum(len(part) for _, part in self._queue)
        self._finished = True
        self._tell_pool()
        self._start_writer()

    async def flush(self) -> None:
        """Wait until the kernel has everything. The caller bounds the wait."""
        if self._queue:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def close(self, *, abort: bool = False) -> None:
        """Close the socket; later deliveries go nowhere. Safe to call again.

        Args:
            abort: reset the connection, so that the kernel keeps nothing for a reader who is gone.
        """
        if self._fd < 0:
            return
        self._fd = -1
        self._queue = deque()
        self._finished = True
        self.queued_bytes = 0
        self._tell_pool()
        close_socket(self._socket, abort=abort)

    def _begin_queue(self, data: bytes, written: int, now: float) -> None:
        rest = memoryview(data)[written:] if written else data
        self._queue = deque(((now, rest),))
        self.queued_bytes = len(rest)
        self._start_writer()
        self._tell_pool()

    def _enqueue(self, data: bytes, now: float) -> None:
        if self._finished:
            return
        if self.queued_bytes + len(data) > self._max_bytes:
            self._trouble(OUTBOX_FULL)
            return
        assert self._queue is not None
        self._queue.append((now, data))
        self.queued_bytes += len(data)
        self._tell_pool()

    def _begun(self) -> int:
        """So many items at the head of the queue are on the wire in part: without their rest a frame would be torn."""
        # A memoryview is the rest of something begun; whole bytes can go.
        return 1 if self._queue and isinstance(self._queue[0][1], memoryview) else 0

    def _tell_pool(self) -> None:
        if self._share is not None:
            self._share.change(self.queued_bytes)

    def _end_for_all(self, ending: Ending) -> None:
        """The pool has too much, and most of it is here; it does not count this outbox any more."""
        self._share = None
        self._trouble(ending)

    def _trouble(self, ending: Ending) -> None:
        if self._finished:
            return
        self._finished = True
        if self._queue is None:
            self._queue = deque()
        self._on_trouble(ending)

    def _start_writer(self) -> None:
        if self._queue and not self._writing:
            self._writing = True
            self._nursery.start_soon(self._write_queue)

    async def _write_queue(self) -> None:
        """Run until the queue is empty or the connection is no use any more."""
        self._written_at = begun_at = trio.current_time()
        while self._queue:
            try:
                with trio.move_on_at(self._deadline()) as waiting:
                    await trio.lowlevel.wait_writable(self._fd)
            except trio.ClosedResourceError:
                return
            if waiting.cancelled_caught:
                if self._deadline() <= trio.current_time():  # it may have become patient meanwhile
                    self._trouble(OUTBOX_STALE)
                continue
            try:
                self._write_some()
                self._written_at = trio.current_time()
                self._tell_pool()
            except BlockingIOError:
                continue
            except OSError:
                self._queue.clear()
                self._trouble(VANISHED)
            except Exception:
                self._queue.clear()
                self.is_torn = True
                if self._finished:  # it goes already, and nobody would hear of it
                    log.exception("last words could not be written")
                self._trouble(INTERNAL_ERROR)
        self._writing = False
        if self._pool is not None:
            self._pool.flushing.add(trio.current_time() - begun_at)
        if not self._finished:
            self._queue = None
            self._is_patient = False
            if self._is_refusing:
                self._is_refusing = False
                self.on_drained()
        if self._emptied is not None:
            self._emptied.set()

    def _deadline(self) -> float:
        """When the client has had its time, as it is now."""
        assert self._queue
        if self._finished:
            return math.inf
        oldest, _ = self._queue[0]
        if self._is_patient:
            return self._written_at + self._patience_seconds
        return oldest + self._max_age_seconds

    def _write_some(self) -> None:
        assert self._queue is not None
        buffers = [data for _, data in islice(self._queue, _BUFFERS_PER_WRITE)]
        written = os.writev(self._fd, buffers)
        self.queued_bytes -= written
        while written:
            then, data = self._queue.popleft()
            if written < len(data):
                self._queue.appendleft((then, memoryview(data)[written:]))
                return
            written -= len(data)


def close_socket(sock: socket.socket, *, abort: bool = False) -> None:
    """Close a socket that trio may be waiting on. Synchronous; raises nothing."""
    if sock.fileno() < 0:
        return
    trio.lowlevel.notify_closing(sock)
    if abort:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except OSError:
            pass
    sock.close()
