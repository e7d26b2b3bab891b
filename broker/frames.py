"""WebSocket frames as the server writes them: unmasked, so the same bytes serve every client.

One message is one text frame, never fragmented. Source: RFC 6455, 5.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from broker.message import refusal

_SHORT_HEADS = tuple(bytes((0x81, size)) for size in range(126))
_pack_16 = struct.Struct("!BBH").pack
_pack_64 = struct.Struct("!BBQ").pack

PING = b"\x89\x00"


def text_frame(payload: bytes) -> bytes:
    """One text frame around `payload`, which must be UTF-8."""
    return _head(len(payload)) + payload


def text_frames(payloads: Sequence[bytes], channel: bytes = b"") -> bytes:
    """A text frame for each payload, joined in their order. They do not tell the channel."""
    if len(payloads) == 1:
        return _head(len(payloads[0])) + payloads[0]
    parts: list[bytes] = []
    for payload in payloads:
        parts.append(_head(len(payload)))
        parts.append(payload)
    return b"".join(parts)


def envelopes(name: bytes, positions: Sequence[bytes | None], payloads: Sequence[bytes]) -> list[bytes]:
    """The events of one channel as `broker.v1` has them: `{"channel", "position", "event"}`.

    An event that is no JSON, which a channel type may allow, is a JSON string in there.
    """
    start = b'{"channel":"%b","position":' % name
    found = []
    for position, payload in zip(positions, payloads, strict=True):
        where = b"null" if position is None else b'"%b"' % position
        event = payload if refusal(payload, len(payload)) is None else msgspec.json.encode(payload.decode())
        found.append(b'%b%b,"event":%b}' % (start, where, event))
    return found


def _head(size: int) -> bytes:
    if size < 126:
        return _SHORT_HEADS[size]
    if size < 65536:
        return _pack_16(0x81, 126, size)
    return _pack_64(0x81, 127, size)
