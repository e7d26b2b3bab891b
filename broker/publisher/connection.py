"""Connections to Redis that keep a deadline, over redis-py; loading this file loads redis-py.

redis-py bounds each read and each write; here every one of them gets what is left of the whole call's
time. A name that is looked up is outside of this: the resolver of the system has its own timeout.
RESP2 and no greeting, so that connecting is one round trip for a password, one for a database, else none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, DefaultParser
from redis.retry import Retry

from broker.history.keys import Keys
from broker.publisher.conversation import Conversation, Scripting
from broker.publisher.destination import Destination
from broker.publisher.exchange import Breakdown, Outcome, Refusal
from broker.publisher.publication import Publication
from broker.publisher.statistics import REFUSED, UNANSWERED, UNREACHABLE

_LEAST_SECONDS = 0.001


class _Deadline:
    """Mixed into a connection class of redis-py: no step outlasts `deadline`."""

    deadline = 0.0
    _sock: Any

    @property
    def _left(self) -> float:
        # Never 0, which would mean: do not wait at all.
        return max(self.deadline - time.monotonic(), _LEAST_SECONDS)

    # redis-py reads these two before every connect, for each address of a name.
    @property
    def socket_timeout(self) -> float:
        return self._left

    @socket_timeout.setter
    def socket_timeout(self, value: float) -> None:
        pass

    @property
    def socket_connect_timeout(self) -> float:
        return self._left

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, value: float) -> None:
        pass

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        left = self._left
        if self._sock is not None:
            self._sock.settimeout(left)
        super().send_packed_command(command, check_health=check_health)  # type: ignore[misc]


class _DeadlineParser(DefaultParser):  # type: ignore[misc,valid-type]
    """An answer that comes by the byte has no more time than one that comes at once."""

    _connection: Any

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)
        self._connection = connection

    def read_from_socket(self, *arguments: Any, **options: Any) -> Any:
        left = self._connection.deadline - time.monotonic()
        if left <= 0:
            raise redis.exceptions.TimeoutError("Timeout reading from socket")
        self._sock.settimeout(left)
        return super().read_from_socket(*arguments, **options)


def maker(destination: Destination) -> Any:
    """What makes connections: `maker(destination)()` is one that is not connected yet.

    Raises:
        ValueError, TypeError, redis.RedisError: the URL has a part that redis-py cannot use.
    """
    pool = ConnectionPool.from_url(destination.url, protocol=2)
    settings = settings_of(pool) | {"retry": Retry(NoBackoff(), 0), "parser_class": _DeadlineParser}
    kind = type("DeadlineConnection", (_Deadline, pool.connection_class), {})
    return lambda: kind(**settings)


def settings_of(pool: Any) -> dict[str, Any]:
    """What a pool made of the URL, less what belongs to us: deadlines, and retries, which could publish twice."""
    settings: dict[str, Any] = dict(pool.connection_kwargs)
    for name in ("retry_on_timeout", "retry_on_error", "socket_timeout", "socket_connect_timeout"):
        settings.pop(name, None)
    return settings | {"protocol": 2, "driver_info": None, "health_check_interval": 0, "decode_responses": False}


def is_fresh(connection: Any) -> bool:
    """Whether an idle connection may be used: Redis has not closed it, and nothing unread is in it."""
    try:
        return not connection.can_read(0)
    except (redis.RedisError, OSError):
        return False


def connect(connection: Any, deadline: float, destination: Destination) -> Breakdown | None:
    """Connect and log in by `deadline`. Returns None, or why not."""
    connection.deadline = deadline
    try:
        connection.connect()
    except (redis.RedisError, OSError, ValueError, TypeError) as error:
        connection.disconnect()
        return unreachable(error, destination)
    return None


def exchange(
    connection: Any, batch: Sequence[Publication], deadline: float, destination: Destination, scripting: Scripting
) -> Outcome:
    """Publish `batch`. After a breakdown the connection must not be used again."""
    conversation = Conversation(Keys(destination.channel_prefix), batch, scripting)
    connection.deadline = deadline
    try:
        while commands := conversation.ask():
            connection.send_packed_command([b"".join(connection.pack_commands(commands))])
            for _ in commands:
                try:
                    reply = connection.read_response()
                except redis.ResponseError as error:
                    reply = refusal_of(error, one_line(error, destination))
                conversation.hear(reply)
    except (redis.RedisError, OSError, ValueError, TypeError) as error:
        connection.disconnect()
        return conversation.outcome(broken(error, destination))
    return conversation.outcome()


def refusal_of(error: redis.ResponseError, text: str) -> Refusal:
    """What an error reply, `text` for people, means. redis-py makes classes of the first words, and takes them away."""
    return Refusal(
        text,
        is_unknown_script=isinstance(error, redis.exceptions.NoScriptError),
        is_denial=isinstance(error, redis.exceptions.NoPermissionError)
        or text.lower().startswith("unknown command")
        or "ACL failure" in text
        or "CROSSSLOT" in text,
    )


def unreachable(error: Exception, destination: Destination) -> Breakdown:
    if isinstance(error, redis.AuthenticationError | redis.ResponseError):
        what = "refuses the connection"
    elif isinstance(error, ValueError | TypeError):
        what = "has a URL that cannot be used"
    else:
        what = "cannot be reached"
    return Breakdown(UNREACHABLE, f"Redis at {destination.shown} {what}: {one_line(error, destination)}")


def broken(error: Exception, destination: Destination) -> Breakdown:
    if isinstance(error, redis.AuthenticationError | redis.exceptions.BusyLoadingError):
        return Breakdown(REFUSED, f"Redis at {destination.shown} refused: {one_line(error, destination)}")
    return Breakdown(UNANSWERED, f"Redis at {destination.shown} did not answer: {one_line(error, destination)}")


def one_line(error: Exception, destination: Destination) -> str:
    """What redis-py says, which may quote the URL and span lines."""
    text = " ".join(str(error).replace(destination.url, destination.shown).split()).rstrip(".")
    return text or type(error).__name__
