"""A page: what one read of a channel's history brought, and what of it a reader has to be told.

A reader came with a position, or for the first time, or with something that is no position. What it gets is
the events behind its position in their order, and a gap wherever one may be missing: never silence.

Synchronous; no I/O, no clock. Source: the reply of `history.scripts.READ`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import Factory, define, evolve, frozen

from broker.gap import (
    EPOCH_CHANGED,
    RECORDER_CHANGED,
    ROLLED_BACK,
    TRIMMED,
    UNKNOWN_POSITION,
    Gap,
)
from broker.position import ANY_TAG, Position, Since
from broker.run import Run, generation_of
from broker.wireformat import WireFormat

Item = Run | Gap


@define(eq=False)
class Page:
    """Part of a channel's history, for everybody who reads it from the same place.

    Args:
        begin: everything behind this position follows.
        end: where who has read the page is.
        is_last: nothing was behind `end` when it was read.
        recorded, generation: which recorder recorded the channel's last plain message (0: none), and which runs.
        anchor: the event at the position that was asked for, where it is still kept.
    """

    begin: Position
    items: tuple[Item, ...]
    end: Position
    is_last: bool
    recorded: int
    generation: int
    anchor: bytes | None
    _encoded: dict[WireFormat, tuple[bytes, int, bool]] = Factory(dict)

    @property
    def recovered(self) -> bool:
        return not any(isinstance(item, Gap) for item in self.items)

    def since(self, generation: int) -> Page:
        """The page for who knows already that the recorder changed, up to that generation."""
        items = tuple(item for item in self.items if isinstance(item, Run) or not 0 < item.generation <= generation)
        return self if len(items) == len(self.items) else evolve(self, items=items, encoded={})

    def encoded(self, format: WireFormat, name: bytes) -> tuple[bytes, int, bool]:
        """The items as readers of a format get them, how many events that are, and whether they end the stream."""
        found = self._encoded.get(format)
        if found is None:
            parts, count, ends = [], 0, False
            for item in self.items:
                data, events, ends = format.encoded(name, item)
                parts.append(data)
                count += events
                if ends:
                    break
            found = self._encoded[format] = (b"".join(parts), count, ends)
        return found


@frozen
class _Entry:
    position: Position
    came: bytes
    payload: bytes


def page_of(reply: Sequence[Any], since: Since | None, replay: int, is_fit: Callable[[bytes], bool], at: float) -> Page:
    """The page for a reader.

    Args:
        since: where it was; None for who comes for the first time.
        replay: how many of the newest events were asked for, for who came with no position.
        is_fit: whether an event can be delivered; one that cannot is passed over.
        at: seconds since 1970, for gap events.

    Raises:
        ValueError: it is no reply of ours: somebody else wrote into the keys.
    """
    top_text, generation, found = reply
    epoch, top_offset, top_tag, recorded = top_text.split(b" ")
    top = _position(epoch, top_offset, top_tag)
    entries = [_entry(epoch, *entry) for entry in found]
    was = since.position if since is not None else None
    anchor = None
    items: list[Item] = []
    if was is not None and was.epoch == epoch:
        if entries and entries[0].position.offset == was.offset:
            anchor = entries.pop(0)
        known = anchor.position if anchor is not None else top if top.offset == was.offset else was
        if was.offset > top.offset or not known.is_same(was):
            gap = Gap(ROLLED_BACK, was.text, top.text, at)
            return Page(top, (gap,), top, True, int(recorded), int(generation), None)
        begin = known
    else:
        if was is None and replay < top.offset and entries and entries[0].position.offset == top.offset - replay:
            begin = entries.pop(0).position
        else:
            begin = _before(entries, top)
        if was is not None:
            items.append(Gap(EPOCH_CHANGED, was.text, begin.text, at))
        elif since is not None:
            items.append(Gap(UNKNOWN_POSITION, None, begin.text, at))
    end = begin
    for entry in entries:
        if entry.position.offset != end.offset + 1:
            here = Position(epoch, entry.position.offset - 1, ANY_TAG)
            if since is None and end is begin:
                begin = here
            else:
                items.append(Gap(TRIMMED, end.text, here.text, at))
            end = here
        changed = generation_of(entry.came)
        if changed and since is not None:
            items.append(Gap(RECORDER_CHANGED, end.text, end.text, at, generation=changed))
        _append(items, entry, is_fit, changed)
        end = entry.position
    if not entries and end.offset < top.offset:
        if since is not None:
            items.append(Gap(TRIMMED, end.text, top.text, at))
        end = top
    is_last = end.offset >= top.offset
    if is_last and since is not None and 0 < int(recorded) < int(generation):
        items.append(Gap(RECORDER_CHANGED, end.text, end.text, at, generation=int(generation)))
    return Page(
        begin,
        tuple(items),
        end,
        is_last,
        int(recorded),
        int(generation),
        anchor.payload if anchor is not None else None,
    )


def _entry(epoch: bytes, id: bytes, fields: Sequence[bytes]) -> _Entry:
    offset, _, tag = id.partition(b"-")
    position = _position(epoch, offset, tag)
    if not position.offset:
        raise ValueError("no position of an event")
    return _Entry(position, fields[0], fields[1])


def _position(*parts: bytes) -> Position:
    # It goes out to clients as it is: nothing but a position may come of what stands in Redis.
    found = Position.from_text(b":".join(parts).decode("latin-1"))
    if found is None:
        raise ValueError("no position")
    return found


def _before(entries: Sequence[_Entry], top: Position) -> Position:
    """Where who reads all of `entries` begins: the event before them comes first, unless it is the very first."""
    if not entries:
        return top
    first = entries[0].position
    return Position(first.epoch, first.offset - 1, ANY_TAG)


def _append(items: list[Item], entry: _Entry, is_fit: Callable[[bytes], bool], changed: int) -> None:
    last = items[-1] if items else None
    text = entry.position.text
    if not isinstance(last, Run):
        # Who gets it out of a tail, and not as part of this page, is told of the change by the run.
        last = Run(entry.position.epoch, entry.position.offset, entry.position.offset, text, [], [], changed)
        items.append(last)
    last.last = entry.position.offset
    last.end = text
    if is_fit(entry.payload):
        last.positions.append(text)
        last.payloads.append(entry.payload)
