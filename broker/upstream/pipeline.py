"""A pipeline: commands over one connection to Redis, in order, sent without waiting for answers; it ends with it.

Laws: nothing is sent twice, and nothing over another connection: where an answer fails to come, it is not known
whether the command ran, and who asked must do without. Answers are handed out in the order of the commands.
Bounds: an answer may take `answer_seconds`, then the connection is given up. Who asks much waits for
`room` first: `_ROOM_BYTES` and `_ROOM_CALLS` are in flight at most, and what one caller adds at once.

Source: Redis, "Pipelining".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import trio
from attrs import Factory, define, frozen

from broker.command import Argument
from broker.errors import UpstreamError
from broker.upstream.commands import packed
from broker.upstream.connection import RedisConnection

_ROOM_BYTES = 4 * 1024 * 1024
_ROOM_CALLS = 1000


@frozen
class _Asked:
    at: float
    size: int
    answered: Callable[[Any], None]


@define(eq=False)
class Pipeline:
    """Commands on an open connection, which it does not close. `serve` must run for answers to come.

    Args:
        answer_seconds: how long Redis may be silent about a command.
    """

    _connection: RedisConnection
    _answer_seconds: float
    _asked: deque[_Asked] = Factory(deque)
    _asked_bytes: int = 0
    _added: list[bytes] = Factory(list)
    _unsent: list[bytes] = Factory(list)
    _is_writing: bool = False
    _write_due: trio.Event = Factory(trio.Event)
    _room: trio.Event = Factory(trio.Event)

    def add(self, data: bytes, answered: Callable[[Any], None]) -> None:
        """Add one command in RESP. Its answer, an exception where Redis says no, is given to `answered`. Synchronous.

        Args:
            answered: synchronous, raises nothing. It is not called where the connection ends first.
        """
        self._asked.append(_Asked(trio.current_time(), len(data), answered))
        self._asked_bytes += len(data)
        self._added.append(data)

    def flush(self) -> None:
        """Send what was added, as one write: at once where the kernel takes it. Synchronous.

        Raises:
            UpstreamError: the connection is gone.
        """
        data = b"".join(self._added)
        self._added.clear()
        if not self._is_writing:
            data = data[self._connection.write_nowait(data) :]
        if data:
            self._unsent.append(data)
            self._is_writing = True
            self._write_due.set()

    async def wait_room(self) -> None:
        """Wait until less is in flight than the bounds say. Returns at once where it is."""
        while self._asked_bytes > _ROOM_BYTES or len(self._asked) > _ROOM_CALLS:
            self._room = trio.Event()
            await self._room.wait()

    async def call(self, *commands: tuple[Argument, ...]) -> list[Any]:
        """Run commands in one write. Returns an answer for each. Waits for ever where `serve` has ended.

        Raises:
            UpstreamError: as `flush`.
        """
        answers: list[Any] = []
        complete = trio.Event()

        def answered(answer: Any) -> None:
            answers.append(answer)
            if len(answers) == len(commands):
                complete.set()

        for command in commands:
            self.add(packed(command), answered)
        self.flush()
        await complete.wait()
        return answers

    async def serve(self) -> NoReturn:
        """Carry commands and answers. Runs until cancelled.

        Raises:
            UpstreamError: the connection is gone, or an answer is overdue.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._watch)
            while True:
                for answer in await self._connection.read():
                    self._take(answer)
        raise AssertionError("unreachable")

    def _take(self, answer: Any) -> None:
        if not self._asked:
            raise UpstreamError("Redis answered what was not asked")
        asked = self._asked.popleft()
        self._asked_bytes -= asked.size
        if self._asked_bytes <= _ROOM_BYTES and len(self._asked) <= _ROOM_CALLS:
            self._room.set()
        asked.answered(answer)

    async def _write(self) -> None:
        while True:
            await self._write_due.wait()
            while self._unsent:
                data = b"".join(self._unsent)
                self._unsent.clear()
                await self._connection.write(data)
            self._is_writing = False
            self._write_due = trio.Event()

    async def _watch(self) -> None:
        while True:
            since = self._asked[0].at if self._asked else trio.current_time()
            await trio.sleep_until(since + self._answer_seconds)
            overdue = self._asked and self._asked[0].at <= since
            if overdue and not self._connection.has_unread():
                raise UpstreamError(f"Redis did not answer within {self._answer_seconds:g} s")
            # It is us who are late: what waits is read before the next look.
            await trio.lowlevel.checkpoint()
