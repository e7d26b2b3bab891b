"""The command link: one Redis connection for commands, pipelined, made when first needed.

Whoever calls waits for its replies under a deadline; replies come in the order of the commands. When
the connection is gone, who waits for an answer is told so: whether Redis ran the command is then not
known. What was not sent yet goes out over the next connection, within its deadline.

Laws: no reply is given to another call: a call that timed out takes its connection with it.
Bounds: `_CALLS_MAX` calls and `_BYTES_MAX` bytes wait to be sent; the deadline is
`redis.ping_timeout_seconds`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import structlog
import trio
from attrs import Factory, define, field

from broker.command import Argument, Script
from broker.config.sections import Redis
from broker.errors import UpstreamError, UpstreamRefused
from broker.upstream.backoff import Backoff
from broker.upstream.connection import RedisConnection, pack

_CALLS_MAX = 10_000
_BYTES_MAX = 64 * 1024 * 1024

PASSING = ("BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOSCRIPT")
"""How an error reply begins that Redis gives for a while only: ask again."""

log = structlog.get_logger(__name__)


@define(eq=False)
class _Call:
    data: bytes
    missing: int
    replies: list[Any] = Factory(list)
    done: trio.Event = Factory(trio.Event)
    lost: str | None = None


@define(eq=False)
class CommandLink:
    """Commands to one Redis. `serve` must run for anything to happen.

    Args:
        answer_seconds: how long a call may take in all.
    """

    _section: Redis
    _answer_seconds: float = field()
    _waiting: deque[_Call] = Factory(deque)
    _waiting_bytes: int = 0
    _sent: deque[_Call] = Factory(deque)
    _due: trio.Event = Factory(trio.Event)
    _why_away: str = "not connected yet"
    _broken: trio.CancelScope | None = None
    _is_connected: bool = False

    @_answer_seconds.default
    def _default_answer_seconds(self) -> float:
        return self._section.ping_timeout_seconds

    async def serve(self) -> None:
        """Carry commands. Runs until cancelled; connects when the first command waits."""
        backoff = Backoff(self._section)
        while True:
            while not self._waiting:
                await self._await_call()
            try:
                connection = await RedisConnection.open(self._section)
            except UpstreamError as error:
                if str(error) != self._why_away:
                    log.warning("commands wait for Redis", why=str(error))
                self._why_away = str(error)
            else:
                self._why_away = ""
                opened_at = trio.current_time()
                try:
                    await self._converse(connection)
                except* UpstreamError as group:
                    self._why_away = "; ".join(map(str, group.exceptions))
                finally:
                    self._is_connected = False
                    connection.close()
                    self._lose_sent()
                log.info("Redis command connection lost", why=self._why_away)
                backoff.lived(trio.current_time() - opened_at)
            await trio.sleep(backoff.seconds())

    async def execute(self, *commands: tuple[Argument, ...]) -> list[Any]:
        """As `Commands.execute`."""
        call = self._add(b"".join(packed(command) for command in commands), len(commands))
        try:
            with trio.move_on_after(self._answer_seconds):
                await call.done.wait()
        finally:
            # Whoever gave up (a deadline, a client that left) before it was sent: it never will be.
            if not call.done.is_set() and call in self._waiting:
                self._waiting.remove(call)
                self._waiting_bytes -= len(call.data)
                call.lost = f"Redis cannot be reached: {self._why_away}"
        if call.lost is not None:
            raise UpstreamError(call.lost)
        if not call.done.is_set():
            self._break(f"Redis did not answer within {self._answer_seconds:g} s")
            raise UpstreamError(f"Redis did not answer within {self._answer_seconds:g} s")
        return call.replies

    async def run(self, script: Script, keys: tuple[str, ...], *arguments: Argument) -> Any:
        """As `Commands.run`: by its digest, and whole where Redis does not know it (any more)."""
        rest = (len(keys), *keys, *arguments)
        (reply,) = await self.execute(("EVALSHA", script.digest, *rest))
        if isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT"):
            (reply,) = await self.execute(("EVAL", script.text, *rest))
        if isinstance(reply, Exception):
            kind = UpstreamRefused if is_refusal(reply) else UpstreamError
            raise kind(f"Redis refused a script: {reply}")
        return reply

    def post(self, script: Script, keys: tuple[str, ...], *arguments: Argument) -> None:
        """As `Commands.post`. Whole, as nobody would see that Redis does not know the digest."""
        if not self._is_connected:
            return  # what is said now would be untrue when Redis is back
        try:
            self._add(packed(("EVAL", script.text, len(keys), *keys, *arguments)), 1)
        except UpstreamError:
            pass

    def _add(self, data: bytes, replies: int) -> _Call:
        if len(self._waiting) >= _CALLS_MAX or self._waiting_bytes + len(data) > _BYTES_MAX:
            raise UpstreamError("too many commands wait for Redis; try again in a moment")
        call = _Call(data, replies)
        self._waiting.append(call)
        self._waiting_bytes += len(data)
        self._due.set()
        return call

    async def _await_call(self) -> None:
        self._due = trio.Event()
        if not self._waiting:
            await self._due.wait()

    async def _converse(self, connection: RedisConnection) -> None:
        """Send and receive until the connection is no use any more.

        Raises:
            UpstreamError: it is gone, or an answer is overdue.
        """
        self._is_connected = True
        with trio.CancelScope() as self._broken:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, connection)
                while True:
                    for reply in await connection.read():
                        self._take(reply)
        if self._broken.cancelled_caught:
            raise UpstreamError(self._why_away)

    async def _write(self, connection: RedisConnection) -> None:
        while True:
            await self._await_call()
            calls = list(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._sent += calls
            await connection.write(b"".join(call.data for call in calls))

    def _take(self, reply: Any) -> None:
        if not self._sent:
            raise UpstreamError("Redis answered what was not asked")
        call = self._sent[0]
        call.replies.append(reply)
        call.missing -= 1
        if not call.missing:
            self._sent.popleft()
            call.done.set()

    def _break(self, why: str) -> None:
        self._why_away = why
        if self._broken is not None:
            self._broken.cancel()

    def _lose_sent(self) -> None:
        """Tell who waits for an answer that there will be none."""
        for call in self._sent:
            call.lost = f"{self._why_away}; whether it took the command is not known"
            call.done.set()
        self._sent.clear()


def is_refusal(error: Exception) -> bool:
    """Whether trying again cannot help, until somebody changes rights, or what the keys hold."""
    return not str(error).startswith((*PASSING, "OOM", "READONLY", "MISCONF", "NOREPLICAS"))


def packed(command: tuple[Argument, ...]) -> bytes:
    """One command in RESP, text as UTF-8."""
    verb, *arguments = (part if isinstance(part, bytes) else str(part).encode() for part in command)
    return pack(verb, *arguments)
