"""A cursor: the positions of several channels in one SSE `id`.

    c1,<digest>=<position>,<digest>=<position>...

A channel is named by six letters of its digest, so 32 channels fit into 2 KB whatever their names, and the
order in which they are asked for does not matter. A cursor comes back as `Last-Event-ID`; it may be anything
then, and what it does not say about a channel is not known.

Synchronous; no I/O, no clock.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256

from attrs import define, field

from broker.position import Position, Since

_MARK = "c1"
CURSOR_MAX_BYTES = 2048


def _digest(name: bytes) -> bytes:
    return urlsafe_b64encode(sha256(name).digest())[:6]


def since_of(cursor: str, names: Sequence[bytes]) -> dict[bytes, Since]:
    """Where a client was in each of `names`, by the `id` that it came back with.

    A channel that a whole cursor does not name is missing: the client asks for it for the first time.
    """
    mark, *parts = cursor.split(",")
    if mark != _MARK or len(cursor) > CURSOR_MAX_BYTES:
        position = Position.from_text(cursor) if len(names) == 1 else None
        return dict.fromkeys(names, Since(position))
    named = dict(part.partition("=")[::2] for part in parts)
    found = {}
    for name in names:
        text = named.get(_digest(name).decode())
        if text is not None:
            found[name] = Since(Position.from_text(text))
    return found or dict.fromkeys(names, Since(None))


@define(eq=False)
class Cursor:
    """The positions of one client, as an `id`. Several channels; one channel alone has its position as `id`."""

    _parts: dict[bytes, bytes] = field(init=False, factory=dict)

    def set(self, name: bytes, position: bytes) -> None:
        self._parts[name] = _digest(name) + b"=" + position

    def before(self, name: bytes) -> bytes:
        """An `id` up to the position of `name`, which comes last in it."""
        others = [part for other, part in self._parts.items() if other != name]
        return b",".join((b"c1", *others, _digest(name) + b"="))

    @property
    def id(self) -> bytes:
        return b",".join((b"c1", *self._parts.values()))
