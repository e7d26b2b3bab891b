"""The total: the stats of several daemons as one, of the same shape.

Counts are added, and whatever else has a rule in `_RULES`, by its place. None is nobody's answer; what one daemon has
and another has not is taken as it is; where two are of different kinds, as between two versions, the richer one stands.

Laws: the total of one is that one; totals may be totalled, in any grouping. Synchronous; no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

Rule = Callable[[Any, Any], Any]
_Path = tuple[str, ...]


def _union(left: list[Any], right: list[Any]) -> list[Any]:
    return list(dict.fromkeys([*left, *right]))


def _first(left: Any, right: Any) -> Any:
    return left


def _both(left: bool, right: bool) -> bool:
    return left and right


def _later(left: Mapping[str, Any], right: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outage that ended last."""
    return max(left, right, key=lambda outage: str(outage.get("endedAt")))


# What is no plain sum. Times are ISO 8601 in UTC, which sort as text.
_RULES: Mapping[_Path, Rule] = {
    ("status",): min,  # "degraded" before "healthy"
    ("timestamp",): max,
    ("channels", "isConnected"): _both,
    ("channels", "channels"): _union,
    ("channels", "activeChannels"): max,  # and then as many as are in the union, where there is one
    # One Redis that goes is an outage on each.
    ("redis", "outages"): max,
    ("redis", "awaySince"): min,
    ("redis", "lastOutage"): _later,
    ("history", "generation"): max,
    ("history", "lastUnkeptWhy"): _first,
    ("history", "refusedWhy"): _first,
    # Each knows the same revocations and keys, and hears what one says to all.
    ("auth", "revoked", "tokens"): max,
    ("auth", "revoked", "users"): max,
    ("auth", "keys", "keys"): max,
    ("auth", "keys", "refreshedAt"): min,
    ("control", "userEvents"): max,
    ("control", "bad"): max,
    ("outboxes", "peakBytes"): max,
    ("tls", "certificateExpires"): min,
    ("loop", "lagSeconds"): max,
    ("loop", "lagMaxSeconds"): max,
}


def total(
    stats: Sequence[Mapping[str, Any]], clients_listed: int | None = None, channels_listed: int | None = None
) -> dict[str, Any]:
    """All of `stats` as one; empty for none.

    Args:
        clients_listed: so many clients of each transport are listed; None for all that are in `stats`.
        channels_listed: so many names of channels are listed; None for all. With 0 nobody was asked for names, so how
            many different ones there are is not known: `activeChannels` is then what the one with most of them has.
    """
    found: dict[str, Any] = reduce(lambda left, right: _sum_of_mappings(left, right, ()), stats, {})
    names = found.get("channels", {}).get("channels")
    if names is not None and len(stats) > 1 and channels_listed != 0:
        found["channels"] = {**found["channels"], "activeChannels": len(names)}
    if names is not None and channels_listed is not None:
        found["channels"] = {**found["channels"], "channels": names[:channels_listed]}
    if clients_listed is not None:
        for transport in ("sse", "websocket"):
            if "clients" in found.get(transport, {}):
                clients = found[transport]["clients"][:clients_listed]
                found[transport] = {**found[transport], "clients": clients}
    return found


def _sum_of_mappings(left: Mapping[str, Any], right: Mapping[str, Any], path: _Path) -> dict[str, Any]:
    found = dict(left)
    for name, value in right.items():
        found[name] = _sum(found[name], value, (*path, name)) if name in found else value
    return found


def _sum(left: Any, right: Any, path: _Path) -> Any:
    if left is None or right is None:
        return right if left is None else left
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        return left if kinds[0] > kinds[1] else right
    rule = _RULES.get(path) or _BY_KIND.get(kinds[0])
    return _sum_of_mappings(left, right, path) if rule is None else rule(left, right)


def _kind(value: Any) -> int:
    """The kind of a value; of two kinds the greater stands."""
    for kind, types in enumerate(_KINDS):
        if isinstance(value, types):
            return kind
    return -1


_KINDS: Sequence[Any] = (bool, (int, float), str, (list, tuple), Mapping)
_BY_KIND: Mapping[int, Rule] = {
    0: lambda left, right: left or right,
    1: lambda left, right: left + right,
    2: max,
    3: lambda left, right: [*left, *right],
}
