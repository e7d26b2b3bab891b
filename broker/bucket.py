"""A token bucket: so many at once, and so many a second on average. Source: ITU-T I.371, 5.4 (as a meter)."""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class Bucket:
    """Full at first.

    Args:
        per_second: how fast it fills; 0 is without limit.
        burst: how much it holds.
    """

    per_second: float
    burst: float
    _level: float = field(init=False)
    _filled_at: float = field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self._level = self.burst

    def take(self, now: float) -> float:
        """Take one. Returns 0.0, or the seconds to wait until there is one again; then none was taken."""
        if not self.per_second:
            return 0.0
        level = min(self.burst, self._level + (now - self._filled_at) * self.per_second)
        self._filled_at = now
        if level < 1.0:
            self._level = level
            return (1.0 - level) / self.per_second
        self._level = level - 1.0
        return 0.0

    def is_full(self, now: float) -> bool:
        """Whether nothing is remembered here that a new bucket would not know."""
        return self._level + (now - self._filled_at) * self.per_second >= self.burst
