"""The clientele: every client that is connected, and how those before them ended.

Synchronous, but for `serve`. Bounds: the door's cap on connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice

from attrs import Factory, define, frozen

from broker.client import Client, ClientStatistics, Conversation
from broker.ending import Ending


@frozen
class ClienteleStatistics:
    """A snapshot: clients by transport now; events delivered by transport and endings by name since the start."""

    connected: Mapping[str, int]
    events: Mapping[str, int]
    endings: Mapping[str, int]


@define(eq=False)
class Clientele:
    """Clients by id, in the order of their coming."""

    _clients: dict[str, Client] = Factory(dict)
    _past_events: Counter[str] = Factory(Counter)
    _endings: Counter[str] = Factory(Counter)

    def add(self, client: Client) -> None:
        self._clients[client.id] = client

    def remove(self, client: Client) -> None:
        """Forget a client and remember how it ended."""
        if self._clients.pop(client.id, None) is not None:
            self._past_events[client.transport] += client.outbox.events
            self._endings[client.ending.name if client.ending else "cancelled"] += 1

    async def serve(self, client: Client, converse: Callable[[Client], Conversation]) -> Ending:
        """Count a client in, serve it to its end, and count it out. Runs until then, or until cancelled."""
        self.add(client)
        try:
            return await client.run(converse)
        finally:
            self.remove(client)

    def listed(self, transport: str, most: int) -> list[ClientStatistics]:
        """The first `most` clients of a transport, in the order of their coming."""
        of_transport = (client for client in self._clients.values() if client.transport == transport)
        return [client.statistics() for client in islice(of_transport, most)]

    def end_all(self, ending: Ending) -> None:
        """Ask everyone to leave. Synchronous; never waits."""
        for client in self._clients.values():
            client.end(ending)

    def __len__(self) -> int:
        return len(self._clients)

    def statistics(self) -> ClienteleStatistics:
        connected: Counter[str] = Counter()
        events = self._past_events.copy()
        for client in self._clients.values():
            connected[client.transport] += 1
            events[client.transport] += client.outbox.events
        return ClienteleStatistics(connected, events, dict(self._endings))
