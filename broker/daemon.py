"""The daemon: everything is opened, wired, started and drained in this one file.

Its life, outside in: listeners, the embedded server, the link to Redis, the connections, the doors.
It ends inside out: the doors close; every client gets its goodbye; what is left after
`drain_seconds` is cut off; then the link, then the embedded server. No task outlives its nursery.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import structlog
import trio
from attrs import frozen

from broker import figures
from broker.auth.revocation import Revocations
from broker.auth.rules import RuleBook
from broker.census import Census
from broker.clientele import Clientele
from broker.config.address import Address
from broker.config.sections import Config
from broker.config.sources import Effective
from broker.config.types import TypeOptions
from broker.control import Control
from broker.demo import publish_demo
from broker.door import Door
from broker.ending import SHUTDOWN
from broker.errors import ConfigError, Problem, UpstreamRefused
from broker.evaluationdoor import EvaluationDoor
from broker.forwarded import Proxies
from broker.gate import Gate
from broker.history.history import History
from broker.history.keys import Keys
from broker.hub import Hub
from broker.inquiry import PATHS as EVALUATION_PATHS
from broker.intake import Intake
from broker.keysource import KeySource
from broker.ledger.ledger import Ledger
from broker.listening import open_listeners
from broker.openfiles import connections_for, raise_open_file_limit
from broker.origins import LOOPBACK, Origins
from broker.publishing import Publishing
from broker.reception import Reception, Route
from broker.sse import SseDoor
from broker.stream import ROOT as STREAM_ROOT
from broker.stream import EndedStreams
from broker.tls import Certificate
from broker.topic.topic import Terms, Topic
from broker.topic.trail import Trail
from broker.turnstile import Turnstile
from broker.upstream.commands import CommandLink
from broker.upstream.embedded import EmbeddedServer, open_embedded
from broker.upstream.link import Link
from broker.upstream.recorder import Recorder
from broker.upstream.unrecorded import Unrecorded
from broker.web.http2 import Http2
from broker.web.server import WebServer
from broker.web.services import Services
from broker.websocket import WebSocketDoor

log = structlog.get_logger(__name__)

_DEFAULT_OPTIONS = TypeOptions()


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


async def run_daemon(effective: Effective, *, dev: bool, on_ready: Callable[[Ready], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends at once.

    Raises:
        ConfigError, ListenError, UpstreamError: it cannot start; the message says why.
    """
    config = effective.config
    if dev:
        config = _for_development(config)
    max_connections = connections_for(raise_open_file_limit(), config.clients.max_connections)
    certificate = Certificate(config.listen_tls) if config.listen_tls.certificate else None
    with open_listeners(config.listen, config.listen_tls, effective.origins["listen.addresses"]) as listeners:
        async with (
            _open_signals() as (stopping, ready),
            _open_upstream(config) as (config, embedded),
            trio.open_nursery() as life,
        ):
            link = Link(config.redis, config.channels.message_max_bytes, config.declared_types)
            ended = EndedStreams(config.sse.ended_seconds)
            keys = Keys(config.redis.channel_prefix)
            commands = CommandLink(config.redis)
            reads = CommandLink(config.redis)
            history = History(
                config.history,
                keys,
                reads,
                config.clients.catch_up_bytes,
                config.channels.message_max_bytes,
                lambda name: _options(config, name),
                link.check_of,
            )
            terms = Terms(
                time.time,
                config.clients.catch_up_bytes,
                config.clients.outbox_max_bytes,
                lambda name: ended.add(name, trio.current_time()),
            )
            hub = Hub(link, lambda name: _topic(name, _options(config, name), terms, history), terms.books)
            clientele = Clientele(config.limits)
            origins = Origins(config.listen.allowed_origins, bool(config.auth.cookie))
            served = _served_types(config)
            rules = RuleBook(config.rules, config.declared_types)
            keys_of_tokens = KeySource(config.auth)
            gate = Gate(config.auth, config.rules, keys_of_tokens, origins, Revocations())
            publishing = Publishing(commands, config, rules)
            intake = Intake(publishing)
            control = Control(
                hub,
                clientele,
                gate,
                commands,
                config.redis.channel_prefix,
                config.auth.revocation_seconds,
                lambda: (link.is_away, link.outages),
            )
            websockets = WebSocketDoor(
                hub,
                clientele,
                gate,
                rules,
                intake,
                config.clients,
                config.websocket,
                config.limits,
                served,
                lambda: link.is_away,
            )
            streams = SseDoor(
                hub,
                history,
                lambda name: _options(config, name).keeps_history,
                clientele,
                config.clients,
                config.sse,
                served,
                gate,
                rules,
                origins,
                ended,
                lambda: link.is_away,
            )
            ledger = Ledger(commands, config.redis.channel_prefix)
            evaluations = EvaluationDoor(
                hub, clientele, ledger, config.clients, config.sse, config.evaluations, gate, rules, origins
            )
            census = Census(
                hub,
                clientele,
                {
                    "publishing": publishing.statistics,
                    "auth": gate.statistics,
                    "limits": lambda: figures.limits_of(door, reception, clientele, websockets),
                    "control": control.statistics,
                    "evaluations": evaluations.statistics,
                    "history": lambda: {**history.statistics(), **recorder.statistics()},
                    "connections": lambda: figures.connections_of(door, reception),
                    "outboxes": lambda: figures.outboxes_of(clientele),
                    **({"tls": lambda: figures.tls_of(certificate, http2)} if certificate is not None else {}),
                },
            )
            web = WebServer(Services(census, publishing, gate, rules, control, origins, config.listen.allowed_origins))
            reception = Reception(
                (
                    Route("/ws", websockets.serve, exact=True),
                    *(Route(path, evaluations.serve) for path in EVALUATION_PATHS),
                    Route(STREAM_ROOT, streams.serve),
                    Route("", web.serve),
                ),
                Proxies(config.listen.trusted_proxies),
                Turnstile(config.limits),
                origins,
                is_open=not gate.is_on,
                logs_requests=config.log.requests == "on",
            )
            http2 = Http2(config.clients.patience_seconds)
            door = Door(config.listen, reception, max_connections, certificate, http2.serve)
            unrecorded = Unrecorded(hub, link)
            hub.on_recorded = unrecorded.heard_recorded
            recorder = Recorder(
                config.redis,
                config.history,
                keys,
                config.declared_types,
                config.channels.message_max_bytes,
                link.refusals,
                unrecorded.begin,
                unrecorded.end,
            )
            try:
                await life.start(link.serve, hub)
            except UpstreamRefused as refused:
                raise UpstreamRefused(f"{refused} (set by {effective.origins['redis.url']})") from refused
            life.start_soon(commands.serve)
            life.start_soon(reads.serve)
            await life.start(history.serve, hub)
            await life.start(recorder.serve)
            await life.start(keys_of_tokens.serve)
            await life.start(gate.serve)
            await life.start(control.serve)
            life.start_soon(intake.serve)
            life.start_soon(clientele.keep_time)
            life.start_soon(evaluations.keep_time)
            if dev:
                life.start_soon(partial(publish_demo, config.redis.url, channel_prefix=config.redis.channel_prefix))
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as doors:
                    for listener in listeners:
                        await doors.start(door.serve, listener, connections)
                    ready.set()
                    on_ready(
                        Ready(
                            tuple(listener.name for listener in listeners),
                            embedded,
                            not link.is_away,
                            max_connections,
                            config,
                        )
                    )
                    web.load()
                    if certificate is not None:
                        http2.load()
                        life.start_soon(certificate.watch)
                    _settle_memory()
                    await stopping.wait()
                    log.info("stopping", clients=len(clientele), drain_seconds=config.daemon.drain_seconds)
                    doors.cancel_scope.cancel()
                door.dismiss_all()
                clientele.end_all(SHUTDOWN)
                connections.cancel_scope.deadline = trio.current_time() + config.daemon.drain_seconds
            await recorder.release()
            log.info("stopped", cut_off=clientele.statistics().endings.get("cancelled", 0))
            life.cancel_scope.cancel()


