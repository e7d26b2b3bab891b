"""What became of the events of a publisher: counts, and a few log lines.

Laws: every event that was given to a publisher is counted once, as published or as lost with a reason.
A line is logged when events begin to be lost because of Redis and one when they reach it again; what
Redis or the rules refuse, or Redis does not keep, is logged at once, then at most every `_LINE_SECONDS` with its
count. A loss that the caller is told with an exception is counted and not logged. Nothing is logged under the lock:
a log handler may publish.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType

from attrs import define, field, frozen

from broker.publisher.circuit import Circuit

_UNKEPT = "unkept"

# Why an event was lost.
INVALID = "invalid"
"""Not an event, no channel, or too large: nothing was sent."""
PAUSED = "paused"
"""Not tried: Redis failed just now."""
BUSY = "busy"
"""No connection became free in time: nothing was sent."""
UNREACHABLE = "unreachable"
"""There was no connection to be had: nothing was sent."""
UNANSWERED = "unanswered"
"""Sent, but no answer came in time: Redis may have taken it."""
REFUSED = "refused"
"""Redis answered no."""
CANCELLED = "cancelled"
"""The caller was cancelled before the answer: Redis may have taken it."""
CLOSED = "closed"
"""The publisher had been closed."""

_OF_REDIS = frozenset({PAUSED, UNREACHABLE, UNANSWERED})
_LINE_SECONDS = 10.0

_log = logging.getLogger("broker.publisher")


@frozen
class Statistics:
    """A snapshot since the publisher was made, or since the fork in a child.

    Shape: `lost` has a count for each reason that occurred; `last_error` is one line without passwords. `unkept`
    are those of `published` that are not in their channel's history, as Redis takes no writes.
    """

    published: int
    lost: Mapping[str, int]
    last_error: str | None
    is_paused: bool
    unkept: int = 0

    @property
    def lost_total(self) -> int:
        return sum(self.lost.values())


@define(eq=False)
class _Quiet:
    """A reason whose lines are held back for a while."""

    until: float
    untold: int = 0


@define(eq=False)
class Tally:
    """The counts of one publisher. Safe in threads; never waits but for its own short lock."""

    _where: str
    _circuit: Circuit
    _published: int = field(init=False, default=0)
    _lost: dict[str, int] = field(init=False, factory=dict)
    _unkept: int = field(init=False, default=0)
    _is_plain_told: bool = field(init=False, default=False)
    _last_error: str | None = field(init=False, default=None)
    # Since when events do not reach Redis, and how many by reason; None while they do.
    _burst_began_at: float = field(init=False, default=0.0)
    _burst: dict[str, int] | None = field(init=False, default=None)
    _quiet: dict[str, _Quiet] = field(init=False, factory=dict)
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    def admits(self) -> bool:
        """Whether Redis should be tried now."""
        with self._lock:
            return self._circuit.admits(time.monotonic())

    def published(self, count: int) -> None:
        """Redis took `count` events."""
        with self._lock:
            self._published += count
            self._circuit.succeeded()
            line = self._end_of_burst("events reach {where} again; {count} were lost in {seconds:.1f} s ({reasons})")
        _log_line(line)

    def answered(self) -> None:
        """Redis answered, if only with a no: it is there."""
        with self._lock:
            self._circuit.succeeded()

    def unkept(self, count: int, why: str) -> None:
        """Of those that Redis took, `count` ought to be in the history and are not."""
        with self._lock:
            self._unkept += count
            self._last_error = why
            untold = self._told_later(_UNKEPT, count, time.monotonic())
        if untold is not None:
            _log_line(f"an event was published and is not kept in its channel's history: {why}{untold}")

    def plain(self, why: str) -> None:
        """Events are taken as plain PUBLISHes only. Told once."""
        with self._lock:
            is_told, self._is_plain_told = self._is_plain_told, True
        if not is_told:
            _log_line(f"events are published plain, and kept only while a daemon runs: {why}")

    def lost(self, reason: str, count: int, why: str | None = None, *, channel: str = "", told: bool = False) -> None:
        """`count` events are lost.

        Args:
            why: one line; None keeps the last error, as for what was not tried.
            channel: the channel of the first of them.
            told: the caller gets an exception, so that no line is needed.
        """
        now = time.monotonic()
        line = None
        with self._lock:
            self._lost[reason] = self._lost.get(reason, 0) + count
            if why is not None:
                self._last_error = why
            if reason in (UNREACHABLE, UNANSWERED):
                self._circuit.failed(now)
            if not told:
                line = self._line_of_loss(reason, count, channel, now)
        _log_line(line)

    def statistics(self) -> Statistics:
        with self._lock:
            return Statistics(
                self._published,
                MappingProxyType(dict(self._lost)),
                self._last_error,
                self._circuit.is_open,
                self._unkept,
            )

    def close(self) -> None:
        """Tell what was counted and not yet told. May be called again."""
        with self._lock:
            lines = [self._end_of_burst("closed while {where} was away; {count} events were lost in {seconds:.1f} s")]
            lines += [
                f"closed; {quiet.untold} more events were {'not kept' if reason == _UNKEPT else f'lost: {reason}'}"
                for reason, quiet in self._quiet.items()
                if quiet.untold
            ]
            self._quiet.clear()
        for line in lines:
            _log_line(line)

    def _line_of_loss(self, reason: str, count: int, channel: str, now: float) -> str | None:
        if reason in _OF_REDIS:
            begins = self._burst is None
            if self._burst is None:
                self._burst, self._burst_began_at = {}, now
            self._burst[reason] = self._burst.get(reason, 0) + count
            return f"events are being lost, {channel} first: {self._last_error}" if begins else None
        more = self._told_later(reason, count, now)
        return (
            None
            if more is None
            else f"an event for {channel or 'no channel'} was not published: {self._last_error}{more}"
        )

    def _told_later(self, reason: str, count: int, now: float) -> str | None:
        """How many more a line tells of; None where it is not yet time for one."""
        quiet = self._quiet.get(reason)
        if quiet is not None and now < quiet.until:
            quiet.untold += count
            return None
        untold = count - 1 + (quiet.untold if quiet else 0)
        self._quiet[reason] = _Quiet(now + _LINE_SECONDS)
        return f" (and {untold} more like it)" if untold else ""

    def _end_of_burst(self, text: str) -> str | None:
        burst, self._burst = self._burst, None
        if burst is None:
            return None
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(burst.items()))
        seconds = time.monotonic() - self._burst_began_at
        return text.format(where=self._where, count=sum(burst.values()), seconds=seconds, reasons=reasons)


def _log_line(line: str | None) -> None:
    if line is not None:
        _log.warning("%s", line)
