"""The connections of a `Publisher`: made when needed, kept for the next call, shared by threads.

Laws: a connection is used by one thread at a time, and never again after a breakdown; waiting for one
is part of the call's time. A forked child has none of them. Bound: `connections_max`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field

from broker.publisher.conversation import Scripting
from broker.publisher.destination import Destination
from broker.publisher.exchange import CLOSED_OUTCOME, Breakdown, Outcome, busy
from broker.publisher.publication import Publication
from broker.publisher.statistics import BUSY


@define(eq=False)
class Pool:
    """Idle connections, the last used first. Blocks up to the deadline it is given; raises nothing."""

    _destination: Destination
    _free: threading.BoundedSemaphore = field(init=False)
    _idle: list[Any] = field(init=False, factory=list)
    # Every open connection, idle or not: what a forked child has to close.
    _all: set[Any] = field(init=False, factory=set)
    _make: Any = field(init=False, default=None)
    is_closed: bool = field(init=False, default=False)
    _scripting: Scripting = field(init=False, factory=Scripting)

    def __attrs_post_init__(self) -> None:
        self._free = threading.BoundedSemaphore(self._destination.connections_max)

    def exchange(self, batch: Sequence[Publication], deadline: float) -> Outcome:
        """Publish `batch` by `deadline`, a time of `time.monotonic`."""
        if self.is_closed:
            return CLOSED_OUTCOME
        free = self._free
        left = deadline - time.monotonic()
        # Nothing is left where the call waited for a thread: then a try could only be cut off half way.
        if left <= 0 or not free.acquire(timeout=left):
            return Outcome((), Breakdown(BUSY, busy(self._destination)))
        try:
            return self._exchange(batch, deadline)
        finally:
            free.release()

    def _exchange(self, batch: Sequence[Publication], deadline: float) -> Outcome:
        from broker.publisher import connection as wire

        connection = self._fresh()
        try:
            if connection is None:
                try:
                    connection = self._new()
                except Exception as error:  # redis-py does not say what a bad URL raises
                    return Outcome((), wire.unreachable(error, self._destination))
                self._all.add(connection)
                if (breakdown := wire.connect(connection, deadline, self._destination)) is not None:
                    return Outcome((), breakdown)
            outcome = wire.exchange(connection, batch, deadline, self._destination, self._scripting)
            if outcome.breakdown is None and not self.is_closed:
                self._idle.append(connection)
                connection = None
            return outcome
        finally:
            # Also on KeyboardInterrupt half way: its answer would be read as the next one's.
            if connection is not None:
                self._drop(connection)

    def _fresh(self) -> Any:
        """An idle connection that Redis has not closed, or None: so a restart of Redis costs nothing."""
        from broker.publisher import connection as wire

        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if wire.is_fresh(connection):
                return connection
            self._drop(connection)

    def _new(self) -> Any:
        from broker.publisher import connection as wire

        if self._make is None:
            self._make = wire.maker(self._destination)
        return self._make()

    def _drop(self, connection: Any) -> None:
        self._all.discard(connection)
        with suppress(Exception):
            connection.disconnect()

    def close(self) -> None:
        """Close what is idle; what is in use closes after its call. May be called again."""
        self.is_closed = True
        while self._idle:
            self._drop(self._idle.pop())

    def abandon(self) -> None:
        """In a forked child: close every descriptor, which sends nothing to the parent's Redis."""
        self._idle.clear()
        for connection in list(self._all):
            self._drop(connection)
