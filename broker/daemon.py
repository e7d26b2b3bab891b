"""The daemon: everything is opened, started and drained in this one file; `assembly` has wired it.

Its life, outside in: signals, what the daemon before hands over, listeners, the embedded server, the link to Redis,
the connections, the doors. Where there was a daemon before, it is told to leave once all that is there.
It ends inside out: it is not ready any more, and after `unready_seconds` the doors close, unless another process has
the sockets by then; every client gets its goodbye; what is left after `drain_seconds` is cut off; then the link,
then the embedded server. No task outlives its nursery.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import structlog
import trio
from attrs import frozen

from broker import __version__
from broker.assembly import Parts, assemble
from broker.config.address import Address
from broker.config.sections import Config
from broker.config.sources import Effective
from broker.demo import publish_demo
from broker.drain import drain
from broker.dump import Dump
from broker.errors import ConfigError, Problem, TakeoverError, UpstreamRefused
from broker.lifecycle import Lifecycle
from broker.maintenance import Maintenance
from broker.openfiles import connections_for, raise_open_file_limit
from broker.origins import LOOPBACK
from broker.post.post import Post
from broker.reload import Reloader, adapt_parts
from broker.signals import Signals
from broker.succession import offer_of, open_control, open_own_listeners, open_takeover
from broker.systemd import Notifier, Vitals
from broker.tls import Certificate
from broker.upstream.embedded import EmbeddedServer, open_embedded

log = structlog.get_logger(__name__)


@frozen
class Ready:
    """What the daemon tells once it serves.

    Args:
        addresses: what it listens on, as bound.
        embedded: the server it brought along; None where Redis was configured.
        redis_connected: whether Redis answered.
    """

    addresses: tuple[str, ...]
    embedded: EmbeddedServer | None
    redis_connected: bool
    max_connections: int
    config: Config


async def run_daemon(
    effective: Effective,
    *,
    dev: bool,
    on_ready: Callable[[Ready], None],
    inherited: Sequence[socket.socket] = (),
    notifier: Notifier | None = None,
    takes_over: bool = False,
    post: Post | None = None,
    load_again: Callable[[], Effective] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends at once.

    Args:
        inherited: sockets that listen already.
        notifier: tells the service manager; None: nobody.
        post: of a worker among several, who gets its sockets and its orders by it; None for a daemon of one process.
        takes_over: have the daemon that runs hand over its sockets, and leave.
        load_again: reads the settings anew, for SIGHUP; raises ConfigError.

    Raises:
        ConfigError, ListenError, UpstreamError, TakeoverError: it cannot start; the message says why.
    """
    given = attrs.evolve(effective, config=for_development(effective.config)) if dev else effective
    config = given.config
    max_connections = connections_for(raise_open_file_limit(), config.clients.max_connections)
    certificate = Certificate(config.listen_tls) if config.listen_tls.certificate else None
    lifecycle = Lifecycle()
    notifier = notifier or Notifier()
    async with (
        Signals.open(lifecycle, ends_at_second=post is None) as signals,
        open_takeover(config, wanted=takes_over) as takeover,
        (
            post.open_listeners()
            if post is not None
            else open_own_listeners(effective, config, inherited, takeover, lifecycle)
        ) as listeners,
        open_upstream(config, [one.name for one in listeners]) as (config, embedded),
        trio.open_nursery() as life,
    ):
        parts = assemble(
            config,
            max_connections,
            certificate,
            lifecycle,
            None if post is None else post.slot,
            None if post is None else post.siblings,
            is_dev=dev if post is None else post.is_dev,
        )
        door, clientele, link = parts.door, parts.clientele, parts.link
        addresses = tuple(listener.name for listener in listeners)
        follow = partial(adapt_parts, parts, certificate)
        reloader = Reloader(follow, given, config, partial(_again, load_again, post, given, dev=dev))
        if takeover is None:
            life.start_soon(notifier.serve, partial(_vitals, parts, lifecycle))
        if takeover is not None or post is not None:
            _load(parts, certificate)  # before anything waits: the daemon before serves, or the other workers do
        if post is not None:
            await life.start(post.serve, lifecycle, life.cancel_scope.cancel, partial(_vitals, parts, lifecycle))
        try:
            await life.start(link.serve, parts.hub)
        except UpstreamRefused as refused:
            raise UpstreamRefused(f"{refused} (set by {effective.origins['redis.url']})") from refused
        if takeover is not None and link.is_away:
            raise TakeoverError("Redis does not answer the new process; the daemon before goes on")
        life.start_soon(parts.commands.serve)
        life.start_soon(parts.reads.serve)
        life.start_soon(parts.questions.serve)
        await life.start(parts.history.serve, parts.hub)
        await life.start(parts.recorder.serve)
        await life.start(parts.keys_of_tokens.serve)
        await life.start(parts.gate.serve)
        await life.start(parts.control.serve)
        await life.start(parts.nodes.serve, lifecycle, listeners[0].name)
        life.start_soon(parts.intake.serve)
        life.start_soon(clientele.keep_time)
        life.start_soon(parts.evaluations.keep_time)
        if dev:
            life.start_soon(partial(publish_demo, config.redis.url, channel_prefix=config.redis.channel_prefix))
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as doors:
                if post is not None:
                    post.follow(reloader.reload)
                    doors.start_soon(post.stand_in, door, connections)
                for listener in listeners:
                    await doors.start(door.serve, listener, connections)
                lifecycle.serve()
                if takeover is not None:
                    await takeover.ready()
                    if not notifier.address:
                        notifier = Notifier.from_environ(dict(takeover.environ))
                    life.start_soon(notifier.serve, partial(_vitals, parts, lifecycle))
                notifier.ready(_vitals(parts, lifecycle).told())
                status = partial(_status, parts, lifecycle, addresses)
                maintenance = Maintenance(status, _dump_of(parts, status).write, reloader, life, notifier)
                maintenance.heed(signals)
                if post is not None:
                    post.on_dump = maintenance.dump_soon
                else:
                    offer = offer_of(listeners, embedded, lifecycle, notifier)
                    verbs = {**maintenance.verbs(), "takeover": offer.serve}
                    await open_control(config, listeners, takeover, verbs, life)
                on_ready(
                    Ready(
                        addresses,
                        embedded,
                        not link.is_away,
                        max_connections,
                        config,
                    )
                )
                _load(parts, certificate)
                if certificate is not None:
                    life.start_soon(certificate.watch)
                life.start_soon(parts.lag.watch)
                _settle_memory()
                await lifecycle.stopping.wait()
                parts.recorder.retire()
                section = reloader.config.daemon
                log.info("stopping", clients=len(clientele), drain_seconds=section.drain_seconds)
                if not lifecycle.is_taken_over:
                    notifier.stopping(section.unready_seconds + section.drain_seconds)
                    await trio.sleep(section.unready_seconds)
                doors.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + section.drain_seconds
            try:
                await drain(clientele, door, section, is_taken_over=lifecycle.is_taken_over)
            finally:
                cut_off = len(clientele)
        await parts.recorder.release()
        if parts.tracing is not None:
            await parts.tracing.close()
        await parts.nodes.leave()
        log.info("stopped", cut_off=cut_off)
        life.cancel_scope.cancel()


