"""Whether it is worth trying Redis: after a failure a pause, then one call that tries.

Laws: while paused, at most one call in each pause is let through; a success ends the pause. A call
that was let through need not report back: the next one follows a pause later. Sans-I/O; the caller
brings the clock and the lock.
"""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Circuit:
    """Open after a failure, closed after a success."""

    pause_seconds: float
    _tries_again_at: float | None = None

    def admits(self, now: float) -> bool:
        """Whether to try now. Being let through while open uses up this pause's turn."""
        if self._tries_again_at is None:
            return True
        if now < self._tries_again_at:
            return False
        self._tries_again_at = now + self.pause_seconds
        return True

    def failed(self, now: float) -> None:
        self._tries_again_at = now + self.pause_seconds

    def succeeded(self) -> None:
        self._tries_again_at = None

    @property
    def is_open(self) -> bool:
        return self._tries_again_at is not None
