"""`broker pub`: publish from the command line, with nothing but Redis between.

Laws: what is published is the bytes that were given, never re-encoded; what is no JSON is never published.
Channels with history keep it, as from any publisher; what is for a user is kept nowhere. Bounds: a stream is read
`_READ_BYTES` at a time, and one value of it has at most `VALUE_MAX_BYTES`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click
from attrs import field, frozen

from broker.channel import Channel
from broker.cli.jsonstream import VALUE_MAX_BYTES, JsonError, JsonStream, check_json
from broker.errors import ChannelError, ConfigError, EventError

if TYPE_CHECKING:
    from redis import Redis

    from broker.publisher.publication import Publication

_READ_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0


@frozen
class _Target:
    """Where to publish, and which setting says so."""

    url: str = field(repr=False)
    origin: str
    prefix: str
    is_embedded: bool


@frozen
class _Address:
    """A channel, or a user. Making one checks nothing."""

    channel: str
    user: str | None

    @property
    def shown(self) -> str:
        return self.channel if self.user is None else f"user {self.user}"

    def publication(self, payload: bytes) -> Publication:
        """Raises: ClickException, where a user cannot be sent that."""
        from broker.publisher.publication import Publication, user_publication

        if self.user is None:
            return Publication(self.channel, payload)
        try:
            return user_publication(self.user, payload, VALUE_MAX_BYTES)
        except EventError as error:
            raise click.ClickException(str(error)) from None

    def received(self, count: int) -> str:
        if self.user is not None:
            return f"received by {count} daemon{'' if count == 1 else 's'}" if count else "no daemon is there right now"
        if count == 0:
            return "nobody is subscribed to it right now"
        return f"received by {count} subscription{'s' if count > 1 else ''} in Redis"


@click.command("pub", short_help="Publish an event to a channel.")
@click.argument("channel", metavar="CHANNEL", required=False)
@click.argument("event", metavar="[JSON|-]", required=False)
@click.option("--user", metavar="ID", help="Publish to every connection of this user, in place of a channel.")
@click.option("--redis", "redis_url", metavar="URL", help="Redis to publish to. Default: as configured for the daemon.")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    envvar="BROKER_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The daemon's configuration file (environment: BROKER_CONFIG).",
)
def command(
    channel: str | None, event: str | None, user: str | None, redis_url: str | None, config_file: Path | None
) -> None:
    """Publish JSON to CHANNEL, or with --user to whatever connections a user has now, as any service would.

    With - , or with no JSON when standard input is not a terminal, a stream of JSON values is read
    from standard input; each is published as it comes.

    \b
    broker pub job_progress:42 '{"type": "job_progress", "progress": 0.5}'
    tail -f events.jsonl | broker pub alerts:ops
    broker pub --user 7 '{"type": "alert", "title": "Budget spent"}'
    """
    if user is not None:
        if event is not None:
            raise click.UsageError("with --user there is no channel: give the JSON alone, or pipe it in")
        channel, event = None, channel
    if channel is None and user is None:
        raise click.UsageError("Missing argument 'CHANNEL'.")
    address = _address(channel or "", user)
    if event is None and sys.stdin.isatty():
        after = "the channel" if user is None else "--user"
        raise click.UsageError(f"no JSON to publish: give it after {after}, or pipe it in")
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
            _publish_stream(client, target, address, sys.stdin.buffer)
        else:
            (received,) = _publish(client, target, address, [payload])
            click.echo(f"{address.shown}: {address.received(received)}")
    finally:
        client.close()


def _address(channel: str, user: str | None) -> _Address:
    if user is not None:
        address = _Address("", user)
        address.publication(b"{}")
        return address
    try:
        named = Channel.from_name(channel)
    except ChannelError as error:
        raise click.BadParameter(str(error), param_hint="CHANNEL") from None
    if named.type == "broker":
        raise click.BadParameter("channels of type broker are the daemons' own", param_hint="CHANNEL")
    return _Address(named.name, None)


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


def _publish(client: Redis, target: _Target, address: _Address, payloads: list[bytes]) -> list[int]:
    """Publish in this order; how many subscriptions in Redis received each."""
    from redis import RedisError, ResponseError

    from broker.history.keys import Keys
    from broker.publisher.connection import refusal_of
    from broker.publisher.conversation import Conversation, Scripting

    if address.user is not None and len(payloads) > 1:
        # Each is a batch of its own.
        return [_publish(client, target, address, [payload])[0] for payload in payloads]
    conversation = Conversation(Keys(target.prefix), [address.publication(each) for each in payloads], Scripting())
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


def _publish_stream(client: Redis, target: _Target, address: _Address, source: BinaryIO) -> None:
    stream = JsonStream()
    count, received = 0, 0
    try:
        while True:
            chunk: bytes = source.read1(_READ_BYTES)  # type: ignore[attr-defined]
            # The good values in front of a bad one are published first, hence no `raise` here.
            values, problem = stream.feed(chunk) if chunk else stream.end()
            if values:
                received = _publish(client, target, address, values)[-1]
                count += len(values)
            if problem is not None:
                raise click.ClickException(str(problem))
            if not chunk:
                return
    finally:
        told = ""
        if count:
            told = f"; {'the last was ' if received else ''}{address.received(received)}"
        click.echo(f"{address.shown}: {count} published{told}")


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
