"""The drain: everyone is asked to leave, one after the other, and told when to come back.

Spread, so that whoever serves them next does not meet them all at once: so many a second as
`daemon.drain_clients_per_second` says, or as many as it takes to have asked all within half of
`daemon.drain_seconds`. What waits for a client is sent before its goodbye.

The doors are closed by then. Who came through them just before, and has asked for nothing yet, is served once more
(`_NEWCOMER_SECONDS`): to let it go without a word would look like a broken connection. A stream that begins like
this has its greeting and its goodbye; so `EventSource` comes back, as it would not after a 503. Where another process
serves by now, who keeps a connection alive has as long for a last request, whose answer says that it is the last:
to close it while a request is under way would lose that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import uniform
from typing import Protocol

import trio

from broker.client import Client
from broker.clientele import Clientele
from broker.config.sections import Daemon
from broker.ending import SHUTDOWN

_TURN_SECONDS = 0.02
_LOOK_SECONDS = 0.1
_NEWCOMER_SECONDS = 1.0


class Doorway(Protocol):
    """What the drain needs of the door."""

    def dismiss_idle(self) -> None: ...
    def part_after_next(self) -> None: ...
    def dismiss_all(self) -> None: ...
    @property
    def has_newcomers(self) -> bool: ...
    @property
    def is_empty(self) -> bool: ...


async def drain(
    clientele: Clientele,
    door: Doorway,
    section: Daemon,
    pick: Callable[[float, float], float] = uniform,
    *,
    is_taken_over: bool = False,
) -> None:
    """Ask everyone who is here, or still comes by a door that was open. Returns when all have left.

    The caller bounds it, with `daemon.drain_seconds`.

    Args:
        pick: a random number between two.
        is_taken_over: who keeps a connection alive for its next request finds somebody else there.
    """

    def ask(client: Client) -> None:
        if client.ending is None:
            client.reconnect_milliseconds = round(1000 * pick(0.0, section.reconnect_seconds))
            client.end(SHUTDOWN)

    if is_taken_over:
        door.part_after_next()
    else:
        door.dismiss_idle()
    clients = clientele.everyone()
    half_seconds = section.drain_seconds / 2
    a_second = max(section.drain_clients_per_second, len(clients) / half_seconds if half_seconds else math.inf)
    began_at, asked = trio.current_time(), 0
    is_closed = False
    while asked < len(clients) or not door.is_empty:
        passed = trio.current_time() - began_at
        due = len(clients) if math.isinf(a_second) else 1 + int(passed * a_second)
        for client in clients[asked:due]:
            ask(client)
        asked = max(asked, due)
        if not is_closed and (passed >= _NEWCOMER_SECONDS or not (is_taken_over or door.has_newcomers)):
            is_closed = True
            door.dismiss_all()
        if asked >= len(clients):
            for client in clientele.everyone():  # who has come since
                ask(client)
        await trio.sleep(_TURN_SECONDS if asked < len(clients) or not is_closed else _LOOK_SECONDS)
