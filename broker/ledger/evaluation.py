"""An evaluation as the ledger tells of it, and when a watcher must give it up.

Synchronous; no I/O, no clock: the ages in a `Sight` come from Redis.
"""

from __future__ import annotations

import os

from attrs import frozen

QUEUED = "queued"
RUNNING = "running"
OVER = "over"


def new_id() -> str:
    """An id that nobody can guess: whoever knows it may watch."""
    return os.urandom(16).hex()


@frozen
class Answered:
    """One event of an evaluation. `name` is `complete` or `error` for the last one, else empty."""

    offset: int
    name: str
    event: bytes


@frozen
class Sight:
    """What a watcher sees of an evaluation.

    Args:
        state: `QUEUED`, `RUNNING` or `OVER`.
        attempt: how often it was taken.
        waited_seconds: since it was queued.
        silent_seconds: since its worker last said that it lives; 0 before the first took it.
        lease_seconds: a worker that is silent for so long is given up.
        offset: of the last event there is.
        workers: how many workers run; 0 where it is over.
        events: those behind what was seen, in order; not always all.
        run: the token of whoever has it or had it last; empty while nobody has.
        began: the offset behind which that run's events are.
    """

    state: str
    attempt: int
    waited_seconds: float
    silent_seconds: float
    lease_seconds: float
    offset: int
    workers: int
    events: tuple[Answered, ...]
    run: str
    began: int

    def trouble(self, start_seconds: float, queue_seconds: float) -> str | None:
        """Why the evaluation must be ended with an error; None while there is hope."""
        if self.state == QUEUED and not self.workers and self.waited_seconds >= start_seconds:
            if self.attempt:
                return f"the evaluation's worker stopped, and no other took it over within {start_seconds:g} s"
            return f"no evaluation worker is running: none took the request within {start_seconds:g} s"
        if self.state == QUEUED and self.waited_seconds >= queue_seconds:
            return f"all evaluation workers are busy: none took the request within {queue_seconds:g} s"
        # Where workers live, they may all be busy.
        patience = queue_seconds if self.workers else start_seconds
        if self.state == RUNNING and self.silent_seconds > self.lease_seconds + patience:
            return f"the evaluation's worker died, and no other took it over within {patience:g} s"
        return None


@frozen
class Watched:
    """How long nobody has watched, and how long that may be."""

    unwatched_seconds: float
    grace_seconds: float

    @property
    def is_wanted(self) -> bool:
        return self.unwatched_seconds < self.grace_seconds


@frozen
class Taken:
    """An evaluation that a worker has taken.

    Args:
        entry: its id in the stream of requests.
        run: the token of this taking: whoever appends, or renews the lease, shows it.
        attempt: counts every taking.
        deaths: how many workers died with it.
        offset: of the last event that there was.
        parameters: JSON.
    """

    kind: str
    id: str
    entry: str
    run: str
    attempt: int
    deaths: int
    offset: int
    watched: Watched
    parameters: bytes
    user_id: str | None
