"""Timestamps as the wire contract writes them: ISO 8601, UTC, milliseconds, `Z`."""

from __future__ import annotations

from time import gmtime, strftime

_second = -1
_prefix = ""


def timestamp(seconds: float) -> str:
    """`seconds` since 1970 as `2026-01-31T12:00:00.000Z`. Every greeting and answer has one: the second is kept."""
    global _second, _prefix
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    if whole != _second:
        _second, _prefix = whole, strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole))
    return f"{_prefix}.{milliseconds:03d}Z"