@asynccontextmanager
async def _open_signals() -> AsyncIterator[tuple[trio.Event, trio.Event]]:
    """An event that the first signal sets, and one to set once the daemon serves.

    Opened first: a second signal, or one before the daemon serves, must be able to cancel everything inside.
    """
    async with trio.open_nursery() as life:
        ready = trio.Event()
        yield await life.start(_await_signals, life.cancel_scope, ready), ready
        life.cancel_scope.cancel()


async def _await_signals(
    life: trio.CancelScope,
    ready: trio.Event,
    task_status: trio.TaskStatus[trio.Event] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Set the event that `started` hands out at the first signal; end everything at the second, or before `ready`."""
    stopping = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started(stopping)
        async for _ in signals:
            if stopping.is_set() or not ready.is_set():
                log.warning("ending at once")
                life.cancel()
            stopping.set()


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


def _served_types(config: Config) -> frozenset[str] | None:
    """The channel types that are served; None for all."""
    if config.channels.undeclared == "serve":
        return None
    return frozenset(config.declared_types)


def _options(config: Config, name: bytes) -> TypeOptions:
    """The options of a channel's type."""
    return config.types.get(name.partition(b":")[0].decode(), _DEFAULT_OPTIONS)


def _topic(name: bytes, options: TypeOptions, terms: Terms, history: History) -> Topic:
    if options.keeps_history:
        return Trail(name, options.slow_policy, terms, historian=history)
    return Topic(name, options.slow_policy, terms)


def _settle_memory() -> None:
    """What is loaded by now stays: the collector need not walk it again, nor run for every few clients."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
