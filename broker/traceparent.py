"""The `traceparent` of an event: which trace it belongs to, kept in the event itself, so that it goes wherever the
event goes.

    {"traceparent": "00-<trace, 32 hex>-<span, 16 hex>-<flags, 2 hex>", "type": ...}

Laws: an event that has one keeps it, and no other byte of an event is changed.
Synchronous; no I/O, no clock. Source: W3C Trace Context, 3.2.
"""

from __future__ import annotations

import re

import msgspec

FIELD = b'"traceparent"'
_FOUND = re.compile(rb'"traceparent"\s*:\s*"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"')
_NOTHING = re.compile(rb"\{\s*\}\s*")


class _Traced(msgspec.Struct):
    traceparent: object = msgspec.UNSET


_decode = msgspec.json.Decoder(_Traced).decode


def marked(event: bytes, traceparent: str, max_bytes: int) -> bytes:
    """An event, which is a JSON object, with the field in front of all others.

    As it is where it has the field already, and where it would be longer than `max_bytes`.
    """
    if FIELD in event and _decode(event).traceparent is not msgspec.UNSET:
        return event
    comma = b"" if _NOTHING.fullmatch(event) else b","
    longer = b'{%b:"%b"%b%b' % (FIELD, traceparent.encode(), comma, event[1:])
    return longer if len(longer) <= max_bytes else event


def found_in(event: bytes) -> tuple[int, int] | None:
    """The trace and the span that an event belongs to; None where it has none, or they are not sampled.

    Where a field of a part of the event is called so too, the first counts.
    """
    found = _FOUND.search(event)
    if found is None:
        return None
    _, trace, span, flags = found[1].split(b"-")
    numbers = int(trace, 16), int(span, 16)
    return numbers if all(numbers) and int(flags, 16) & 1 else None
