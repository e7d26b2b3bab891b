"""HTTP/2: any bytes of a peer. Each stream it opens becomes one request of HTTP/1.1, that and nothing else; what ends
the connection has a name, and what goes out is whole frames."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from typing import Any

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import ContinuationFrame, GoAwayFrame, HeadersFrame, PriorityFrame, RstStreamFrame

from broker.config.sections import Listen
from broker.outbox import close_socket
from broker.visit import Visit
from broker.web.frametally import TooMuch
from broker.web.http2 import STREAMS_MAX, Http2Counts
from broker.web.http2connection import Http2Connection
from tests.fuzz.target import Target
from tests.fuzz.targets import heads

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BOUNDS = Listen(head_max_bytes=4096)
_READ_BYTES = 1 << 20
_FRAME_HEAD_BYTES = 9
# Read as HTTP/1.1 these are refused there: what h2 lets through of them is no other request.
_REFUSED_LATER = {400, 413, 417, 431, 501}


class Nursery:
    """Where the tasks of streams would run."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, socket.socket]] = []

    def start_soon(self, carry: object, stream: Any, inner: socket.socket) -> None:
        self.started.append((stream, inner))


def check(data: bytes) -> str:
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(end)) for end in socket.socketpair())
        ours.setblocking(False)
        theirs.setblocking(False)
        counts = Http2Counts()
        connection = Http2Connection(Visit(ours, BOUNDS, trio.current_time()), _attend, 1.0, counts)
        nursery: Any = Nursery()
        connection._nursery = nursery
        connection._h2.initiate_connection()
        connection._push()
        how = "goes on"
        try:
            # As `_read` brings it.
            for at in range(0, len(data), 16 * 1024):
                connection._take(data[at : at + 16 * 1024])
        except (TooMuch, ProtocolError) as error:
            how = type(error).__name__
            connection._end(None, str(error))
        assert len(connection._streams) <= STREAMS_MAX and counts.streams == len(nursery.started)
        seen = [_request_of(stream, inner) for stream, inner in nursery.started]
        sent = _received(theirs) + bytes(connection._output._waiting)
        for stream, inner in nursery.started:
            stream.close()
            close_socket(inner)
    return f"{how} {_frames(sent)} {' '.join(seen[:2])}"


async def _attend(visit: Visit) -> None:
    raise AssertionError("nobody serves it here")


def _request_of(stream: Any, inner: socket.socket) -> str:
    """What whoever serves the stream reads."""
    written = _received(inner) + b"".join(data for data, _ in stream.inbox)
    if stream.is_over:
        return "left"
    read = heads.read([written])
    if read.status:
        assert read.status in _REFUSED_LATER, read
        return str(read.status)
    (request,) = read.requests
    assert read.rest == b"" and not request.upgrades_to_websocket
    assert read.ended == int(stream.body_is_whole), "a body that is not as whole as its stream"
    assert request.method == stream.answer._method
    heads.look_at(request)
    return f"{request.method} {min(len(read.body), 1)}"


def _received(end: socket.socket) -> bytes:
    found = b""
    try:
        while data := end.recv(_READ_BYTES):
            found += data
    except (BlockingIOError, OSError):
        pass
    return found


def _frames(sent: bytes) -> int:
    """How many sorts of frames there are; all are whole."""
    kinds = set()
    while sent:
        size = int.from_bytes(sent[:3], "big")
        assert len(sent) >= _FRAME_HEAD_BYTES + size, "a frame cut off"
        kinds.add(sent[3])
        sent = sent[_FRAME_HEAD_BYTES + size :]
    return len(kinds)


def talk(*steps: tuple[Any, ...]) -> bytes:
    """What a client of h2's sends: names of methods and their arguments, or bytes as they are."""
    client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False, header_encoding=None))
    client.initiate_connection()
    sent = client.data_to_send()
    for name, *arguments in steps:
        if isinstance(name, bytes):
            sent += name
        else:
            getattr(client, name)(*arguments)
            sent += client.data_to_send()
    return sent


def fields(method: bytes = b"GET", path: bytes = b"/health", *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    first = [(b":method", method), (b":path", path), (b":scheme", b"https"), (b":authority", b"broker.test")]
    return [*first, *more]


def raw_head(*block: bytes) -> bytes:
    """A request head cut into frames."""
    first = HeadersFrame(1, block[0], flags=[] if len(block) > 1 else ["END_HEADERS"])
    rest = [ContinuationFrame(1, part, flags=["END_HEADERS"] if part is block[-1] else []) for part in block[1:]]
    return b"".join(frame.serialize() for frame in (first, *rest))


# Names and values without compression, each a literal that is never indexed (RFC 7541, 6.2.3).
LITERAL = b"".join(
    b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value
    for name, value in fields(b"GET", b"/a\r\nX: y", (b"cookie", b"a=b\r\nX: y"))
)

TARGET = Target(
    "http2",
    check,
    (
        talk(("send_headers", 1, fields(), True)),
        talk(("send_headers", 1, fields(b"POST", b"/a", (b"content-length", b"2"))), ("send_data", 1, b"{}", True)),
        talk(("send_headers", 1, fields(b"POST", b"/api/publish")), ("send_data", 1, b"x" * 300), ("reset_stream", 1)),
        talk(("send_headers", 1, fields(b"GET", b"/?channel=a", (b"cookie", b"a=b"), (b"cookie", b"c=d")), True)),
        talk(("send_headers", 1, fields(b"CONNECT", b"/ws", (b":protocol", b"websocket")))),
        talk(("send_headers", 1, fields(b"OPTIONS", b"*"), True), ("send_headers", 3, fields(b"HEAD"), True)),
        talk(("ping", b"12345678"), ("update_settings", {SettingCodes.INITIAL_WINDOW_SIZE: 1})),
        talk(("increment_flow_control_window", 9)),
        talk(("send_headers", 1, fields()), ("send_headers", 1, [(b"x-trailer", b"a")], True)),
        talk(("send_headers", 1, fields(b"GET", b"/", (b"x", b"a" * 5000)), True)),
        talk(("close_connection",)),
        talk((raw_head(LITERAL),)),
        talk((raw_head(LITERAL[:9], LITERAL[9:30], LITERAL[30:]),)),
        talk((PriorityFrame(1, depends_on=3, stream_weight=7).serialize(),), (RstStreamFrame(1).serialize(),)),
        talk((GoAwayFrame(0, last_stream_id=1).serialize(),), ("send_headers", 1, fields(), True)),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        PREFACE,
    ),
    (
        PREFACE, b"\0\0\0", b"\0\0\1", b"\0\0\4\x08\0\0\0\0\0", b"\x01\x04\0\0\0\x01", b"\x01\x05\0\0\0\x01",
        b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x06\x04\0\0\0\0\0\0\x01\xff\xff\xff\xff", b"\0\0\x08\x06\0\0\0\0\0",
        b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08", b"\x09\0\0\0\0\x01", b"\0\0\0\0\x01\0\0\0\x01", b"\x82\x84\x87\x86",
        b"\x40", b"\x10", b"\x3f\xff\xff\xff\x7f", b":method", b":path", b"host", b"content-length",
        b"transfer-encoding", b"te", b"trailers", b"chunked", b"\r\nX: y",
    ),
    frozenset({"goes on 1 GET 0", "goes on 1 POST 1", "ProtocolError 2 "}),
    max_bytes=8_000,
)  # fmt: skip
