"""The daemon: everything is opened, started and drained in this one file; `assembly` has wired it.

Its life, outside in: listeners, the embedded server, the link to Redis, the connections, the doors.
It ends inside out: the doors close; every client gets its goodbye; what is left after
`drain_seconds` is cut off; then the link, then the embedded server. No task outlives its nursery.
"""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import structlog
import trio
from attrs import frozen

from broker.assembly import assemble
from broker.config.address import Address
from broker.config.sections import Config
from broker.config.sources import Effective
from broker.demo import publish_demo
from broker.drain import drain
from broker.errors import ConfigError, Problem, UpstreamRefused
from broker.lifecycle import Lifecycle
from broker.listening import open_listeners
from broker.openfiles import connections_for, raise_open_file_limit
from broker.origins import LOOPBACK
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
    effective: Effective, *, dev: bool, on_ready: Callable[[Ready], None], inherited: Sequence[socket.socket] = ()
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends at once.

    Args:
        inherited: sockets that listen already.

    Raises:
        ConfigError, ListenError, UpstreamError: it cannot start; the message says why.
    """
    config = effective.config
    if dev:
        config = _for_development(config)
    max_connections = connections_for(raise_open_file_limit(), config.clients.max_connections)
    certificate = Certificate(config.listen_tls) if config.listen_tls.certificate else None
    lifecycle = Lifecycle()
    with open_listeners(
        config.listen, config.listen_tls, effective.origins["listen.addresses"], inherited
    ) as listeners:
        async with (
            _open_signals(lifecycle),
            _open_upstream(config) as (config, embedded),
            trio.open_nursery() as life,
        ):
            parts = assemble(config, max_connections, certificate)
            door, clientele, link = parts.door, parts.clientele, parts.link
            try:
                await life.start(link.serve, parts.hub)
            except UpstreamRefused as refused:
                raise UpstreamRefused(f"{refused} (set by {effective.origins['redis.url']})") from refused
            life.start_soon(parts.commands.serve)
            life.start_soon(parts.reads.serve)
            await life.start(parts.history.serve, parts.hub)
            await life.start(parts.recorder.serve)
            await life.start(parts.keys_of_tokens.serve)
            await life.start(parts.gate.serve)
            await life.start(parts.control.serve)
            life.start_soon(parts.intake.serve)
            life.start_soon(clientele.keep_time)
            life.start_soon(parts.evaluations.keep_time)
            if dev:
                life.start_soon(partial(publish_demo, config.redis.url, channel_prefix=config.redis.channel_prefix))
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as doors:
                    for listener in listeners:
                        await doors.start(door.serve, listener, connections)
                    lifecycle.serve()
                    on_ready(
                        Ready(
                            tuple(listener.name for listener in listeners),
                            embedded,
                            not link.is_away,
                            max_connections,
                            config,
                        )
                    )
                    parts.web.load()
                    if certificate is not None:
                        parts.http2.load()
                        life.start_soon(certificate.watch)
                    _settle_memory()
                    await lifecycle.stopping.wait()
                    log.info("stopping", clients=len(clientele), drain_seconds=config.daemon.drain_seconds)
                    doors.cancel_scope.cancel()
                door.dismiss_all()
                connections.cancel_scope.deadline = trio.current_time() + config.daemon.drain_seconds
                await drain(clientele, config.daemon)
            await parts.recorder.release()
            log.info("stopped", cut_off=clientele.statistics().endings.get("cancelled", 0))
            life.cancel_scope.cancel()


@asynccontextmanager
async def _open_signals(lifecycle: Lifecycle) -> AsyncIterator[None]:
    """SIGTERM and SIGINT stop.

    Opened first: a second signal, or one before the daemon serves, must be able to cancel everything inside.
    """
    async with trio.open_nursery() as life:
        await life.start(_await_signals, life.cancel_scope, lifecycle)
        yield
        life.cancel_scope.cancel()


async def _await_signals(
    life: trio.CancelScope, lifecycle: Lifecycle, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Stop at the first signal; end everything at the second, or where nothing serves yet."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            if not lifecycle.is_ready:
                log.warning("ending at once")
                life.cancel()
            lifecycle.stop()


@asynccontextmanager
async def _open_upstream(config: Config) -> AsyncIterator[tuple[Config, EmbeddedServer | None]]:
    """The settings with a Redis URL in them: the configured one, or that of an embedded server."""
    if config.redis.url:
        yield config, None
        return
    if not all(Address.parse(text).is_loopback for text in config.listen.addresses):
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


def _for_development(config: Config) -> Config:
    """`--dev`: pages served from this machine, at any port, may read what the daemon answers."""
    if config.listen.allowed_origins:
        return config
    return attrs.evolve(config, listen=attrs.evolve(config.listen, allowed_origins=(LOOPBACK,)))


def _settle_memory() -> None:
    """What is loaded by now stays: the collector need not walk it again, nor run for every few clients."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
