"""`broker pub`: publish from the command line, with nothing but Redis between.

Laws: what is published is the bytes that were given, never re-encoded; what is no JSON is never published.
Channels with history keep it, as from any publisher. Bounds: a stream is read `_READ_BYTES` at a time, and
one value of it has at most `_VALUE_MAX_BYTES`.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click
from attrs import define, field, frozen

from broker.channel import Channel
from broker.errors import ChannelError, ConfigError

if TYPE_CHECKING:
    from redis import Redis

_READ_BYTES = 64 * 1024
_VALUE_MAX_BYTES = 64 * 1024 * 1024
_CONNECT_SECONDS = 5.0
_SHOWN_CHARACTERS = 76

_STARTS_VALUE = re.compile(rb"[^ \t\r\n]")
_IN_NESTED = re.compile(rb'["{}\[\]]')
_ENDS_STRING = re.compile(rb'["\\]')
_ENDS_SCALAR = re.compile(rb'[ \t\r\n"{}\[\],:]')


class JsonError(ValueError):
    """What is not JSON: `str()` says what, where, and shows the place with a caret below it."""


@frozen
class _Target:
    """Where to publish, and which setting says so."""

    url: str = field(repr=False)
    origin: str
    prefix: str
    is_embedded: bool


@click.command("pub", short_help="Publish an event to a channel.")
@click.argument("channel")
@click.argument("event", metavar="[JSON|-]", required=False)
@click.option("--redis", "redis_url", metavar="URL", help="Redis to publish to. Default: as configured for the daemon.")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    envvar="BROKER_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The daemon's configuration file (environment: BROKER_CONFIG).",
)
def command(channel: str, event: str | None, redis_url: str | None, config_file: Path | None) -> None:
    """Publish JSON to CHANNEL, as any service would.

    With - , or with no JSON when standard input is not a terminal, a stream of JSON values is read
    from standard input; each is published as it comes.

    \b
    broker pub job_progress:42 '{"type": "job_progress", "progress": 0.5}'
    tail -f events.jsonl | broker pub alerts:ops
    """
    try:
        name = Channel.from_name(channel).name
    except ChannelError as error:
        raise click.BadParameter(str(error), param_hint="CHANNEL") from None
    if event is None and sys.stdin.isatty():
        raise click.UsageError("no JSON to publish: give it after the channel, or pipe it in")
    payload = None
    if event is not None and event != "-":
        payload = os.fsencode(event)
        try:
            check_json(payload)
        except JsonError as error:
            raise click.BadParameter(str(error), param_hint="JSON") from None
    target = _target(redis_url, config_file)
    client = _connect(target)
    try:
        if payload is None:
            _publish_stream(client, target, name, sys.stdin.buffer)
        else:
            (received,) = _publish(client, target, name, [payload])
            click.echo(f"{name}: {_received(received)}")
    finally:
        client.close()


def _target(redis_url: str | None, config_file: Path | None) -> _Target:
    from broker.config.sources import load

    try:
        effective = load(flags={"redis.url": redis_url}, environ=os.environ, file=config_file)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    config = effective.config
    if config.redis.url:
        origin = "--redis" if redis_url else effective.origins["redis.url"]
        return _Target(config.redis.url, origin, config.redis.channel_prefix, False)
    url = f"redis://127.0.0.1:{config.embedded.port}/0"
    return _Target(url, effective.origins["embedded.port"], config.redis.channel_prefix, True)


def _connect(target: _Target) -> Redis:
    """A client that does not try again: a person waits, and a second PUBLISH may be one too many."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        return Redis.from_url(
            target.url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        _fail(target, error)


def _publish(client: Redis, target: _Target, name: str, payloads: list[bytes]) -> list[int]:
    """Publish in this order; how many subscriptions in Redis received each."""
    from redis import RedisError, ResponseError

    from broker.history.keys import Keys
    from broker.publisher.connection import refusal_of
    from broker.publisher.conversation import Conversation, Scripting
    from broker.publisher.publication import Publication

    batch = [Publication(name, payload) for payload in payloads]
    conversation = Conversation(Keys(target.prefix), batch, Scripting())
    error: Exception | None = None
    try:
        while commands := conversation.ask():
            pipeline: Any
            with client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                for reply in pipeline.execute(raise_on_error=False):
                    if isinstance(reply, ResponseError):
                        error, reply = reply, refusal_of(reply, str(reply))
                    conversation.hear(reply)
    except (RedisError, OSError) as broken:
        _fail(target, broken)
    received = [answer for answer in conversation.answers if isinstance(answer, int)]
    if len(received) < len(payloads) and error is not None:
        _fail(target, error)
    return received


