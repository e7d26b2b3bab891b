"""A campaign: many inputs for one target, until all are done or one breaks a promise.

Law: a run is repeated by its seed. Runs inside trio, as some targets ask what time it is.
Bounds: `CORPUS_MAX` inputs are kept; one input takes at most `SECONDS_MAX` of CPU.
"""

from __future__ import annotations

import random
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
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
    data: bytes
    error: str
    seed: int | None = None
    number: int = 0

    def __str__(self) -> str:
        which = "" if self.seed is None else f": input {self.number} of seed {self.seed}"
        return (
            f"{self.target}{which}\n  {self.error}\n"
            f"  shortened to {len(self.data)} bytes:\n  {self.data!r}\n"
            f"  again: python -m tests.fuzz --target {self.target} --input {shlex.quote(repr(self.data))}"
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
        with no_errors_logged():
            return trio.run(self._run, inputs, told)

    async def _run(self, inputs: int, told: Callable[[int], None]) -> Failure | None:
        mutator = Mutator(random.Random(self.seed), self.target.words, self.target.max_bytes)
        corpus = list(self.target.seeds)
        for number in range(inputs):
            data = corpus[number] if number < len(self.target.seeds) else mutator.next(corpus)
            began = time.process_time()
            try:
                outcome = self.target.check(data)
            except Exception as error:
                return failure_of(self.target, data, error, self.seed, number)
            took = time.process_time() - began
            self.slowest = max(self.slowest, took)
            if took > SECONDS_MAX:
                return Failure(self.target.name, data, f"took {took:.1f} s", self.seed, number)
            if outcome not in self.outcomes and len(corpus) < CORPUS_MAX:
                corpus.append(data)
            self.outcomes[outcome] += 1
            self.done += 1
            if not self.done % _REPORT_EVERY:
                told(_REPORT_EVERY)
        told(self.done % _REPORT_EVERY)
        return None


def failure_of(target: Target, data: bytes, error: Exception, seed: int | None = None, number: int = 0) -> Failure:
    """The failure that an input is, shortened."""
    return Failure(target.name, _shortened(target, data, error), _said(error), seed, number)


@contextmanager
def no_errors_logged() -> Iterator[None]:
    """What logs an error in here gets an AssertionError for it; all else that is logged is dropped."""
    before = structlog.get_config()
    structlog.configure(processors=[_no_error])
    try:
        yield
    finally:
        structlog.configure(**before)


def _shortened(target: Target, data: bytes, error: Exception) -> bytes:
    """What is left when pieces are deleted as long as the same sort of error stays; at most ten seconds."""
    until = time.perf_counter() + 10.0
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data) and time.perf_counter() < until:
            shorter = data[:at] + data[at + size :]
            if _breaks(target, shorter, error):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _breaks(target: Target, data: bytes, error: Exception) -> bool:
    try:
        target.check(data)
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
