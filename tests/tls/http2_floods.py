"""Floods of HTTP/2: frames that carry nothing, without end, and what grows when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.tls.http2_client import Http2Client

FRAMES = 20_000


def head_of(client: Http2Client, path: str = "/health") -> bytes:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
    return client.h2.encoder.encode(fields)


def opening(client: Http2Client) -> Callable[[int], bytes]:
    """A request on the stream of that number, with a head that needs no table."""
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/health")]
    block = client.h2.encoder.encode([(name, value, True) for name, value in fields])  # type: ignore[arg-type]
    return lambda number: HeadersFrame(2 * number + 3, block, flags=["END_HEADERS", "END_STREAM"]).serialize()


def rapid_resets(client: Http2Client) -> Iterator[bytes]:
    begin = opening(client)
    for number in range(FRAMES):
        yield begin(number) + RstStreamFrame(2 * number + 3, error_code=8).serialize()


def resets_that_the_daemon_is_made_to_send(client: Http2Client) -> Iterator[bytes]:
    begin = opening(client)
    for number in range(FRAMES):
        yield begin(number) + b"\0\0\4\x08\0" + (2 * number + 3).to_bytes(4, "big") + bytes(4)  # a window of 0 more


def repeated(frame: Frame) -> Callable[[Http2Client], Iterator[bytes]]:
    data = frame.serialize()
    return lambda client: (data for _ in range(FRAMES))


def empty_data(client: Http2Client) -> Iterator[bytes]:
    yield HeadersFrame(3, head_of(client), flags=["END_HEADERS"]).serialize()
    yield from (DataFrame(3, b"").serialize() for _ in range(FRAMES))


def a_head_without_end(client: Http2Client) -> Iterator[bytes]:
    yield HeadersFrame(3, b"").serialize()
    yield from (ContinuationFrame(3, bytes(1000)).serialize() for _ in range(FRAMES))


def a_head_of_nothing(client: Http2Client) -> Iterator[bytes]:
    yield HeadersFrame(3, b"").serialize()
    yield from (ContinuationFrame(3, b"").serialize() for _ in range(FRAMES))


def heads_that_grow_when_they_are_read(client: Http2Client) -> Iterator[bytes]:
    block = client.h2.encoder.encode([("x-a", "a" * 4000)]) + b"\xbe" * 10_000
    yield HeadersFrame(3, block, flags=["END_HEADERS", "END_STREAM"]).serialize()


def one_large_frame(client: Http2Client) -> Iterator[bytes]:
    yield b"\xff\xff\xff\0\0\0\0\0\3"
    yield from (bytes(1 << 16) for _ in range(300))


FLOODS = {
    "rapid resets": rapid_resets,
    "made to reset": resets_that_the_daemon_is_made_to_send,
    "pings": repeated(PingFrame(0, b"12345678")),
    "settings": repeated(SettingsFrame(0, {3: 100})),
    "acknowledgements": repeated(PingFrame(0, b"12345678", flags=["ACK"])),
    "windows": repeated(WindowUpdateFrame(0, window_increment=1)),
    "priorities": repeated(PriorityFrame(3, depends_on=1, stream_weight=5)),
    "unknown frames": repeated(ExtensionFrame(0x77, 0, body=b"x")),
    "empty data": empty_data,
    "endless head": a_head_without_end,
    "head of nothing": a_head_of_nothing,
    "growing heads": heads_that_grow_when_they_are_read,
    "large frame": one_large_frame,
}
