"""What a forked child must have anew: locks that a lost thread may hold, and sockets that the parent uses.

Law: `renew` runs in the child before any of its code, in the only thread that it has. Source: fork(2);
`os.register_at_fork`, which Windows does not have, and need not.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    def renew(self) -> None: ...


_renewables: WeakSet[Renewable] = WeakSet()


def renew_after_fork(renewable: Renewable) -> None:
    """Call `renewable.renew()` in every child. Holds no reference that keeps it alive."""
    _renewables.add(renewable)


def _renew_all() -> None:
    for renewable in list(_renewables):
        renewable.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
