"""Timestamps as the wire contract writes them: ISO 8601, UTC, milliseconds, `Z`."""

from __future__ import annotations

from time import gmtime, strftime

# The last second and its text, in one value: threads of a service make timestamps too.
_kept = (-1, "")


def timestamp(seconds: float) -> str:
    """`seconds` since 1970 as `2026-01-31T12:00:00.000Z`. Every greeting and answer has one: the second is kept."""
    global _kept
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    second, prefix = _kept
    if whole != second:
        prefix = strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole))
        _kept = whole, prefix
    return f"{prefix}.{milliseconds:03d}Z"
