"""The assembly: every part of the daemon is made and wired here, and nothing runs yet.

`daemon` opens what the parts need before, starts them, and drains them; this file only says who is given whom.
"""

from __future__ import annotations

import time

import attrs
import trio
from attrs import frozen

from broker import figures
from broker.auth.revocation import Revocations
from broker.auth.rules import RuleBook
from broker.census import Census
from broker.clientele import Clientele
from broker.config.sections import Config
from broker.config.types import TypeOptions
from broker.control import Control
from broker.door import Door
from broker.evaluationdoor import EvaluationDoor
from broker.forwarded import Proxies
from broker.gate import Gate
from broker.history.history import History
from broker.history.keys import Keys
from broker.hub import INTERNAL, Hub
from broker.inquiry import PATHS as EVALUATION_PATHS
from broker.intake import Intake
from broker.keysource import KeySource
from broker.ledger.ledger import Ledger
from broker.lifecycle import Lifecycle
from broker.looplag import LoopLag
from broker.metrics.metrics import Metrics
from broker.metrics.scrape import Sources
from broker.node import NodeKeys, new_node_id
from broker.nodes.nodes import Nodes
from broker.origins import Origins
from broker.post.siblings import Siblings
from broker.publishing import Publishing
from broker.readiness import Readiness
from broker.reception import Reception, Route
from broker.seats import Seats
from broker.sse import SseDoor
from broker.stream import ROOT as STREAM_ROOT
from broker.stream import EndedStreams
from broker.tls import Certificate
from broker.topic.topic import Books, Terms, Topic
from broker.topic.trail import Trail
from broker.tracing import Tracing
from broker.turnstile import Turnstile
from broker.upstream.commands import CommandLink
from broker.upstream.link import Link
from broker.upstream.recorder import Recorder
from broker.upstream.unrecorded import Unrecorded
from broker.web.assets import CLIENT_ROOT
from broker.web.http2 import Http2
from broker.web.server import WebServer
from broker.web.services import Services
from broker.websocket import WebSocketDoor

_DEFAULT_OPTIONS = TypeOptions()


@frozen
class Parts:
    """The parts that somebody else starts, ends or changes."""

    link: Link
    commands: CommandLink
    reads: CommandLink
    questions: CommandLink
    history: History
    recorder: Recorder
    hub: Hub
    clientele: Clientele
    keys_of_tokens: KeySource
    gate: Gate
    control: Control
    nodes: Nodes
    intake: Intake
    websockets: WebSocketDoor
    streams: SseDoor
    evaluations: EvaluationDoor
    publishing: Publishing
    rules: RuleBook
    origins: Origins
    terms: Terms
    reception: Reception
    http2: Http2
    web: WebServer
    door: Door
    lag: LoopLag
    tracing: Tracing | None


def assemble(
    config: Config,
    max_connections: int,
    certificate: Certificate | None,
    lifecycle: Lifecycle,
    slot: int | None = None,
    siblings: Siblings | None = None,
    *,
    is_dev: bool = False,
) -> Parts:
    """Make the parts. Nothing is opened, and nothing runs.

    Args:
        config: with a Redis URL in it.
        slot: which of the daemon's workers this is; None where it is one process.
        siblings: the other workers; None where it is one process.
        is_dev: whether the daemon was started with `--dev`.
    """
    link = Link(config.redis, config.channels.message_max_bytes, config.declared_types)
    ended = EndedStreams(config.sse.ended_seconds)
    keys = Keys(config.redis.channel_prefix)
    commands = CommandLink(config.redis)
    reads = CommandLink(config.redis)
    questions = CommandLink(config.redis)
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
    node = NodeKeys(config.redis.channel_prefix, new_node_id(config.daemon.node, slot))
    lease_seconds = config.daemon.node_lease_seconds
    clientele = Clientele(config.limits, Seats(config.limits, commands, node, lease_seconds))
    origins = Origins(config.listen.allowed_origins, bool(config.auth.cookie))
    served = _served_types(config)
    rules = RuleBook(config.rules, config.declared_types)
    keys_of_tokens = KeySource(config.auth)
    gate = Gate(config.auth, config.rules, keys_of_tokens, origins, Revocations())
    tracing = link.tracing = Tracing.from_settings(config.tracing, config.channels.message_max_bytes)
    publishing = Publishing(commands, config, rules, tracing)
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
            "loop": lambda: figures.loop_of(lag),
            **({"tls": lambda: figures.tls_of(certificate, http2)} if certificate is not None else {}),
        },
    )
    nodes = Nodes(
        node,
        hub,
        clientele,
        control,
        commands,
        questions,
        census,
        lease_seconds,
        lambda: recorder.statistics()["isRecorder"],
    )
    readiness = Readiness(lifecycle, lambda: link.has_answered, lambda: link.is_away)
    lag = LoopLag()
    web = WebServer(
        Services(
            nodes.survey,
            publishing,
            gate,
            rules,
            control,
            origins,
            readiness,
            config.metrics.http,
            lambda: metrics.text(),
            config.console.http,
            is_dev,
        )
    )
    reception = Reception(
        (
            Route("/ws", websockets.serve, exact=True),
            *(Route(path, evaluations.serve) for path in EVALUATION_PATHS),
            Route(STREAM_ROOT, streams.serve),
            Route(CLIENT_ROOT, web.serve, is_public=True),
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
    metrics = Metrics(
        Sources(
            link,
            hub,
            clientele,
            door,
            reception,
            websockets,
            publishing,
            history,
            recorder,
            evaluations,
            gate,
            control,
            certificate,
            http2,
            readiness,
            lag,
        ),
        siblings or Siblings(),
    )
    return Parts(
        link,
        commands,
        reads,
        questions,
        history,
        recorder,
        hub,
        clientele,
        keys_of_tokens,
        gate,
        control,
        nodes,
        intake,
        websockets,
        streams,
        evaluations,
        publishing,
        rules,
        origins,
        terms,
        reception,
        http2,
        web,
        door,
        lag,
        tracing,
    )


def _served_types(config: Config) -> frozenset[str] | None:
    """The channel types that are served; None for all."""
    if config.channels.undeclared == "serve":
        return None
    return frozenset(config.declared_types)


def _options(config: Config, name: bytes) -> TypeOptions:
    """The options of a channel's type."""
    return config.types.get(name.partition(b":")[0].decode(), _DEFAULT_OPTIONS)


def _topic(name: bytes, options: TypeOptions, terms: Terms, history: History) -> Topic:
    if name.startswith(INTERNAL):
        # What daemons say to each other is no event: it has books of its own, and the policy's slower way, which counts
        # in them.
        return Topic(name, "drop_oldest", attrs.evolve(terms, books=Books()))
    if options.keeps_history:
        return Trail(name, options.slow_policy, terms, historian=history, replay=options.replay)
    return Topic(name, options.slow_policy, terms)
