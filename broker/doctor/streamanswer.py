"""The answer to a GET, read as it comes: its head first, then its body piece by piece.

Not through httpx: what it keeps open around a stream cannot be closed before the stream's end without
warnings. httptools takes the chunks apart. Compression is offered, as browsers do, so that who
compresses on the way shows; but it is not undone.
"""

from __future__ import annotations

from typing import Any

import httptools
import trio
from attrs import Factory, define

from broker.doctor.finding import CheckFailed
from broker.doctor.target import Target

_READ_BYTES = 64 * 1024


@define(eq=False)
class StreamAnswer:
    """One answer. Whoever opened it calls `cut`. Header names are lower case."""

    _stream: trio.abc.Stream
    status: int = 0
    headers: dict[str, str] = Factory(dict)
    _parser: Any = Factory(httptools.HttpResponseParser, takes_self=True)  # it calls the `on_` methods
    _has_head: bool = False
    _is_complete: bool = False
    _body: bytearray = Factory(bytearray)

    @classmethod
    async def open(cls, target: Target, path: str) -> StreamAnswer:
        """Ask, and read the head.

        Raises:
            CheckFailed: what answers is no HTTP.
        """
        stream = await target.dial()
        answer = cls(stream)
        shown = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
        try:
            await stream.send_all(
                f"GET {target.path}{path} HTTP/1.1\r\nHost: {target.authority}\r\nAccept: text/event-stream\r\n"
                "Accept-Encoding: gzip\r\nCache-Control: no-cache\r\nConnection: keep-alive\r\n"
                f"{shown}\r\n".encode()
            )
            while not answer._has_head:
                await answer._receive()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return answer

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end."""
        while not self._body and not self._is_complete:
            await self._receive()
        body = bytes(self._body)
        self._body.clear()
        return body

    async def cut(self) -> None:
        """Close. Does not wait."""
        await trio.aclose_forcefully(self._stream)

    async def _receive(self) -> None:
        data = await self._stream.receive_some(_READ_BYTES)
        if not data:
            if not self._has_head:
                raise CheckFailed("the connection was closed in place of an answer", "look into the daemon's log")
            self._is_complete = True
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            why = f"what answers there does not speak HTTP: {error}"
            raise CheckFailed(why, "correct the port in the URL") from None

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._is_complete = True