def _publish_stream(client: Redis, target: _Target, name: str, source: BinaryIO) -> None:
    stream = JsonStream()
    count, received = 0, 0
    try:
        while True:
            chunk: bytes = source.read1(_READ_BYTES)  # type: ignore[attr-defined]
            # The good values in front of a bad one are published first, hence no `raise` here.
            values, problem = stream.feed(chunk) if chunk else stream.end()
            if values:
                received = _publish(client, target, name, values)[-1]
                count += len(values)
            if problem is not None:
                raise click.ClickException(str(problem))
            if not chunk:
                return
    finally:
        told = f"; the last was {_received(received)}" if received else f"; {_received(0)}" if count else ""
        click.echo(f"{name}: {count} published{told}")


def _received(count: int) -> str:
    if count == 0:
        return "nobody is subscribed to it right now"
    return f"received by {count} subscription{'s' if count > 1 else ''} in Redis"


def _fail(target: _Target, error: Exception) -> NoReturn:
    """End with one line: which Redis, from which setting, what it said, what to do."""
    from redis import AuthenticationError, ResponseError
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    from broker.config.secret import mask_url

    url = mask_url(target.url)
    where = f"{url} (from {target.origin})"
    # redis-py may quote the URL, and some errors span lines.
    reason = " ".join(str(error).replace(target.url, url).split()).rstrip(".")
    if isinstance(error, ValueError) and not isinstance(error, ResponseError):
        line = f"cannot read the Redis URL {where}: {reason}; write redis://, rediss:// or unix://"
    elif isinstance(error, (AuthenticationError, ResponseError)):
        line = f"Redis at {where} refused: {reason}; check user, password and rights in that URL"
    elif not isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)):
        line = f"Redis at {where} failed: {reason}"
    elif target.is_embedded:
        line = (
            f"no Redis is configured, and the daemon's embedded one does not answer at {url} "
            f"(port from {target.origin}): {reason}; start `broker serve`, or say where Redis is with --redis"
        )
    else:
        line = f"cannot reach Redis at {where}: {reason}; start it, or say where it is with --redis"
    raise click.ClickException(line)


