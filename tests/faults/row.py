"""A row of the fault suite: a promise, how it is tried, the figure to reach, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, field, frozen

if TYPE_CHECKING:
    from tests.faults.stage import Stage

KEPT, BROKEN, SKIPPED = "kept", "broken", "skipped"


@frozen
class Measured:
    """One figure of a scenario.

    Args:
        what: a noun, such as "events lost".
        relation: between the value and the bound.
        unit: behind both, such as "s"; empty for a count.
    """

    what: str
    value: float
    relation: Literal["=", "<=", ">=", "<", ">"]
    bound: float
    unit: str = ""

    @property
    def is_kept(self) -> bool:
        match self.relation:
            case "=":
                return self.value == self.bound
            case "<=":
                return self.value <= self.bound
            case ">=":
                return self.value >= self.bound
            case "<":
                return self.value < self.bound
            case ">":
                return self.value > self.bound

    def __str__(self) -> str:
        bound = f"{self.relation} {_shown(self.bound)}{self._unit}"
        return f"{self.what} {_shown(self.value)}{self._unit} ({bound})"

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""


def _shown(value: float) -> str:
    """Counts whole, everything else with three digits."""
    if value == int(value) if math.isfinite(value) else False:
        return f"{int(value)}"
    return f"{value:.3g}"


@frozen
class Row:
    """A promise and the scenario that tries it.

    Args:
        number: its place in the table.
        promise: what is promised, a sentence.
        trial: how it is tried at full size.
        figure: what is to be reached.
        play: plays the scenario, and tells the stage what it measured.
        is_beside: it lives beside all other rows from their begin to their end, where all are played.
    """

    number: int
    promise: str
    trial: str
    figure: str
    play: Callable[[Stage], object]
    is_beside: bool = False


@frozen
class Outcome:
    """What came of a row.

    Args:
        verdict: kept, broken or skipped.
        measured: the figures, in the order in which they were taken.
        faults: what went wrong, a line each.
        note: why it was skipped, or what else a reader should know.
    """

    number: int
    promise: str
    trial: str
    figure: str
    verdict: str
    size: str
    seed: int
    seconds: float
    measured: tuple[Measured, ...] = ()
    faults: tuple[str, ...] = ()
    note: str = field(default="")

    @property
    def again(self) -> str:
        """The command that plays it again, with the same dice."""
        return f"python -m tests.faults --row {self.number} --size {self.size} --seed {self.seed}"

    def figures(self) -> str:
        return "; ".join(str(each) for each in self.measured) or "-"

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        for each, told in zip(self.measured, found["measured"], strict=True):
            told["is_kept"] = each.is_kept
        return found
