"""An event stream as a browser reads it: bytes in, events out.

Synchronous; no I/O. Bounds: a block of `_BLOCK_MAX_BYTES`. Source: WHATWG HTML, 9.2.6.
"""

from __future__ import annotations

import re

from attrs import Factory, define, frozen

from broker.doctor.finding import CheckFailed

_BLOCK_MAX_BYTES = 16 * 1024 * 1024
_BLOCK_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END = re.compile(r"\r\n|\n|\r")


@frozen
class StreamEvent:
    """One event; `event` is empty where the block names none, and `comment` where it has none."""

    event: str
    data: str
    comment: str = ""


@define(eq=False)
class EventReader:
    """Cuts a stream into its blocks. A block of comments alone is an event without data."""

    _buffer: bytearray = Factory(bytearray)

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that became whole.

        Raises:
            CheckFailed: a block without end.
        """
        self._buffer += data
        *blocks, rest = _BLOCK_END.split(bytes(self._buffer))
        if len(rest) > _BLOCK_MAX_BYTES:
            raise CheckFailed("an event without end", "find out what answers in place of the daemon")
        self._buffer = bytearray(rest)
        return [_event(block.decode(errors="replace")) for block in blocks if block]


def _event(block: str) -> StreamEvent:
    fields: dict[str, list[str]] = {}
    for line in _LINE_END.split(block):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    return StreamEvent(fields.get("event", [""])[-1], "\n".join(fields.get("data", [])), "\n".join(fields.get("", [])))
