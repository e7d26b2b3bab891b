"""One connection to Redis: redis-py opens it, trio reads and writes it, hiredis parses it.

redis-py knows URLs, TLS, ACL users, unix sockets and says readable things when they fail, but it
blocks; so it connects in a worker thread and hands its socket over. RESP2, so that pushes are plain
arrays.

Raises UpstreamRefused where Redis says no, UpstreamError where it cannot be reached or is gone.
"""

from __future__ import annotations

import reprlib
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import hiredis
import redis
import trio
from attrs import define, field

from broker.config.secret import mask_url
from broker.config.sections import Redis
from broker.errors import UpstreamError, UpstreamRefused
from broker.outbox import close_socket

READ_BYTES = 64 * 1024

_Self = TypeVar("_Self")
_More = ParamSpec("_More")
_Taken = TypeVar("_Taken")

_NOTHING = object()
# How many parts each push has; what begins it is one.
_PARTS = {b"message": 3, b"pmessage": 4, b"subscribe": 3, b"psubscribe": 3, b"unsubscribe": 3, b"punsubscribe": 3}


def socket_of(connection: Any) -> socket.socket:
    """The connected socket inside a redis-py connection: private there, so read in this one place."""
    sock = connection._sock
    if not isinstance(sock, socket.socket):
        raise UpstreamError(f"this version of redis-py ({redis.__version__}) keeps its socket elsewhere")
    return sock


def _connect(section: Redis) -> Any:
    """Blocks. A connected redis-py connection that Redis has answered a PING on."""
    shown = mask_url(section.url)
    try:
        pool = redis.ConnectionPool.from_url(
            section.url,
            protocol=2,
            socket_connect_timeout=section.connect_seconds,
            socket_timeout=section.connect_seconds,
            retry=None,
        )
        # A `?protocol=3` in the URL would win over the argument, and its pushes are no plain arrays.
        pool.connection_kwargs["protocol"] = 2
        connection: Any = pool.make_connection()
        try:
            connection.connect()
            connection.send_command("PING")
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
    except redis.exceptions.BusyLoadingError as error:
        raise UpstreamError(f"Redis at {shown} is loading its data: {error}") from error
    except (
        redis.exceptions.AuthenticationError,
        redis.exceptions.AuthenticationWrongNumberOfArgsError,
        redis.exceptions.AuthorizationError,
        redis.exceptions.NoPermissionError,
        redis.exceptions.ResponseError,
    ) as error:
        raise UpstreamRefused(
            f"Redis at {shown} refused the connection: {error}; check the user, password and database in its URL"
        ) from error
    except (redis.exceptions.RedisError, OSError) as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise UpstreamRefused(f"Redis at {shown} has a certificate that is not trusted: {error}") from error
        raise UpstreamError(f"Redis at {shown} cannot be reached: {error}") from error
    except (ValueError, TypeError) as error:  # a query of the URL that redis-py does not know is a TypeError
        raise UpstreamRefused(f"the Redis URL {shown} cannot be used: {error}") from error
    return connection


