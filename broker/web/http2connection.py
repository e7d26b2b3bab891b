"""One HTTP/2 connection: h2 has the protocol, this has the waiting.

One task reads, one writes while the kernel does not take what is sent, and each stream has a task that carries
its answer from the socket pair (`http2stream.py`) to the peer: it reads on only when the stream's window, and the
connection, took what was before. So a stream that is read slowly fills its outbox, as an HTTP/1.1 connection does.

Laws: an answer that was cut off ends with a reset, never as if it were whole. What the peer asks faster than it reads
the answers to is not read. A cancelled task leaves no descriptor open.
Bounds: `STREAMS_MAX` streams, as many more that are being left; what `http2output.py` holds, and what one read brings;
the peer's frames as in `frametally.py`; every wait has a deadline: the preface and a head `head_seconds`, no stream
`idle_seconds`, a peer or a stream that takes nothing `patience_seconds`.
Source: RFC 9113.
"""

from __future__ import annotations

import math
import socket

import httptools
import structlog
import trio
from attrs import define, field
from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

from broker.outbox import close_socket
from broker.visit import Visit
from broker.web.frametally import FRAME_BYTES, RESET_COST, FrameTally, TooMuch
from broker.web.http2 import STREAMS_MAX, STREAMS_PER_CONNECTION, Attend, Http2Counts
from broker.web.http2output import Http2Output
from broker.web.http2protocol import Http2Protocol
from broker.web.http2stream import (
    END_OF_BODY,
    AnswerReader,
    BadRequest,
    ConnectRefused,
    Http2Stream,
    body_chunk,
    head_bytes,
)

log = structlog.get_logger(__name__)

_RECEIVE_BYTES = 16 * 1024
_LEAVE_SECONDS = 5.0


