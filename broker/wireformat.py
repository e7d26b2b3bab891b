"""The wire formats that clients share: a batch of messages is turned into each of them once.

A format is compared by identity: clients of one format and channel get the same bytes object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from broker import eventstream, frames
from broker.gap import Gap
from broker.run import Run

_NO_END = -1


@frozen(eq=False)
class WireFormat:
    """How events look on the wire.

    Args:
        name: what statistics call it.
        encode: payloads in their order, and their channel, as the bytes that every client of the format gets.
        encode_run: the same for events with positions.
        encode_gap: a gap in a channel.
        last_index: where the stream has an end, finds the payload that ends it; None for no end.
        encode_end: what follows that payload on the wire.
        is_personal: events with positions look different for each client: it composes them itself.
    """

    name: str
    encode: Callable[[Sequence[bytes], bytes], bytes]
    encode_run: Callable[[bytes, Run], bytes]
    encode_gap: Callable[[bytes, Gap], bytes]
    last_index: Callable[[Sequence[bytes]], int | None] | None = None
    encode_end: Callable[[bytes], bytes] | None = None
    is_personal: bool = False

    def encoded(self, name: bytes, item: Run | Gap) -> tuple[bytes, int, bool]:
        """The bytes, how many events are in them, and whether they end the stream."""
        if isinstance(item, Gap):
            return self.encode_gap(name, item), 0, False
        last = None if self.last_index is None else self.last_index(item.payloads)
        if last is not None:
            assert self.encode_end is not None
            run = item.only(slice(last + 1))
            return self._encoded_run(name, run) + self.encode_end(run.payloads[-1]), last + 1, True
        return self._encoded_run(name, item), len(item.payloads), False

    def _encoded_run(self, name: bytes, run: Run) -> bytes:
        if not run.payloads:
            return b""
        return self.encode_run(name, run) if run.positions else self.encode(run.payloads, name)


def _gap_block(name: bytes, gap: Gap) -> bytes:
    return eventstream.block(gap.body(name), event="gap", id=None if gap.end is None else gap.end.decode())


WEBSOCKET = WireFormat(
    "websocket",
    frames.text_frames,
    lambda name, run: frames.text_frames(run.payloads),
    lambda name, gap: frames.text_frame(gap.body(name)),
)
# The subprotocol `broker.v1`: an envelope with the position, and the event's own bytes in it.
WEBSOCKET_V1 = WireFormat(
    "websocket_v1",
    lambda payloads, name: frames.text_frames(frames.envelopes(name, [None] * len(payloads), payloads)),
    lambda name, run: frames.text_frames(frames.envelopes(name, run.positions, run.payloads)),
    lambda name, gap: frames.text_frame(gap.body(name)),
)


def user_envelope(event: bytes) -> bytes:
    """An event for a user, which came on no channel, as `broker.v1` has it."""
    return b'{"channel":null,"position":null,"event":%b}' % event


USER_EVENT: Mapping[WireFormat, Callable[[bytes], bytes]] = {
    WEBSOCKET: frames.text_frame,
    WEBSOCKET_V1: lambda event: frames.text_frame(user_envelope(event)),
}
EVENT_STREAM = WireFormat(
    "sse",
    lambda payloads, name: eventstream.chunk(eventstream.blocks(payloads)),
    lambda name, run: eventstream.chunk(eventstream.blocks_with_ids(run.positions, run.payloads)),
    lambda name, gap: eventstream.chunk(_gap_block(name, gap)),
)
# HTTP/1.0 knows no chunks: old proxies ask with it, and the stream ends with the connection.
EVENT_STREAM_BARE = WireFormat(
    "sse_bare",
    lambda payloads, name: eventstream.blocks(payloads),
    lambda name, run: eventstream.blocks_with_ids(run.positions, run.payloads),
    _gap_block,
)


def _v1_blocks(payloads: Sequence[bytes], name: bytes) -> bytes:
    return eventstream.blocks(frames.envelopes(name, [None] * len(payloads), payloads))


def v1_blocks_with_ids(ids: Sequence[bytes], name: bytes, run: Run) -> bytes:
    """Events in the envelope of `broker.v1`, each with an `id` of its own."""
    return eventstream.blocks_with_ids(ids, frames.envelopes(name, run.positions, run.payloads))


# With `protocol=broker.v1`: the envelope, as over WebSocket.
EVENT_STREAM_V1 = WireFormat(
    "sse_v1",
    lambda payloads, name: eventstream.chunk(_v1_blocks(payloads, name)),
    lambda name, run: eventstream.chunk(v1_blocks_with_ids(run.positions, name, run)),
    lambda name, gap: eventstream.chunk(_gap_block(name, gap)),
)
EVENT_STREAM_V1_BARE = WireFormat(
    "sse_v1_bare", _v1_blocks, lambda name, run: v1_blocks_with_ids(run.positions, name, run), _gap_block
)
