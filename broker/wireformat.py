"""The wire formats that clients share: a batch of messages is turned into each of them once.

A format is compared by identity: clients of one format and channel get the same bytes object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from broker import eventstream, frames


@frozen(eq=False)
class WireFormat:
    """How a batch looks on the wire.

    Args:
        name: what statistics call it.
        encode: the batch's payloads, in order, as the bytes that every client of the format gets.
        last_index: where the stream has an end, finds the payload that ends it; None for no end.
        encode_end: what follows that payload on the wire.
    """

    name: str
    encode: Callable[[Sequence[bytes]], bytes]
    last_index: Callable[[Sequence[bytes]], int | None] | None = None
    encode_end: Callable[[bytes], bytes] | None = None


WEBSOCKET = WireFormat("websocket", frames.text_frames)
EVENT_STREAM = WireFormat("sse", lambda payloads: eventstream.chunk(eventstream.blocks(payloads)))
# HTTP/1.0 knows no chunks: old proxies ask with it, and the stream ends with the connection.
EVENT_STREAM_BARE = WireFormat("sse_bare", eventstream.blocks)
