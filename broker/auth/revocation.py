"""Revocations: tokens that count no more although they are not over yet.

A token is revoked by its id, or because it was made before all tokens of its user were. A user who signs in
again has a newer token, which counts.

Laws: what was revoked stays revoked until the revocation itself is over, also where Redis has forgotten it. A
token that does not say when it was made is older than any revocation of its user. Synchronous; no I/O, no clock.
Bounds: of what is over, as much is kept as of what is not, and 1000 more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, define, frozen

from broker.auth.identity import USER, Identity

TOKEN = "token"
SUBJECT = "user"


@frozen
class Revocation:
    """One revocation. Times are seconds since 1970.

    Args:
        kind: `TOKEN` or `SUBJECT`.
        id: of the token, or of the user.
        at: when; tokens of the user made by then count no more.
        until: when it may be forgotten.
    """

    kind: str
    id: str
    at: float
    until: float

    @property
    def member(self) -> str:
        """As Redis has it, scored by `until`."""
        return f"{self.kind}:{self.at!r}:{self.id}"

    @classmethod
    def from_member(cls, member: str, until: float) -> Revocation:
        """Read what `member` wrote.

        Raises:
            ValueError: it is something else.
        """
        kind, at, id = member.split(":", 2)
        if kind not in (TOKEN, SUBJECT):
            raise ValueError(f"unknown kind of revocation: {kind[:20]!a}")
        return cls(kind, id, float(at), until)


@define(eq=False)
class Revocations:
    """What is revoked now."""

    _tokens: dict[str, Revocation] = Factory(dict)
    _users: dict[str, Revocation] = Factory(dict)
    _most: int = 1000  # when so many are known, those that are over are sorted out

    def add(self, revocation: Revocation, now: float) -> bool:
        """Note a revocation. Returns whether it was news."""
        if revocation.until <= now:
            return False
        table = self._tokens if revocation.kind == TOKEN else self._users
        known = table.get(revocation.id)
        if known is not None and known.at >= revocation.at and known.until >= revocation.until:
            return False
        if len(self._tokens) + len(self._users) >= self._most:
            self._forget(now)
            self._most = 2 * (len(self._tokens) + len(self._users)) + 1000
        at, until = revocation.at, revocation.until
        if known is not None:
            at, until = max(at, known.at), max(until, known.until)
        table[revocation.id] = Revocation(revocation.kind, revocation.id, at, until)
        return True

    def holds(self, identity: Identity, now: float) -> bool:
        """Whether a token counts no more."""
        if identity.kind != USER or not (self._tokens or self._users):
            return False
        if identity.token_id is not None and self._is_live(self._tokens.get(identity.token_id), now):
            return True
        revocation = self._users.get(identity.user_id or "")
        if not self._is_live(revocation, now):
            return False
        assert revocation is not None
        return identity.issued_at is None or identity.issued_at <= revocation.at

    def statistics(self) -> Mapping[str, Any]:
        """How many tokens and users are revoked now."""
        return {"tokens": len(self._tokens), "users": len(self._users)}

    def __iter__(self) -> Iterator[Revocation]:
        yield from self._tokens.values()
        yield from self._users.values()

    @staticmethod
    def _is_live(revocation: Revocation | None, now: float) -> bool:
        return revocation is not None and now < revocation.until

    def _forget(self, now: float) -> None:
        for table in (self._tokens, self._users):
            for id in [id for id, revocation in table.items() if revocation.until <= now]:
                del table[id]
