"""A sample: what a daemon said at one moment, and what happened a second between two of them.

Counters are sums over all daemons: where a daemon came or went in between, or one began anew, there is no rate, which
is None and not a guess. Synchronous; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from broker.cli.sheet import inside

_COUNTERS: Mapping[str, tuple[str, ...]] = {
    "messages": ("delivery", "messages"),
    "deliveries": ("delivery", "deliveries"),
    "bytes": ("delivery", "bytes"),
    "connects": ("connections", "accepted"),
    "fellBehind": ("delivery", "slow", "fellBehind"),
    "dropped": ("delivery", "slow", "dropped"),
    "gaps": ("delivery", "gaps"),
    "refused": ("connections", "refusedByLimit"),
}

Rates = Mapping[str, float | None]


@frozen
class Sample:
    """One answer to each question.

    Args:
        at: seconds, by a clock that does not jump.
        stats: the body of the stats.
        channels: as the daemon sorted them; None where it was not asked or cannot say.
        clients: likewise.
        problem: why a list is not there.
    """

    at: float
    stats: Mapping[str, Any]
    channels: Sequence[Mapping[str, Any]] | None = None
    clients: Sequence[Mapping[str, Any]] | None = None
    problem: str | None = None

    @property
    def nodes(self) -> list[Mapping[str, Any]]:
        """The daemons that are summed, where they are told."""
        found = self.stats.get("nodes")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    @property
    def answered(self) -> frozenset[str]:
        """The daemons whose figures are in the sums."""
        return frozenset(str(each.get("id")) for each in self.nodes if each.get("answered") is not False)


def rates(before: Sample | None, after: Sample) -> Rates:
    """What happened a second between two samples, by name; None where that cannot be said."""
    nothing: Rates = dict.fromkeys(_COUNTERS)
    if before is None or after.at <= before.at or before.answered != after.answered:
        return nothing
    found: dict[str, float | None] = {}
    for name, path in _COUNTERS.items():
        begin, end = _total(inside(before.stats, *path)), _total(inside(after.stats, *path))
        is_known = begin is not None and end is not None and end >= begin
        found[name] = (
            (end - begin) / (after.at - before.at) if is_known and end is not None and begin is not None else None
        )
    return found


def _total(value: Any) -> float | None:
    """A counter, or the sum of the counters in an object; None for anything else."""
    if isinstance(value, dict):
        parts = [_total(each) for each in value.values()]
        return sum(part for part in parts if part is not None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
