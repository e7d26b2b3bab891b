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
from broker.seats import NO_SEAT, Seat, Seats

_LOOK_SECONDS = 0.5


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
    seats: Seats = Factory(lambda self: Seats(self._limits), takes_self=True)
    clock: Callable[[], float] = time.time
    _clients: dict[str, Client] = Factory(dict)
    _by_user: dict[str, dict[Client, None]] = Factory(dict)
    _past_events: Counter[str] = Factory(Counter)
    connected: Counter[str] = field(init=False, factory=Counter)  # clients, by transport
    endings: Counter[str] = field(init=False, factory=Counter)  # by name, since the start
    # A heap. By id: who has left is in here until its token is over, and what it had must not stay as long.
    _expiring: list[tuple[float, int, str, Identity]] = Factory(list)
    _serial: Iterator[int] = Factory(count)
    _expiring_max: int = field(init=False, default=1000)
    pool: OutboxPool = field(init=False)  # what waits for all of them

    def __attrs_post_init__(self) -> None:
        self.pool = OutboxPool(self._limits.outbox_total_bytes)

    def adapt(self, limits: Limits) -> None:
        """Go by other limits from here on. Who is here stays."""
        self._limits = limits
        self.pool.max_bytes = limits.outbox_total_bytes
        self.seats.adapt(limits)

    def add(self, client: Client) -> None:
        self._clients[client.id] = client
        self.connected[client.transport] += 1
        self._enter(client)

    def remove(self, client: Client) -> None:
        """Forget a client and remember how it ended."""
        if self._clients.pop(client.id, None) is not None:
            self._leave(client)
            self.connected[client.transport] -= 1
            self._past_events[client.transport] += client.outbox.events
            self.endings[client.ending.name if client.ending else "cancelled"] += 1

    def identify(self, client: Client, identity: Identity) -> None:
        """Note that a client is somebody else, or has a new token."""
        self._leave(client)
        client.identity = identity
        self._enter(client)

    async def admit(self, identity: Identity, transport: str, check_still: Callable[[Identity], None]) -> Seat:
        """A seat for one more client of this user: to be given to `serve`, with nothing to wait for in between.

        Args:
            check_still: as `Gate.check_still`. Redis may have been waited for.

        Raises:
            RequestRefused: 429, this user may have no more; or what `check_still` raises.
        """
        user = identity.limited_user
        seat = NO_SEAT if user is None else await self.seats.take(user, transport)
        if isinstance(seat, str):
            raise self._no_room(seat)
        try:
            check_still(identity)
        except RequestRefused:
            seat.leave()
            raise
        return seat

    def check_room(self, identity: Identity, transport: str) -> None:
        """Raises RequestRefused, 429, where this user has too many clients here already: before more work is done."""
        user = identity.limited_user
        limit = None if user is None else self.seats.reached_here(user, transport == "sse")
        if limit is not None:
            self.seats.limits_hit[limit] += 1
            raise self._no_room(limit)

    async def serve(self, client: Client, converse: Callable[[Client], Conversation], seat: Seat) -> Ending:
        """Count a client in, serve it to its end, and count it out. Runs until then, or until cancelled."""
        self.add(client)
        try:
            return await client.run(converse, self.pool)
        finally:
            self.remove(client)
            seat.leave()

    async def keep_time(self) -> None:
        """End who is over. Runs until cancelled."""
        while True:
            self.end_expired()
            await trio.sleep(_LOOK_SECONDS)

    def end_expired(self) -> None:
        """End every client whose token is over by now."""
        expiring, now = self._expiring, self.clock()
        while expiring and expiring[0][0] <= now:
            _, _, id, identity = heapq.heappop(expiring)
            client = self._clients.get(id)
            if client is not None and client.identity is identity:
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
        events = self._past_events.copy()
        for client in self._clients.values():
            events[client.transport] += client.outbox.events
        return ClienteleStatistics(dict(self.connected), events, dict(self.endings), dict(self.seats.limits_hit))

    def _no_room(self, limit: str) -> RequestRefused:
        most = getattr(self._limits, limit)
        return RequestRefused(
            429,
            f"the user has {most} connections or streams already, as many as limits.{limit} allows",
            "Close one first, or try again later.",
            {"Retry-After": "5"},
        )

    def _enter(self, client: Client) -> None:
        identity = client.identity
        if identity.user_id is not None:
            self._by_user.setdefault(identity.user_id, {})[client] = None
        if identity.expires_at is not None:
            heapq.heappush(self._expiring, (identity.expires_at, next(self._serial), client.id, identity))
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
        clients = self._clients
        self._expiring = [
            entry for entry in self._expiring if entry[2] in clients and clients[entry[2]].identity is entry[3]
        ]
        heapq.heapify(self._expiring)
        self._expiring_max = 2 * len(self._expiring) + 1000
