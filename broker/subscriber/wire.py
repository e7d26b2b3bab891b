"""A wire: the byte stream below a WebSocket, with deadlines."""

from __future__ import annotations

import trio
from attrs import define


@define(eq=False)
class Wire:
    """Raises TooSlowError after too much silence while it is read; before it `is_open`, an error at its end."""

    stream: trio.abc.Stream
    _silence_seconds: float
    is_open: bool = False
    _begin: bytes = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""  # the end, behind which trio-websocket would wait on for a handshake
        try:
            with trio.fail_after(self._silence_seconds):
                data = await self.stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            if self.is_open:
                raise
        self._begin = self._begin or bytes(data[:60])
        if not self.is_open and not (data and self._begin[:7] == b"HTTP/1."[: len(self._begin)]):
            answer = f"answered {ascii(self._begin)[1:]}" if self._begin else "closed the connection"
            raise OSError(f"it {answer} instead of a WebSocket handshake")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.fail_after(self._silence_seconds):
            await self.stream.send_all(data)

    async def aclose(self) -> None:
        await self.stream.aclose()
