"""The drain: everyone is asked to leave, one after the other, and told when to come back.

Spread, so that whoever serves them next does not meet them all at once: so many a second as
`daemon.drain_clients_per_second` says, or as many as it takes to have asked all within half of
`daemon.drain_seconds`. What waits for a client is sent before its goodbye.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import uniform

import trio

from broker.clientele import Clientele
from broker.config.sections import Daemon
from broker.ending import SHUTDOWN

_TURN_SECONDS = 0.02


async def drain(clientele: Clientele, section: Daemon, pick: Callable[[float, float], float] = uniform) -> None:
    """Ask everyone who is here. Returns when all are asked, not when they have left.

    Args:
        pick: a random number between two.
    """
    clients = clientele.everyone()
    half_seconds = section.drain_seconds / 2
    a_second = max(section.drain_clients_per_second, len(clients) / half_seconds if half_seconds else math.inf)
    began_at, asked = trio.current_time(), 0
    while asked < len(clients):
        passed = trio.current_time() - began_at
        due = len(clients) if math.isinf(a_second) else 1 + int(passed * a_second)
        for client in clients[asked:due]:
            client.reconnect_milliseconds = round(1000 * pick(0.0, section.reconnect_seconds))
            client.end(SHUTDOWN)
        asked = max(asked, due)
        if asked < len(clients):
            await trio.sleep(_TURN_SECONDS)