@define(eq=False)
class Http2Connection:
    """A connection until `serve` returns. The door owns its socket."""

    _visit: Visit
    _attend: Attend
    _patience_seconds: float
    _counts: Http2Counts
    _h2: Http2Protocol = field(init=False)
    _tally: FrameTally = field(init=False)
    _streams: dict[int, Http2Stream] = field(init=False, factory=dict)
    _newcomers: list[tuple[Http2Stream, socket.socket]] = field(init=False, factory=list)  # of this one read
    _running: int = field(init=False, default=0)
    _opened: int = field(init=False, default=0)
    _last_id: int = field(init=False, default=0)
    _output: Http2Output = field(init=False)
    _is_retiring: bool = field(init=False, default=False)
    _has_said_goaway: bool = field(init=False, default=False)
    _is_over: bool = field(init=False, default=False)
    _has_left: bool = field(init=False, default=False)
    _idle_since: float = field(init=False)
    _block_since: float = field(init=False, default=math.inf)
    _waiting: trio.CancelScope | None = field(init=False, default=None)
    _nursery: trio.Nursery = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._idle_since = trio.current_time()
        head_max_bytes = self._visit.bounds.head_max_bytes
        self._tally = FrameTally(2 * head_max_bytes, self._idle_since)
        self._output = Http2Output(self._visit.socket, self._patience, self._tally.sent, self._broken)
        self._h2 = Http2Protocol(head_max_bytes)

    async def serve(self) -> None:
        """Runs until the peer leaves, is idle for too long, is dismissed, or does what it must not."""
        self._visit.on_dismissed = self._dismiss
        async with trio.open_nursery() as writing:
            writing.start_soon(self._output.write)
            async with trio.open_nursery() as self._nursery:
                try:
                    self._h2.initiate_connection()
                    self._push()
                    await self._read()
                except TooMuch as why:
                    self._counts.ended_for_flood += 1
                    self._end(ErrorCodes.ENHANCE_YOUR_CALM, str(why))
                except ProtocolError as error:  # h2 has written the GOAWAY
                    self._end(None, str(error))
                except OSError:
                    self._has_left = True
                self._is_over = True
                for stream in list(self._streams.values()):
                    self._forget(stream)
                self._output.wake()
                # Their clients leave by themselves, now that their peer has.
                self._nursery.cancel_scope.deadline = trio.current_time() + _LEAVE_SECONDS
            if not self._has_left:
                with trio.move_on_after(self._visit.bounds.write_seconds):
                    await self._output.drain()
            writing.cancel_scope.cancel()
        self._visit.served = f"HTTP/2 with {self._opened} streams"
        if not (self._has_left or self._output.is_broken) and self._output.is_empty:
            await self._visit.linger()

    def _dismiss(self) -> None:
        """Take no further stream; the connection ends with the last one. Synchronous; safe to call again."""
        # GOAWAY follows then: clients made with h2, httpx among them, can read no stream to its end after one.
        self._is_retiring = True
        self._look_at_time()

    def _retire(self) -> None:
        """Have the peer open another connection. The streams that there are go on."""
        self._say_goaway(ErrorCodes.NO_ERROR)
        self._is_retiring = True

    def _say_goaway(self, code: ErrorCodes) -> None:
        """By hand: after a GOAWAY of its own, h2 sends no data any more."""
        if not self._has_said_goaway:
            self._has_said_goaway = True
            self._push()
            self._output.put(GoAwayFrame(0, last_stream_id=self._last_id, error_code=int(code)).serialize())

    async def _read(self) -> None:
        sock = self._visit.socket
        while not self._is_over:
            data = b""
            with trio.CancelScope(deadline=self._deadline()) as self._waiting:
                while self._output.is_full:
                    await self._output.wait_for_room()
                while not self._is_over:
                    try:
                        data = sock.recv(_RECEIVE_BYTES)
                        break
                    except BlockingIOError:
                        await trio.lowlevel.wait_readable(sock)
            if self._is_over:
                return
            if self._waiting.cancelled_caught:
                if self._deadline() <= trio.current_time():
                    self._end(ErrorCodes.NO_ERROR, "nothing came")
                    return
                continue
            if not data:
                self._has_left = True
                return
            self._take(data)
            if not self._tally.in_block:
                self._block_since = math.inf
            elif self._block_since == math.inf:
                self._block_since = trio.current_time()
            await trio.lowlevel.checkpoint()

    def _deadline(self) -> float:
        """When the peer has had its time, as it is now."""
        bounds = self._visit.bounds
        if not self._tally.has_frames:
            return self._visit.opened_at + bounds.head_seconds
        idle = math.inf if self._running else self._idle_since + bounds.idle_seconds
        return min(self._block_since + bounds.head_seconds, idle)

    def _look_at_time(self) -> None:
        """What the deadline depends on has changed."""
        if self._is_retiring and not self._running:
            self._is_over = True
            self._say_goaway(ErrorCodes.NO_ERROR)
        if self._waiting is not None:
            if self._is_over:
                self._waiting.cancel()
            else:
                self._waiting.deadline = self._deadline()

    def _take(self, data: bytes) -> None:
        self._tally.take(data, trio.current_time())
        try:
            self._take_events(data)
        finally:
            self._serve_newcomers()
        self._push()

    def _take_events(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            match event:
                case events.RequestReceived():
                    self._open(event)
                case events.DataReceived():
                    self._take_body(event)
                case events.StreamEnded():
                    self._end_body(event.stream_id)
                case events.StreamReset():
                    stream = self._streams.get(event.stream_id)
                    if stream is not None:
                        self._forget(stream)
                    self._tally.charge(RESET_COST, "resets")
                case events.WindowUpdated():
                    self._open_windows(event.stream_id)
                case events.RemoteSettingsChanged():
                    self._h2.bound_header_table()
                    self._open_windows(0)
                case events.ConnectionTerminated():
                    self._is_retiring = True
                    self._look_at_time()

    def _serve_newcomers(self) -> None:
        """Serve the streams that were opened. One that was reset in the same read costs no task: 30 KB each."""
        newcomers, self._newcomers = self._newcomers, []
        for stream, inner in newcomers:
            if stream.is_over:
                self._finish(stream, inner)
            else:
                self._nursery.start_soon(self._carry, stream, inner)

    def _open(self, event: events.RequestReceived) -> None:
        assert event.stream_id is not None
        self._last_id = max(self._last_id, event.stream_id)
        has_body = event.stream_ended is None
        try:
            method, head = head_bytes(event.headers or (), has_body=has_body)
        except ConnectRefused:
            self._refuse(event.stream_id, ErrorCodes.HTTP_1_1_REQUIRED)
            return
        except BadRequest:
            self._refuse(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        if self._is_retiring or len(self._streams) >= STREAMS_MAX or self._running >= 2 * STREAMS_MAX:
            self._refuse(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        try:
            outer, inner = socket.socketpair()
        except OSError:  # no descriptors: the door rests too
            self._refuse(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        outer.setblocking(False)
        inner.setblocking(False)
        stream = self._streams[event.stream_id] = Http2Stream(event.stream_id, outer, AnswerReader(method))
        stream.body_is_whole = not has_body
        self._opened += 1
        self._running += 1
        self._counts.streams += 1
        self._counts.streams_served += 1
        sent = outer.send(head)
        if sent < len(head):
            stream.put(head[sent:], 0)
        self._newcomers.append((stream, inner))
        if self._opened >= STREAMS_PER_CONNECTION:
            self._retire()

    def _refuse(self, id: int, code: ErrorCodes) -> None:
        self._h2.reset_stream(id, code)
        self._tally.charge(RESET_COST, "requests that are refused")

    def _take_body(self, event: events.DataReceived) -> None:
        assert event.stream_id is not None
        stream = self._streams.get(event.stream_id)
        window = event.flow_controlled_length or 0
        if stream is None or stream.is_over or not event.data:
            self._acknowledge(event.stream_id, window)
        else:
            stream.put(body_chunk(event.data), window)

    def _end_body(self, id: int | None) -> None:
        stream = self._streams.get(id or 0)
        if stream is not None and not stream.body_is_whole:
            stream.body_is_whole = True
            stream.put(END_OF_BODY, 0)

    def _open_windows(self, id: int | None) -> None:
        for stream in [self._streams[id]] if id in self._streams else [] if id else list(self._streams.values()):
            stream.opened_window()

    def _forget(self, stream: Http2Stream) -> None:
        """The peer has, or wants, no more of it. Whoever serves it sees its client leave."""
        self._streams.pop(stream.id, None)
        for _, window in stream.inbox:
            self._acknowledge(stream.id, window)
        stream.close()

    def _acknowledge(self, id: int, window: int) -> None:
        if window:
            try:
                self._h2.acknowledge_received_data(window, id)
            except (ProtocolError, ValueError):  # the stream, or the connection, is closed by now
                pass
            self._push()

    async def _carry(self, stream: Http2Stream, inner: socket.socket) -> None:
        """Serve a stream to its end."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._attend, self._visit.stream(inner))
                if stream.inbox or not stream.body_is_whole:
                    nursery.start_soon(stream.carry_body, self._acknowledge)
                await self._carry_answer(stream)
                self._forget(stream)
        finally:
            self._finish(stream, inner)

    def _finish(self, stream: Http2Stream, inner: socket.socket) -> None:
        stream.close()
        close_socket(inner)
        self._running -= 1
        self._counts.streams -= 1
        self._idle_since = trio.current_time()
        self._look_at_time()

    async def _carry_answer(self, stream: Http2Stream) -> None:
        try:
            while not stream.answer.is_whole:
                try:
                    data = stream.socket.recv(_RECEIVE_BYTES)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(stream.socket)
                    continue
                if not data:
                    if stream.answer.ended():
                        await self._send_body(stream, b"", True)
                    break
                await self._send(stream, data)
        except (trio.ClosedResourceError, httptools.HttpParserError, ProtocolError, OSError):
            pass
        if stream.is_over or self._is_over:
            return
        try:
            if not stream.answer.is_whole:
                self._h2.reset_stream(stream.id, ErrorCodes.INTERNAL_ERROR)
            elif not stream.body_is_whole:
                self._h2.reset_stream(stream.id, ErrorCodes.NO_ERROR)  # RFC 9113, 8.1: the rest is not wanted
        except ProtocolError:
            pass
        self._push()

    async def _send(self, stream: Http2Stream, data: bytes) -> None:
        """Send what these bytes of the answer say.

        Raises:
            trio.ClosedResourceError: the stream is over, or took nothing for too long.
        """
        found = stream.answer.take(data)
        if stream.answer.is_whole and not (found and isinstance(found[-1], bytes)):
            found.append(b"")
        for place, item in enumerate(found, 1):
            if isinstance(item, bytes):
                await self._send_body(stream, item, stream.answer.is_whole and place == len(found))
            else:
                status, headers = item
                self._h2.send_headers(stream.id, [(b":status", b"%d" % status), *headers])
                self._push()

    async def _send_body(self, stream: Http2Stream, data: bytes, is_last: bool) -> None:
        at = 0
        while True:
            while self._output.is_full and not self._is_over:
                await self._output.wait_for_room()
            if stream.is_over or self._is_over:
                raise trio.ClosedResourceError
            window = self._h2.local_flow_control_window(stream.id)
            most = min(window, self._h2.max_outbound_frame_size, FRAME_BYTES)
            part = data[at : at + most] if most > 0 else b""
            at += len(part)
            if part or not data:
                self._h2.send_data(stream.id, part, end_stream=is_last and at == len(data))
                self._push()
            if at == len(data):
                return
            if not part:
                with trio.move_on_after(self._patience_seconds) as patience:
                    await stream.has_window.wait()
                if patience.cancelled_caught:
                    raise trio.ClosedResourceError

    def _end(self, code: ErrorCodes | None, why: str) -> None:
        """Say why the connection ends. Nothing more is taken."""
        log.debug("HTTP/2 connection ends", client=self._visit.address, why=why)
        self._is_over = True
        if code is not None:
            self._say_goaway(code)
        self._push()

    def _push(self) -> None:
        """Send what h2 has written. Raises nothing."""
        self._output.put(self._h2.data_to_send())

    def _patience(self) -> float:
        return self._patience_seconds if self._running else self._visit.bounds.write_seconds

    def _broken(self) -> None:
        self._is_over = True
        self._look_at_time()
