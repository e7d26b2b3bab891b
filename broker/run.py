"""A run: events of one channel that follow each other, with the positions that Redis gave them.

They come live, as stamped messages, or in a page of history. A stamp is what the scripts of history put in
front of an event (`broker.history.scripts`), and begins with a byte that no JSON begins with:

    \\x01<came>:<epoch>:<offset>:<tag> <event>     kept, as `came` says
    \\x01u <event>                                  not kept: Redis takes no writes

Synchronous; no I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import Factory, define

from broker.position import Position

STAMP = b"\x01"
_HEADER_MAX_BYTES = 64


@define(eq=False)
class Run:
    """Events whose offsets are consecutive. One that could not be delivered has an offset and no payload.

    Args:
        epoch, first, last: of the positions; an empty epoch where the events have none.
        end: the position of the last.
        positions: of each payload, as the wire has it; empty where the events have none.
        generation: the recorder's, where it changed right before these events; else 0.
        is_recorded: they came by plain PUBLISH.
    """

    epoch: bytes
    first: int
    last: int
    end: bytes
    positions: list[bytes]
    payloads: list[bytes]
    generation: int = 0
    is_recorded: bool = False

    @classmethod
    def without_positions(cls, payloads: Sequence[bytes]) -> Run:
        return cls(b"", 0, 0, b"", [], list(payloads))

    def after(self, offset: int) -> Run:
        """What of it comes behind `offset`, which is less than the last."""
        if offset < self.first:
            return self
        keep = [index for index, position in enumerate(self.positions) if offset_of(position) > offset]
        return self._of(keep, first=offset + 1)

    def only(self, indexes: slice) -> Run:
        """Some of its payloads."""
        return self._of(range(len(self.payloads))[indexes], first=self.first)

    def _of(self, indexes: Sequence[int], *, first: int) -> Run:
        positions = [self.positions[index] for index in indexes] if self.positions else []
        payloads = [self.payloads[index] for index in indexes]
        return Run(self.epoch, first, self.last, self.end, positions, payloads)

    @property
    def end_position(self) -> Position:
        return Position(self.epoch, self.last, self.end.rpartition(b":")[2])

    @property
    def size(self) -> int:
        """Bytes of its payloads."""
        return sum(map(len, self.payloads))


@define(eq=False)
class Runs:
    """Makes runs of events in the order of their coming."""

    runs: list[Run] = Factory(list)

    def add(self, epoch: bytes, offset: int, position: bytes, payload: bytes | None, came: bytes) -> None:
        """One event more. `payload`: None where it cannot be delivered."""
        last = self.runs[-1] if self.runs else None
        generation = generation_of(came)
        if last is None or last.epoch != epoch or last.last + 1 != offset or generation:
            last = Run(epoch, offset, offset, position, [], [], generation)
            self.runs.append(last)
        if came != b"s":
            last.is_recorded = True
        last.last = offset
        last.end = position
        if payload is not None:
            last.positions.append(position)
            last.payloads.append(payload)

    def add_unkept(self, payload: bytes) -> None:
        last = self.runs[-1] if self.runs else None
        if last is None or last.epoch:
            last = Run.without_positions(())
            self.runs.append(last)
        last.payloads.append(payload)


@define(eq=False)
class Tail:
    """The newest runs of one epoch, up to a number of bytes; the oldest go first."""

    max_bytes: int
    runs: deque[Run] = Factory(deque)
    size: int = 0

    def add(self, run: Run) -> None:
        self.runs.append(run)
        self.size += run.size
        while self.size > self.max_bytes:
            self.size -= self.runs.popleft().size

    def clear(self) -> None:
        self.runs.clear()
        self.size = 0

    def follows(self, epoch: bytes, offset: int) -> bool:
        """Whether everything behind a position is here."""
        return bool(self.runs) and self.runs[0].epoch == epoch and self.runs[0].first <= offset + 1

    def after(self, offset: int) -> list[Run]:
        return [run.after(offset) for run in self.runs if run.last > offset]


@define(eq=False)
class Held:
    """Runs that have to wait until history is read; too many bytes of them are forgotten, but not that they came.

    What was held before history was asked must be in the answer, or it is in no history.
    """

    max_bytes: int
    runs: list[Run] = Factory(list)
    size: int = 0
    _forgotten: Position | None = None
    _asked: int = 0
    _asked_forgotten: Position | None = None

    def add(self, run: Run) -> None:
        self.runs.append(run)
        self.size += run.size
        if self.size > self.max_bytes:
            self.take()
            self._forgotten = run.end_position

    def take(self) -> list[Run]:
        runs, self.runs, self.size, self._asked = self.runs, [], 0, 0
        return runs

    def clear(self) -> None:
        self.take()
        self._forgotten = self._asked_forgotten = None

    def asked(self) -> None:
        """History is asked for what comes behind a position, from there to its end."""
        self._asked, self._asked_forgotten = len(self.runs), self._forgotten

    def answered(self) -> None:
        """The answer, to its end, was handed on."""
        self.runs = self.runs[self._asked :]
        self.size = sum(run.size for run in self.runs)
        self._asked = 0
        if self._forgotten is self._asked_forgotten:
            self._forgotten = None

    def has_forgotten(self, behind: Position) -> bool:
        """Whether something was forgotten that comes behind a position."""
        gone = self._forgotten
        return gone is not None and gone.epoch == behind.epoch and gone.offset > behind.offset


def offset_of(position: bytes) -> int:
    return int(position.split(b":", 2)[1])


def parsed(stamped: bytes) -> tuple[bytes, bytes, int, bytes, bytes]:
    """How a stamped message came, its epoch, offset, position and event; no position where it is not kept.

    Raises:
        ValueError: the stamp is none of ours.
    """
    header, _, payload = stamped.partition(b" ")
    if len(header) > _HEADER_MAX_BYTES:
        raise ValueError("not a stamp")
    came, _, position = header[1:].partition(b":")
    if came == b"u":
        return came, b"", 0, b"", payload
    epoch, offset, tag = position.split(b":")
    if not (epoch.isdigit() and offset.isdigit() and tag.isdigit()):
        raise ValueError("not a stamp")
    return came, epoch, int(offset), position, payload


def generation_of(came: bytes) -> int:
    """The recorder's generation, where it changed right before this event; else 0."""
    return int(came[1:]) if came[:1] == b"g" and came[1:].isdigit() else 0
