"""A scrape: what the parts have counted, drawn once for one answer of `/metrics`.

Law: the event loop is not held up, however many clients there are: nothing here walks all of them, or what each has
subscribed to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import trio
from attrs import field, frozen

from broker import __version__, figures
from broker.clientele import Clientele
from broker.control import Control
from broker.door import Door, DoorStatistics
from broker.evaluationdoor import EvaluationDoor
from broker.eventage import EventAge
from broker.gate import Gate
from broker.history.history import History
from broker.hub import Hub
from broker.looplag import LoopLag
from broker.outboxpool import OutboxPool, OutboxPoolStatistics
from broker.process import Process, ProcessStatistics
from broker.publishing import Publishing
from broker.readiness import Readiness
from broker.reception import Reception, ReceptionStatistics
from broker.tls import Certificate, CertificateStatistics
from broker.topic.topic import Books
from broker.turnstile import CONNECTIONS, CONNECTS
from broker.upstream.link import Link
from broker.upstream.recorder import Recorder
from broker.web.http2 import Http2, Http2Statistics
from broker.websocket import WebSocketDoor

# By wire format; what is in none of these is said among daemons.
_TRANSPORTS = {"websocket": "websocket", "websocket_v1": "websocket", "sse": "sse", "sse_bare": "sse"}
_NONE = dict.fromkeys(("websocket", "sse"), 0)


@frozen
class Sources:
    """The parts that are asked."""

    link: Link
    hub: Hub
    clientele: Clientele
    door: Door
    reception: Reception
    websockets: WebSocketDoor
    publishing: Publishing
    history: History
    recorder: Recorder
    evaluations: EvaluationDoor
    gate: Gate
    control: Control
    certificate: Certificate | None
    http2: Http2
    readiness: Readiness
    lag: LoopLag
    process: Process = field(factory=Process)


@frozen
class Scrape:
    """What was found. `now` is in seconds since 1970."""

    sources: Sources
    door: DoorStatistics
    reception: ReceptionStatistics
    outboxes: OutboxPoolStatistics
    limits: Mapping[str, int]
    publishing: Mapping[str, Any]
    history: Mapping[str, Any]
    recorder: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    gate: Mapping[str, Any]
    control: Mapping[str, Any]
    certificate: CertificateStatistics | None
    http2: Http2Statistics | None
    process: ProcessStatistics
    tasks: int
    lag_max_seconds: float
    now: float

    @property
    def build(self) -> Mapping[str, int]:
        return {__version__: 1}

    @property
    def is_ready(self) -> bool:
        return not self.sources.readiness.reasons()

    @property
    def link(self) -> Link:
        return self.sources.link

    @property
    def lag(self) -> LoopLag:
        return self.sources.lag

    @property
    def pool(self) -> OutboxPool:
        return self.sources.clientele.pool

    @property
    def hub(self) -> Hub:
        return self.sources.hub

    @property
    def books(self) -> Books:
        return self.sources.hub.books

    @property
    def event_age(self) -> EventAge:
        return self.sources.link.event_age

    @property
    def clients(self) -> Mapping[str, int]:
        return {**_NONE, **self.sources.clientele.connected}

    @property
    def endings(self) -> Mapping[str, int]:
        return self.sources.clientele.endings

    @property
    def refused(self) -> Mapping[str, int]:
        """Connections and requests, by why."""
        return {
            "max_connections": self.door.refused_busy,
            "no_proxy_header": self.door.without_proxy_header,
            "page": self.reception.refused_pages,
            **dict.fromkeys((CONNECTIONS, CONNECTS), 0),
            **self.reception.refused_by_limit,
        }

    @property
    def refused_messages(self) -> Mapping[str, int]:
        """Messages from Redis, by why."""
        return sum(map(Counter, self.link.refusals.counts().values()), Counter[str]())

    @property
    def deliveries(self) -> Mapping[str, int]:
        return self._by_transport("deliveries")

    @property
    def delivered_bytes(self) -> Mapping[str, int]:
        return self._by_transport("bytes")

    def _by_transport(self, what: str) -> Mapping[str, int]:
        found = Counter(_NONE)
        for format, tally in self.books.tallies.items():
            if format.name in _TRANSPORTS:
                found[_TRANSPORTS[format.name]] += getattr(tally, what)
        return found


async def scrape(sources: Sources, now: float) -> Scrape:
    """Ask all of them. Waits only for others to have their turn.

    Args:
        now: seconds since 1970.
    """
    process = await sources.process.statistics()
    certificate = sources.certificate
    return Scrape(
        sources,
        sources.door.statistics(),
        sources.reception.statistics(),
        sources.clientele.pool.statistics(),
        figures.limits_of(sources.door, sources.reception, sources.clientele, sources.websockets),
        sources.publishing.statistics(),
        sources.history.statistics(),
        sources.recorder.statistics(),
        sources.evaluations.statistics(),
        sources.gate.statistics(),
        sources.control.statistics(),
        None if certificate is None else certificate.statistics(),
        None if certificate is None else sources.http2.statistics(),
        process,
        sources.lag.tasks,
        sources.lag.most_seconds(trio.current_time()),
        now,
    )
