"""A message: the bytes that a service published, and whether they are fit to be delivered.

Law: what is delivered is what was published, byte for byte; so a message is looked at once, when it
arrives, and never again for each client. Fit means UTF-8 (a WebSocket text frame must be) and
well-formed JSON (RFC 8259) of a bounded size.
"""

from __future__ import annotations

import json
from typing import NoReturn

import msgspec

TOO_BIG = "too_big"
NOT_UTF8 = "not_utf8"
NOT_JSON = "not_json"

# `Raw` makes msgspec walk the document without building it: 0.3 us for 200 bytes.
_walk = msgspec.json.Decoder(msgspec.Raw).decode


def refusal(payload: bytes, max_bytes: int) -> str | None:
    """Why `payload` cannot be delivered: `TOO_BIG`, `NOT_UTF8`, `NOT_JSON`, or None when it can. Raises nothing."""
    if len(payload) > max_bytes:
        return TOO_BIG
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            return NOT_UTF8
    try:
        _walk(payload)
    except (msgspec.DecodeError, RecursionError):
        return None if _is_json_to_the_letter(payload) else NOT_JSON
    return None


def _is_json_to_the_letter(payload: bytes) -> bool:
    """A second opinion: msgspec refuses a lone `\\ud800` escape, which RFC 8259 and browsers allow."""
    if b"\\u" not in payload:
        return False
    try:
        # As text: of bytes it would guess the encoding, and take UTF-16 and a byte order mark.
        json.loads(payload.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