def _again(load_again: Callable[[], Effective] | None, post: Post | None, given: Effective, *, dev: bool) -> Effective:
    """The settings as they are now: read anew, or as the supervisor last said.

    Raises:
        ConfigError: what is wrong with them.
    """
    found = post.effective if post is not None else load_again() if load_again is not None else given
    return attrs.evolve(found, config=for_development(found.config)) if dev else found


def _load(parts: Parts, certificate: Certificate | None) -> None:
    """Import what is imported late. Blocks the first time."""
    parts.web.load()
    if certificate is not None:
        parts.http2.load()


@asynccontextmanager
async def open_upstream(
    config: Config, addresses: Sequence[str]
) -> AsyncIterator[tuple[Config, EmbeddedServer | None]]:
    """The settings with a Redis URL in them: the configured one, or that of an embedded server.

    Args:
        addresses: what the daemon listens on.
    """
    if config.redis.url:
        yield config, None
        return
    if not all(Address.parse(text).is_loopback for text in addresses):
        raise ConfigError(
            [
                Problem(
                    "redis.url",
                    "no Redis is configured, and the embedded one is for loopback addresses only; "
                    "set --redis, BROKER_REDIS_URL or REDIS_URL",
                )
            ]
        )
    async with open_embedded(config.embedded) as embedded:
        yield attrs.evolve(config, redis=attrs.evolve(config.redis, url=embedded.url)), embedded


def _vitals(parts: Parts, lifecycle: Lifecycle) -> Vitals:
    return Vitals(
        len(parts.clientele),
        parts.hub.channel_count(),
        parts.hub.books.messages,
        parts.link.is_away,
        lifecycle.stopping.is_set(),
        parts.link.is_stuck(trio.current_time()),
    )


def _status(parts: Parts, lifecycle: Lifecycle, addresses: Sequence[str]) -> Mapping[str, Any]:
    """What the control socket says of the daemon."""
    return {
        "pid": os.getpid(),
        "version": __version__,
        "state": lifecycle.state,
        "addresses": list(addresses),
        "clients": len(parts.clientele),
        "redis": "away" if parts.link.is_away else "connected",
    }


def _dump_of(parts: Parts, status: Callable[[], Mapping[str, Any]]) -> Dump:
    return Dump(
        parts.clientele,
        {
            "daemon": status,
            "hub": lambda: {"channels": parts.hub.channel_count(), "messages": parts.hub.books.messages},
            "redis": lambda: {"is_away": parts.link.is_away, "outages": parts.link.outages},
            "recorder": parts.recorder.statistics,
        },
    )


def for_development(config: Config) -> Config:
    """`--dev`: pages served from this machine, at any port, may read what the daemon answers."""
    if config.listen.allowed_origins:
        return config
    return attrs.evolve(config, listen=attrs.evolve(config.listen, allowed_origins=(LOOPBACK,)))


def _settle_memory() -> None:
    """What is loaded by now stays: the collector need not walk it again, nor run for every few clients."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
