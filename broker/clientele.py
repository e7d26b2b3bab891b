"""The clientele: every client that is connected, whose it is, until when it may stay, and how those before ended.

A client's time is its token's: `keep_time` ends who is over, by the wall clock, wherever that jumps.

Synchronous, but for `serve` and `keep_time`. Bounds: the door's cap on connections, and for each user with a
token `limits.connections_per_user` and `limits.streams_per_user`; one more is refused by name.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice

import trio
from attrs import Factory, define, field, frozen

from broker.auth.identity import Identity
from broker.client import Client, ClientStatistics, Conversation
from broker.config.access import Limits
from broker.ending import TOKEN_EXPIRED, Ending
from broker.outboxpool import OutboxPool
from broker.request import RequestRefused

_LOOK_SECONDS = 0.5
CONNECTIONS_PER_USER = "connections_per_user"
STREAMS_PER_USER = "streams_per_user"


@frozen
class ClienteleStatistics:
    """A snapshot: clients by transport now; events delivered by transport, endings by name and refusals by limit
    since the start."""

    connected: Mapping[str, int]
    events: Mapping[str, int]
    endings: Mapping[str, int]
    limits_hit: Mapping[str, int]


@define(eq=False)
class Clientele:
    """Clients by id, in the order of their coming."""

    _limits: Limits = Factory(Limits)
    clock: Callable[[], float] = time.time
    _clients: dict[str, Client] = Factory(dict)
    _by_user: dict[str, dict[Client, None]] = Factory(dict)
    _past_events: Counter[str] = Factory(Counter)
    _endings: Counter[str] = Factory(Counter)
    _limits_hit: Counter[str] = Factory(Counter)
    _expiring: list[tuple[float, int, Client, Identity]] = Factory(list)  # a heap
    _serial: Iterator[int] = Factory(count)
    _expiring_max: int = field(init=False, default=1000)
    pool: OutboxPool = field(init=False)  # what waits for all of them

    def __attrs_post_init__(self) -> None:
        self.pool = OutboxPool(self._limits.outbox_total_bytes)

    def add(self, client: Client) -> None:
        self._clients[client.id] = client
        self._enter(client)

    def remove(self, client: Client) -> None:
        """Forget a client and remember how it ended."""
        if self._clients.pop(client.id, None) is not None:
            self._leave(client)
            self._past_events[client.transport] += client.outbox.events
            self._endings[client.ending.name if client.ending else "cancelled"] += 1

    def identify(self, client: Client, identity: Identity) -> None:
        """Note that a client is somebody else, or has a new token."""
        self._leave(client)
        client.identity = identity
        self._enter(client)

    def limit_reached(self, identity: Identity, transport: str) -> str | None:
        """The limit, by the name of its setting, that one more client of this user would break; None for none."""
        limits, user = self._limits, identity.limited_user
        if user is None:
            return None
        theirs = [client for client in self._by_user.get(user, ()) if client.identity.limited_user == user]
        streams = sum(client.transport == "sse" for client in theirs)
        found = None
        if limits.connections_per_user and len(theirs) >= limits.connections_per_user:
            found = CONNECTIONS_PER_USER
        elif transport == "sse" and limits.streams_per_user and streams >= limits.streams_per_user:
            found = STREAMS_PER_USER
        if found is not None:
            self._limits_hit[found] += 1
        return found

    def check_room(self, identity: Identity, transport: str) -> None:
        """Raises RequestRefused, 429, where this user may have no more clients."""
        limit = self.limit_reached(identity, transport)
        if limit is not None:
            most = getattr(self._limits, limit)
            raise RequestRefused(
                429,
                f"the user has {most} connections or streams already, as many as limits.{limit} allows",
                "Close one first, or try again later.",
                {"Retry-After": "5"},
            )

    async def serve(self, client: Client, converse: Callable[[Client], Conversation]) -> Ending:
        """Count a client in, serve it to its end, and count it out. Runs until then, or until cancelled."""
        self.add(client)
        try:
            return await client.run(converse, self.pool)
        finally:
            self.remove(client)

    async def keep_time(self) -> None:
        """End who is over. Runs until cancelled."""
        while True:
            self.end_expired()
            await trio.sleep(_LOOK_SECONDS)

    def end_expired(self) -> None:
        """End every client whose token is over by now."""
        expiring, now = self._expiring, self.clock()
        while expiring and expiring[0][0] <= now:
            _, _, client, identity = heapq.heappop(expiring)
            if client.identity is identity:
                client.end(TOKEN_EXPIRED)

    def listed(self, transport: str, most: int) -> list[ClientStatistics]:
        """The first `most` clients of a transport, in the order of their coming."""
        of_transport = (client for client in self._clients.values() if client.transport == transport)
        return [client.statistics() for client in islice(of_transport, most)]

    def everyone(self) -> list[Client]:
        return list(self._clients.values())

    def of_user(self, user_id: str) -> Iterable[Client]:
        """A user's clients."""
        return list(self._by_user.get(user_id, ()))

    def of_id(self, id: str) -> Client | None:
        return self._clients.get(id)

    def __len__(self) -> int:
        return len(self._clients)

    def statistics(self) -> ClienteleStatistics:
        connected: Counter[str] = Counter()
        events = self._past_events.copy()
        for client in self._clients.values():
            connected[client.transport] += 1
            events[client.transport] += client.outbox.events
        return ClienteleStatistics(connected, events, dict(self._endings), dict(self._limits_hit))

    def _enter(self, client: Client) -> None:
        identity = client.identity
        if identity.user_id is not None:
            self._by_user.setdefault(identity.user_id, {})[client] = None
        if identity.expires_at is not None:
            heapq.heappush(self._expiring, (identity.expires_at, next(self._serial), client, identity))
            if len(self._expiring) > self._expiring_max:
                self._forget_gone()

    def _leave(self, client: Client) -> None:
        user = client.identity.user_id
        if user is not None and user in self._by_user:
            self._by_user[user].pop(client, None)
            if not self._by_user[user]:
                del self._by_user[user]

    def _forget_gone(self) -> None:
        """Whoever left is still waited for until its token is over: now and then they are sorted out."""
        self._expiring = [
            entry for entry in self._expiring if entry[2].identity is entry[3] and entry[2].id in self._clients
        ]
        heapq.heapify(self._expiring)
        self._expiring_max = 2 * len(self._expiring) + 1000