@define(eq=False)
class JsonStream:
    """Cuts a stream of bytes into JSON values. Synchronous; sans-I/O; linear in what it is fed.

    Where a value ends is found by its quotes and brackets alone; what stands between is checked
    once, when it is whole. ASCII marks cannot be part of another UTF-8 character.
    """

    _buffer: bytearray = field(init=False, factory=bytearray)
    # Where the value at hand begins in the buffer (-1: none yet), and how far it was looked at.
    _start: int = field(init=False, default=-1)
    _scanned: int = field(init=False, default=0)
    _depth: int = field(init=False, default=0)
    _in_string: bool = field(init=False, default=False)
    _checked_bytes: int = field(init=False, default=0)
    # The line, counted from 1, on which the buffer begins.
    _line: int = field(init=False, default=1)

    def feed(self, chunk: bytes) -> tuple[list[bytes], JsonError | None]:
        """The values that became whole, and what is wrong after them; after an error, feed no more."""
        self._buffer += chunk
        values: list[bytes] = []
        while (end := self._find_end()) is not None:
            value, line = bytes(self._buffer[self._start : end]), self._line_of(self._start)
            try:
                check_json(value, line)
            except JsonError as error:
                return values, error
            values.append(value)
            self._cut(end)
        return values, self._look_ahead()

    def end(self) -> tuple[list[bytes], JsonError | None]:
        """The last value, if it was a number or a word, whose end only the end of the stream shows."""
        if self._start < 0:
            return [], None
        value, line = bytes(self._buffer[self._start :]), self._line_of(self._start)
        if self._depth or self._in_string:
            return [], JsonError(f"the JSON value that began on line {line} is incomplete: the input ended inside it")
        try:
            check_json(value, line)
        except JsonError as error:
            return [], error
        return [value], None

    def _find_end(self) -> int | None:
        """Where the value at hand ends in the buffer; None if that is not known yet."""
        buffer = self._buffer
        if self._start < 0:
            found = _STARTS_VALUE.search(buffer, self._scanned)
            if found is None:
                self._cut(len(buffer))
                return None
            self._start, self._scanned = found.start(), found.end()
            self._depth = int(buffer[self._start] in b"{[")
            self._in_string = buffer[self._start] in b'"'
            if buffer[self._start] in b"}],:":
                return self._scanned
        if not self._depth and not self._in_string:
            found = _ENDS_SCALAR.search(buffer, self._scanned)
            self._scanned = found.start() if found else len(buffer)
            return found.start() if found else None
        while found := (_ENDS_STRING if self._in_string else _IN_NESTED).search(buffer, self._scanned):
            mark = found.group()
            # What a backslash stands before may not have come yet: then this is behind the buffer's end.
            self._scanned = found.end() + (mark == b"\\")
            if mark == b'"':
                self._in_string = not self._in_string
            elif mark != b"\\":
                self._depth += 1 if mark in b"{[" else -1
            if not self._depth and not self._in_string:
                return self._scanned
        self._scanned = max(self._scanned, len(buffer))
        return None

    def _look_ahead(self) -> JsonError | None:
        """What is certainly wrong already in a value that is not whole.

        A lost bracket would otherwise swallow all that follows, in silence. Looked at each time that
        the value has doubled, so that the cost stays linear.
        """
        if self._start < 0:
            return None
        line, size = self._line_of(self._start), len(self._buffer) - self._start
        if size > _VALUE_MAX_BYTES:
            return JsonError(f"the JSON value that began on line {line} is larger than {_VALUE_MAX_BYTES} bytes")
        if size < 2 * self._checked_bytes:
            return None
        self._checked_bytes = size
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(bytes(self._buffer[self._start :]))
            json.loads(text)
        except UnicodeDecodeError as error:
            return _not_utf8(error, line)
        except json.JSONDecodeError as error:
            # No word, number or string goes over the end of a line: what a whole line follows is final.
            if "\n" in text[error.pos :].strip():
                return _not_json(error, line)
        except (ValueError, RecursionError):
            # For check_json to say, when the value is whole.
            return None
        return None

    def _cut(self, end: int) -> None:
        self._line += self._buffer.count(b"\n", 0, end)
        del self._buffer[:end]
        self._start, self._scanned, self._depth, self._in_string, self._checked_bytes = -1, 0, 0, False, 0

    def _line_of(self, position: int) -> int:
        return self._line + self._buffer.count(b"\n", 0, position)


def check_json(payload: bytes, line: int = 1) -> None:
    """Refuse what is not one JSON value in UTF-8 (RFC 8259), NaN and Infinity included.

    Args:
        line: the number of the line that `payload` begins on, for the message.

    Raises:
        JsonError: with the place.
    """
    try:
        # Numbers stay text: they are only looked at, and a long one would be refused by int().
        json.loads(payload.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _not_utf8(error, line) from None
    except json.JSONDecodeError as error:
        raise _not_json(error, line) from None
    except RecursionError:
        raise JsonError(f"the JSON value that began on line {line} is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON; write null, or a number")


def _not_utf8(error: UnicodeDecodeError, line: int) -> JsonError:
    return JsonError(f"not UTF-8: byte {error.start + 1} of the JSON value that began on line {line}")


def _not_json(error: json.JSONDecodeError, line: int) -> JsonError:
    """The message, the line that it is about, cut around the place, and a caret under it."""
    text = error.doc.split("\n")[error.lineno - 1]
    begin = max(0, error.colno - 1 - _SHOWN_CHARACTERS // 2)
    shown = "".join(character if character.isprintable() else " " for character in text[begin:][:_SHOWN_CHARACTERS])
    return JsonError(
        f"not JSON at line {line + error.lineno - 1}, column {error.colno}: {error.msg}\n"
        f"  {shown}\n"
        f"  {' ' * (error.colno - 1 - begin)}^"
    )
