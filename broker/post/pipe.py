"""The pipe between the supervisor and a worker: lines of JSON both ways, over a socket pair.

To the worker, `do` says what:

    {"do": "stand_in", "slot": 2}       accept for that slot too, until {"do": "stand_down", "slot": 2}
    {"do": "settings", "launch": "..."} new settings, as `packed`
    {"do": "dump"}                      write to the log what it is doing
    {"do": "stop"}                      drain and end

To the supervisor, `is` says what:

    {"is": "alive", "clients": 7, ...}  once a second, from the event loop: the fields of `Vitals`
    {"is": "ready", ...}                it serves
    {"is": "stopping"}                  it accepts no longer
    {"is": "failed", "why": "..."}      it cannot start; the last thing it says

Law: the pipe is a lifeline. Each side sees the other's end, however that came, as the end of the lines.
Bounds: `_LINES_WAITING` lines wait to be written, then further ones are dropped; `_LINE_BYTES` a line.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import trio
from attrs import define, field

_LINES_WAITING = 1000
_LINE_BYTES = 64 * 1024 * 1024
_READ_BYTES = 64 * 1024
_LAST_WORD_SECONDS = 1.0

Message = Mapping[str, Any]


@define(eq=False)
class WorkerPipe:
    """One end. Owns its socket.

    Concurrency: one task receives, one runs `write`; `say` may be called by anybody.
    """

    socket: socket.socket
    _stream: trio.SocketStream = field(init=False)
    _buffer: bytearray = field(init=False, factory=bytearray)
    _waiting: trio.MemorySendChannel[bytes] = field(init=False)
    _written: trio.MemoryReceiveChannel[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._waiting, self._written = trio.open_memory_channel[bytes](_LINES_WAITING)

    def open(self) -> None:
        """Hand the socket to the event loop. Call it once, inside."""
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(self.socket))

    def say(self, message: Message) -> None:
        """Have a line written. Synchronous; where the other side does not read, lines are dropped."""
        try:
            self._waiting.send_nowait(_line(message))
        except trio.WouldBlock:
            pass

    async def write(self) -> None:
        """Write what is said. Runs until cancelled, or until the other side is gone."""
        try:
            async for line in self._written:
                await self._stream.send_all(line)
        except trio.BrokenResourceError:
            pass  # whoever receives notices

    async def receive(self) -> Message | None:
        """The next line; None when the other side is gone. A line that is no message is left out: half of one, say."""
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                message = _message(line)
                if message is not None:
                    return message
                continue
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data or len(self._buffer) > _LINE_BYTES:
                return None
            self._buffer += data

    def receive_first(self) -> Message | None:
        """The first line, before the event loop runs. Blocks."""
        self.socket.setblocking(True)
        while b"\n" not in self._buffer:
            data = self.socket.recv(_READ_BYTES)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return _message(line)

    def say_last(self, message: Message) -> None:
        """Write a line when the event loop has ended. Blocks for `_LAST_WORD_SECONDS` at most."""
        try:
            self.socket.settimeout(_LAST_WORD_SECONDS)
            # The line before may have been cut in half.
            self.socket.sendall(b"\n" + _line(message))
        except OSError:
            pass

    def close(self) -> None:
        """Synchronous. Nobody may be waiting on it."""
        self.socket.close()


def _line(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _message(line: bytes | bytearray) -> Message | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class _Pickler(pickle.Pickler):
    """Settings have read-only mappings in them, which Python does not pickle by itself."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, MappingProxyType):
            return _read_only, (dict(value),)
        return NotImplemented


def _read_only(values: dict[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(values)


def packed(value: object) -> str:
    """A value as text for a line. Only for processes of one daemon, of one version: it is a pickle."""
    written = io.BytesIO()
    _Pickler(written).dump(value)
    return base64.b64encode(written.getvalue()).decode("ascii")


def unpacked(text: str) -> Any:
    """What `packed` was given. What it says is run: only for what the supervisor has sent."""
    return pickle.loads(base64.b64decode(text))