@define(eq=False)
class RedisConnection:
    """An open connection. `close` is synchronous and may be called again."""

    _owner: Any = field(repr=False)
    _socket: socket.socket
    _reader: Any = field(repr=False)
    last_read_at: float

    @classmethod
    async def open(cls, section: Redis) -> RedisConnection:
        """Connect within `connect_seconds` for each step; cancelling does not wait for the thread."""
        abandoned = False

        def connect() -> Any:
            connection = _connect(section)
            if abandoned:
                connection.disconnect()
            return connection

        try:
            owner = await trio.to_thread.run_sync(connect, abandon_on_cancel=True)
        except trio.Cancelled:
            abandoned = True
            raise
        sock = socket_of(owner)
        sock.setblocking(False)
        return cls(owner, sock, reader(), trio.current_time())

    async def read(self, *, rested: bool = False) -> list[Any]:
        """Wait for bytes; then every whole reply in them.

        Args:
            rested: the caller has let others run since the last read, so bytes that are there are
                taken without another turn of the loop.

        Raises:
            UpstreamError: the connection is gone, or what arrived is not RESP.
        """
        if not rested:
            await self._wait_readable()
        while True:
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                await self._wait_readable()
                continue
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._socket)
                continue
            except OSError as error:
                raise UpstreamError(f"the Redis connection broke: {error}") from error
            if not data:
                raise UpstreamError("Redis closed the connection")
            self.last_read_at = trio.current_time()
            self._reader.feed(data)
            return self._replies()

    async def _wait_readable(self) -> None:
        # TLS may hold bytes that the descriptor no longer shows; whichever way, others get their turn.
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._socket)

    async def watch(self, section: Redis, ping: Callable[[], Awaitable[None]]) -> NoReturn:
        """Ask for a sign of life from a Redis that is quiet, and give it up when there is none. Runs until cancelled.

        Args:
            ping: sends a PING, or has it sent.

        Raises:
            UpstreamError: there was none.
        """
        while True:
            quiet_from = self.last_read_at
            await trio.sleep_until(quiet_from + section.ping_seconds)
            if self.last_read_at != quiet_from:
                continue
            await ping()
            await trio.sleep(section.ping_timeout_seconds)
            if self.last_read_at == quiet_from and not self.has_unread():
                raise UpstreamError(f"Redis did not answer PING within {section.ping_timeout_seconds:g} s")

    def has_unread(self) -> bool:
        """Whether bytes wait to be read: then it is us who are late, not Redis. Synchronous."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    async def write(self, data: bytes) -> None:
        """Write all of `data`. Cancelled half way, the connection must be closed."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(self._socket)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                raise UpstreamError(f"the Redis connection broke: {error}") from error

    def write_nowait(self, data: bytes) -> int:
        """Write what the kernel takes at once. Returns how many bytes. Not while a `write` waits. Synchronous."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError as error:
            raise UpstreamError(f"the Redis connection broke: {error}") from error

    def close(self) -> None:
        close_socket(self._socket)
        self._owner.disconnect()

    def _replies(self) -> list[Any]:
        return replies_of(self._reader)


def reader() -> hiredis.Reader:
    """A parser of what Redis sends. It tells that no more is whole by a value that no reply has."""
    return hiredis.Reader(notEnoughData=_NOTHING)


def replies_of(reader: hiredis.Reader) -> list[Any]:
    """Every whole reply in what the reader was fed.

    Raises:
        UpstreamError: it is not RESP.
    """
    gets = reader.gets
    replies = []
    try:
        while (reply := gets()) is not _NOTHING:
            replies.append(reply)
    except (hiredis.HiredisError, TypeError, ValueError) as error:  # the latter of types that RESP2 does not have
        raise UpstreamError(f"Redis sent what is not RESP: {error}") from error
    return replies


def kind_of(reply: Any) -> bytes:
    """What a push is, `message` or another; empty for what is none.

    Raises:
        UpstreamError: its parts are not those of its kind.
    """
    if type(reply) is not list:
        return b""
    kind = reply[0] if reply else None
    if not isinstance(kind, bytes):
        raise odd(reply)
    parts = _PARTS.get(kind)
    if parts is not None:
        # The last part of a confirmation is a count; UNSUBSCRIBE of nothing names nothing.
        texts = reply if kind.endswith(b"message") else reply[:2]
        nothing = type(None) if b"un" in kind else bytes
        if len(reply) != parts or not all(type(text) in (bytes, nothing) for text in texts):
            raise odd(reply)
    return kind


def takes_pushes(
    take: Callable[Concatenate[_Self, Sequence[Any], _More], _Taken],
) -> Callable[Concatenate[_Self, Sequence[Any], _More], _Taken]:
    """Name the push that a method cannot take because its parts are not those of its kind.

    They are looked at only where the method failed: to look at each would cost a seventh of what taking it does.
    """

    @wraps(take)
    def named(self: _Self, replies: Sequence[Any], /, *args: _More.args, **kwargs: _More.kwargs) -> _Taken:
        try:
            return take(self, replies, *args, **kwargs)
        except (AttributeError, LookupError, TypeError, ValueError):
            for reply in replies:
                kind_of(reply)
            raise

    return named


def odd(reply: Any) -> UpstreamError:
    """What to raise for a reply that Redis does not give."""
    return UpstreamError(f"Redis sent what it never sends: {reprlib.repr(reply)}")


def pack(verb: bytes, *arguments: bytes) -> bytes:
    """One command in RESP."""
    parts = [b"*%d\r\n$%d\r\n%b\r\n" % (len(arguments) + 1, len(verb), verb)]
    for argument in arguments:
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)
