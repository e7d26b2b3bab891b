"""An identity: who a client is, as far as the daemon knows, and what its token says it may do."""

from __future__ import annotations

from attrs import frozen

# How the daemon knows.
OPEN = "open"  # authentication is off: whoever connects may everything that is not publishing over WebSocket
ANONYMOUS = "anonymous"  # authentication is on, and there is no token
USER = "user"  # by a token
KEY = "key"  # by an API key


@frozen
class Identity:
    """Who somebody is.

    Args:
        kind: `OPEN`, `ANONYMOUS`, `USER` or `KEY`.
        user_id: the token's `sub`; where authentication is off, what the query says. None for nobody.
        name: of an API key.
        subscribe, publish: patterns from the token; None where it has no such claim.
        is_admin: may use the admin calls.
        expires_at, issued_at: seconds since 1970, from the token; None where it does not say.
        token_id: the token's `jti`.
    """

    kind: str
    user_id: str | None = None
    name: str | None = None
    subscribe: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None
    is_admin: bool = False
    expires_at: float | None = None
    issued_at: float | None = None
    token_id: str | None = None

    @property
    def limited_user(self) -> str | None:
        """The user whose limits it counts for; None where nobody vouches for the user."""
        return self.user_id if self.kind == USER else None


NOBODY = Identity(OPEN)
"""Whoever connects without a name, where authentication is off."""
