"""The assembly: every part of the daemon is made and wired here, and nothing runs yet.

`daemon` opens what the parts need before, starts them, and drains them; this file only says who is given whom.
"""

from __future__ import annotations

import time

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
from broker.hub import Hub
from broker.inquiry import PATHS as EVALUATION_PATHS
from broker.intake import Intake
from broker.keysource import KeySource
from broker.ledger.ledger import Ledger
from broker.origins import Origins
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
from broker.upstream.link import Link
from broker.upstream.recorder import Recorder
from broker.upstream.unrecorded import Unrecorded
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
    history: History
    recorder: Recorder
    hub: Hub
    clientele: Clientele
    keys_of_tokens: KeySource
    gate: Gate
    control: Control
    intake: Intake
    evaluations: EvaluationDoor
    reception: Reception
    http2: Http2
    web: WebServer
    door: Door


def assemble(config: Config, max_connections: int, certificate: Certificate | None) -> Parts:
    """Make the parts. Nothing is opened, and nothing runs.

    Args:
        config: with a Redis URL in it.
    """
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
    return Parts(
        link,
        commands,
        reads,
        history,
        recorder,
        hub,
        clientele,
        keys_of_tokens,
        gate,
        control,
        intake,
        evaluations,
        reception,
        http2,
        web,
        door,
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
    if options.keeps_history:
        return Trail(name, options.slow_policy, terms, historian=history)
    return Topic(name, options.slow_policy, terms)
