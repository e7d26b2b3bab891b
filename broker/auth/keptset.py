"""A JWK set as it is kept: its keys, and those that have gone from it while their grace lasts.

Laws: the grace of a key begins when it is missed first, whether the set came without it or did not come at all; a
key that is back is as if it had never gone.

Synchronous; no I/O, no clock: time is the caller's, in seconds. Bounds: those that are missed are forgotten when
their grace is over, and there are never more than `MAX_KEPT`: the ones missed longest go first.
"""

from __future__ import annotations

from attrs import Factory, define

from broker.auth.keyring import MAX_KEYS, Key, Keyring

MAX_KEPT = 2 * MAX_KEYS


@define(eq=False)
class KeptSet:
    """The keys of one JWK set over time."""

    _grace_seconds: float
    _missed_at: dict[Key, float | None] = Factory(dict)  # None for a key that is there
    _keyring: Keyring = Factory(Keyring)
    _good_until: float = float("inf")

    def adapt(self, grace_seconds: float, now: float) -> None:
        """Have another grace from here on."""
        self._grace_seconds = grace_seconds
        self._settle(now)

    def replace(self, keyring: Keyring, now: float) -> None:
        """The set has come; it is this now."""
        gone = {key: now if at is None else at for key, at in self._missed_at.items() if key not in keyring.keys}
        self._missed_at = {**dict.fromkeys(keyring.keys), **gone}
        self._settle(now)

    def miss(self, now: float) -> None:
        """The set has not come."""
        self._missed_at = {key: now if at is None else at for key, at in self._missed_at.items()}
        self._settle(now)

    @property
    def is_whole(self) -> bool:
        """Whether no key is missed."""
        return self._good_until == float("inf")

    def keyring(self, now: float) -> Keyring:
        """The keys that count; those that are there go first."""
        if now >= self._good_until:
            self._settle(now)
        return self._keyring

    def _settle(self, now: float) -> None:
        kept = [(key, at) for key, at in self._missed_at.items() if at is None or now < at + self._grace_seconds]
        kept.sort(key=lambda each: 0.0 if each[1] is None else now - each[1])
        self._missed_at = dict(kept[:MAX_KEPT])
        ends = [at + self._grace_seconds for at in self._missed_at.values() if at is not None]
        self._good_until = min(ends, default=float("inf"))
        self._keyring = Keyring(tuple(self._missed_at))
