"""Which seconds of a measurement count: those in which the machine had its processors to itself.

A virtual machine's host lends them to others at times, and deliveries are late then whatever the daemon does. The
kernel tells for how long: `steal` of proc(5), `/proc/stat`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

STOLEN_MAX = 0.1
"""Of all processors, in a second that counts."""
_STAT = Path("/proc/stat")
_STEAL = 8


def stolen_seconds() -> float:
    """How long others had this machine's processors, since it began; 0 where the kernel does not tell."""
    if not _STAT.exists():
        return 0.0
    return int(_STAT.read_text().split(maxsplit=_STEAL + 1)[_STEAL]) / os.sysconf("SC_CLK_TCK")


@define(eq=False)
class OwnSeconds:
    """Made when the first second begins.

    Args:
        wanted: how many have to count. Where fewer do in the end, all count.
        counted: how many do.
        left_out: how many do not.
    """

    wanted: int
    counted: int = field(init=False, default=0)
    left_out: int = field(init=False, default=0)
    _stolen: Callable[[], float] = field(default=stolen_seconds, kw_only=True)
    _processors: int = field(factory=lambda: os.cpu_count() or 1, kw_only=True)
    _before: float = field(init=False)
    _was_own: bool = field(init=False, default=True)
    _numbers: list[int] = field(init=False, factory=list)
    _late: list[int] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._before = self._stolen()

    @property
    def is_enough(self) -> bool:
        return self.counted >= self.wanted

    @property
    def numbers(self) -> list[int]:
        """Of the events that were published in the seconds that count."""
        return self._numbers if self.is_enough else self._numbers + self._late

    def over(self, numbers: range) -> None:
        """A second is over in which these were published.

        The one behind a stolen one does not count either: it begins with what was not done in that.
        """
        now = self._stolen()
        is_own = now - self._before <= STOLEN_MAX * self._processors
        if is_own and self._was_own:
            self.counted += 1
            self._numbers += numbers
        else:
            self.left_out += 1
            self._late += numbers
        self._before, self._was_own = now, is_own
