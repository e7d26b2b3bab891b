"""Whether this daemon should get clients, and why not: what a load balancer and an orchestrator ask.

It is ready once it serves and Redis has answered once, until it is to stop. A Redis that goes away later is told
and no reason: all daemons have the same Redis, and taking every one of them away helps nobody; who is connected is
told what it missed.

Synchronous; no figures, as everybody may ask.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from broker.lifecycle import STARTING, Lifecycle

NO_REDIS = "waiting for Redis"


@frozen
class Readiness:
    """
    Args:
        has_redis_answered: whether it has since the start.
        is_redis_away: whether it is now.
    """

    _lifecycle: Lifecycle
    _has_redis_answered: Callable[[], bool]
    _is_redis_away: Callable[[], bool]

    def reasons(self) -> list[str]:
        """Why it should get no clients; none where it should."""
        state = self._lifecycle.state
        found = [] if self._lifecycle.is_ready else [state]
        if not self._has_redis_answered() and (self._lifecycle.is_ready or state == STARTING):
            found.append(NO_REDIS)
        return found

    @property
    def redis(self) -> str:
        """How Redis is now."""
        return "away" if self._is_redis_away() else "connected"
