"""Complaints: what the log is told of a crowd. Of each kind at most a line a second, however many are concerned.

Synchronous. Bounds: the kinds, which are messages in the code.
"""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

_EVERY_SECONDS = 1.0


@define(eq=False)
class Complaints:
    """
    Args:
        log: a structlog logger.
    """

    _log: Any
    _told_at: dict[str, float] = Factory(dict)

    def warn(self, message: str, now: float, **facts: object) -> None:
        """Write a warning, unless the last of this message was less than a second ago."""
        if now - self._told_at.get(message, float("-inf")) >= _EVERY_SECONDS:
            self._told_at[message] = now
            self._log.warning(message, **facts)
