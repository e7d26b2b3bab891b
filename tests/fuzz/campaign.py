"""A campaign: many inputs for one target, until all are done or one breaks a promise.

Law: a run is repeated by its seed. Runs inside trio, as some targets ask what time it is.
Bounds: `CORPUS_MAX` inputs are kept; one input takes at most `SECONDS_MAX`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
import trio
from attrs import define, field, frozen

from tests.fuzz.mutation import Mutator
from tests.fuzz.target import Target

CORPUS_MAX = 400
SECONDS_MAX = 2.0
_REPORT_EVERY = 500


@frozen
class Failure:
    """An input that broke a promise, as short as simple deletion makes it."""

    target: str
    seed: int
    number: int
    data: bytes
    error: str

    def __str__(self) -> str:
        return (
            f"{self.target}: input {self.number} of seed {self.seed}\n  {self.error}\n"
            f"  shortened to {len(self.data)} bytes:\n  {self.data!r}"
        )


@define(eq=False)
class Campaign:
    """One target's inputs."""

    target: Target
    seed: int
    outcomes: Counter[str] = field(init=False, factory=Counter)
    slowest: float = field(init=False, default=0.0)
    done: int = field(init=False, default=0)

    def run(self, inputs: int, told: Callable[[int], None] = lambda done: None) -> Failure | None:
        """The first failure; None for none.

        Args:
            told: called now and then with how many more are done.
        """
        before = structlog.get_config()
        structlog.configure(processors=[_no_error])
        try:
            return trio.run(self._run, inputs, told)
        finally:
            structlog.configure(**before)

    async def _run(self, inputs: int, told: Callable[[int], None]) -> Failure | None:
        mutator = Mutator(random.Random(self.seed), self.target.words, self.target.max_bytes)
        corpus = list(self.target.seeds)
        for number in range(inputs):
            data = corpus[number] if number < len(self.target.seeds) else mutator.next(corpus)
            began = time.perf_counter()
            try:
                outcome = self.target.check(data)
            except Exception as error:
                return Failure(self.target.name, self.seed, number, self._shortened(data, error), _said(error))
            took = time.perf_counter() - began
            self.slowest = max(self.slowest, took)
            if took > SECONDS_MAX:
                return Failure(self.target.name, self.seed, number, data, f"took {took:.1f} s")
            if outcome not in self.outcomes and len(corpus) < CORPUS_MAX:
                corpus.append(data)
            self.outcomes[outcome] += 1
            self.done += 1
            if not self.done % _REPORT_EVERY:
                told(_REPORT_EVERY)
        told(self.done % _REPORT_EVERY)
        return None

    def _shortened(self, data: bytes, error: Exception) -> bytes:
        """What is left when pieces are deleted as long as the same sort of error stays; at most ten seconds."""
        until = time.perf_counter() + 10.0
        size = len(data) // 2
        while size:
            at = 0
            while at < len(data) and time.perf_counter() < until:
                shorter = data[:at] + data[at + size :]
                if self._breaks(shorter, error):
                    data = shorter
                else:
                    at += size
            size //= 2
        return data

    def _breaks(self, data: bytes, error: Exception) -> bool:
        try:
            self.target.check(data)
        except Exception as other:
            return type(other) is type(error)
        return False


def _no_error(logger: object, level: str, event: MutableMapping[str, Any]) -> str:
    """The daemon may complain of what it gets; an error or an exception in its log is a promise broken."""
    assert level not in ("error", "critical", "exception"), event
    raise structlog.DropEvent


def _said(error: Exception) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = "" if frame is None else f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})"
    return f"{type(error).__name__}: {str(error)[:2000]}{place}"
