"""An HTTP/2 client that says what a test gives it, well-formed or not. Blocks, with a deadline on every wait."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from attrs import Factory, define, field
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection

WAIT_SECONDS = 30.0


@define(eq=False)
class StreamSeen:
    """What came on one stream."""

    headers: dict[str, str] = Factory(dict)
    data: bytearray = Factory(bytearray)
    is_ended: bool = False
    reset: int | None = None  # the error code

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", 0))

    def events(self) -> list[Any]:
        """The data of every event of a stream, without those that the daemon says itself."""
        lines = bytes(self.data).split(b"\n")[:-1]
        found = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
        return [each for each in found if each.get("type") != "connected"]


@define(eq=False)
class Http2Client:
    """One connection, closed by the end of its `with`.

    Args:
        reads: whether data counts as read as it comes, so that the daemon may send more.
    """

    sock: ssl.SSLSocket
    h2: H2Connection
    reads: bool = True
    streams: dict[int, StreamSeen] = Factory(dict)
    settings: dict[int, int] = Factory(dict)
    goaway: int | None = None
    last_stream_id: int | None = None
    is_closed: bool = field(init=False, default=False)

    @classmethod
    def connect(
        cls, port: int, context: ssl.SSLContext, *, greets: bool = True, reads: bool = True, receive_buffer: int = 0
    ) -> Http2Client:
        """
        Args:
            context: must offer h2 by ALPN.
            greets: whether the preface is sent.
        """
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(WAIT_SECONDS)
        raw.connect(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = context.wrap_socket(raw, server_hostname="localhost")
        assert sock.selected_alpn_protocol() == "h2"
        config = H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        client = cls(sock, H2Connection(config), reads)
        client.h2.initiate_connection()
        if greets:
            client.flush()
        return client

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Raw bytes inside TLS; a peer who has gone is no error."""
        try:
            self.sock.sendall(data)
        except OSError:
            self.is_closed = True

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.send(data)

    def ask(
        self,
        path: str,
        *more: tuple[str, str],
        method: str = "GET",
        body: bytes | None = None,
        ends: bool = True,
        flush: bool = True,
    ) -> int:
        """Send a request. Returns its stream."""
        id = self.h2.get_next_available_stream_id()
        self.streams[id] = StreamSeen()
        head = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *more]
        self.h2.send_headers(id, head, end_stream=ends and body is None)
        if body is not None:
            self.h2.send_data(id, body, end_stream=ends)
        if flush:
            self.flush()
        return id

    def answer(self, id: int) -> StreamSeen:
        """Read until the stream is over."""
        stream = self.streams[id]
        self.pump(lambda: stream.is_ended or stream.reset is not None)
        return stream

    def get(self, path: str, *more: tuple[str, str]) -> StreamSeen:
        return self.answer(self.ask(path, *more))

    def subscribe(self, *names: str) -> list[int]:
        """A stream for each channel, that has said `connected`."""
        ids = [self.ask(f"/api/stream?channel={name}", flush=False) for name in names]
        self.flush()
        self.pump(lambda: all(b'"connected"' in self.streams[id].data for id in ids))
        return ids

    def pump(self, until: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Read until it holds, which fails where the daemon closes the connection before."""
        deadline = time.monotonic() + seconds
        while not until():
            assert not self.is_closed, f"the daemon closed the connection, GOAWAY {self.goaway}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s"
            self.read(0.05)

    def read(self, seconds: float) -> None:
        """Read once, and take in what came."""
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(1 << 16)
        except (TimeoutError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        finally:
            self.sock.settimeout(WAIT_SECONDS)
        if not data:
            self.is_closed = True
            return
        self._take(self.h2.receive_data(data))
        self.flush()

    def await_close(self, seconds: float = WAIT_SECONDS) -> None:
        self.pump(lambda: self.is_closed, seconds)

    def _take(self, found: Iterable[events.Event]) -> None:
        for event in found:
            id = getattr(event, "stream_id", None) or 0
            stream = self.streams.setdefault(id, StreamSeen())
            match event:
                case events.ResponseReceived():
                    stream.headers = dict(event.headers or ())  # type: ignore[arg-type]
                case events.DataReceived():
                    stream.data += event.data or b""
                    if self.reads:
                        self.h2.acknowledge_received_data(event.flow_controlled_length or 0, id)
                case events.StreamEnded():
                    stream.is_ended = True
                case events.StreamReset():
                    stream.reset = int(event.error_code or 0)
                case events.ConnectionTerminated():
                    self.goaway = int(event.error_code or 0)
                    self.last_stream_id = event.last_stream_id
                case events.RemoteSettingsChanged():
                    self.settings |= {
                        int(key): changed.new_value for key, changed in (event.changed_settings or {}).items()
                    }
