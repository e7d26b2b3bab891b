"""A figure: what was measured, and the bound that it is held against.

A bound that is missed is marked and ends nothing: on a busy machine that may be the machine. Events that are
missing, doubled or out of order never are.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Figure:
    """One line.

    Args:
        least, most: the bound, where there is one.
        wrong: events that were missing, doubled or out of order, and gaps that were told.
    """

    name: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None
    wrong: int = 0

    @property
    def is_missed(self) -> bool:
        too_little = self.least is not None and self.value < self.least
        return too_little or (self.most is not None and self.value > self.most)

    def line(self) -> str:
        digits = 2 if abs(self.value) < 100 else 0
        bound = ""
        if self.least is not None:
            bound = f"at least {self.least:g}"
        elif self.most is not None:
            bound = f"at most {self.most:g}"
        marks = " MISSED" * self.is_missed + f" {self.wrong} WRONG" * bool(self.wrong)
        return f"{self.name:70} {self.value:12.{digits}f} {self.unit:5} {bound:13}{marks}".rstrip()


def show(*figures: Figure) -> int:
    """Print them. Returns how many events were wrong."""
    for figure in figures:
        print(figure.line(), flush=True)
    return sum(figure.wrong for figure in figures)
