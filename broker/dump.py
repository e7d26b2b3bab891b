"""The dump: what the daemon is doing at this moment, as lines of the log.

Tasks are grouped by what they run, from the outermost to the innermost, and by the line where they wait: ten thousand
clients that wait for something to read are one line with their number. Then the clients for whom most bytes wait, and
how the hub and Redis are.

Bounds: `TASKS_MAX` groups, `CLIENTS_MAX` clients, `_CHAIN_MAX` functions of one task. The loop goes on meanwhile: it is
let on after every `_AT_ONCE` of either, so the lines are of moments shortly after one another. One dump at a time.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from types import CodeType
from typing import Any

import structlog
import trio
from attrs import define, field

import broker
from broker.client import Client
from broker.clientele import Clientele

log = structlog.get_logger(__name__)

TASKS_MAX = 200
CLIENTS_MAX = 50
_CHANNELS_SHOWN = 5
_CHAIN_MAX = 40
_AT_ONCE = 200
_HERE = os.path.join(os.path.dirname(broker.__file__), "")
# How a coroutine, a generator and an asynchronous generator say where they are, and what they wait for.
_LINKS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))

Chain = tuple[tuple[CodeType, int], ...]


@define(eq=False)
class Dump:
    """Writes dumps.

    Args:
        state: what else is said of the daemon; cheap.
    """

    _clientele: Clientele
    _state: Mapping[str, Any]
    _is_under_way: bool = field(init=False, default=False)

    async def write(self) -> str:
        """Write one. Returns in a sentence what was written."""
        if self._is_under_way:
            return "a dump is being written already"
        self._is_under_way = True
        try:
            groups, tasks = await self._write_tasks()
            clients = await self._write_clients()
            for name, look in self._state.items():
                log.warning("dump: state", of=name, **look())
        finally:
            self._is_under_way = False
        told = f"{tasks} tasks in {groups} lines, and {clients} of {len(self._clientele)} clients"
        log.warning("dump: end", tasks=tasks, clients=len(self._clientele))
        return told

    async def _write_tasks(self) -> tuple[int, int]:
        counts: Counter[Chain] = Counter()
        seen = 0
        root = trio.lowlevel.current_root_task()
        left = [root] if root is not None else []
        while left:
            task = left.pop()
            counts[_chain(task)] += 1
            seen += 1
            for nursery in task.child_nurseries:
                left.extend(nursery.child_tasks)
            if seen % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        for chain, count in counts.most_common(TASKS_MAX):
            what, where = _told(chain)
            log.warning("dump: tasks", count=count, what=what, waits=where)
        if len(counts) > TASKS_MAX:
            log.warning("dump: tasks", left_out=len(counts) - TASKS_MAX)
        return min(len(counts), TASKS_MAX), seen

    async def _write_clients(self) -> int:
        slowest: list[tuple[int, str, Client]] = []
        everyone = iter(self._clientele.everyone())
        while some := list(islice(everyone, _AT_ONCE)):
            found = ((client.outbox.queued_bytes, client.id, client) for client in some if hasattr(client, "outbox"))
            slowest = heapq.nlargest(CLIENTS_MAX, [*slowest, *found], key=lambda each: each[:2])
            await trio.lowlevel.checkpoint()
        for _, _, client in slowest:
            facts = client.statistics()
            log.warning(
                "dump: client",
                id=facts.id,
                user=facts.user_id,
                queued_bytes=facts.queued_bytes,
                backlog_bytes=client.outbox.backlog_bytes,
                events=facts.events,
                channels=[*facts.channels[:_CHANNELS_SHOWN], *["..."][: len(facts.channels) > _CHANNELS_SHOWN]],
                ending=client.ending.name if client.ending is not None else None,
            )
        return len(slowest)


def _chain(task: trio.lowlevel.Task) -> Chain:
    """The functions that a task waits in, outermost first, and the line of each. What is not Python has none."""
    found: list[tuple[CodeType, int]] = []
    awaited: Any = task.coro
    for _ in range(_CHAIN_MAX):
        for frame_name, next_name in _LINKS:
            frame = getattr(awaited, frame_name, None)
            if frame is not None:
                found.append((frame.f_code, frame.f_lineno))
                awaited = getattr(awaited, next_name)
                break
        else:
            break
    return tuple(found)


def _told(chain: Chain) -> tuple[str, str]:
    """What a task runs, and the innermost line of ours where it waits."""
    names = [getattr(code, "co_qualname", code.co_name) for code, _ in chain]
    lines = [(code.co_filename, line) for code, line in chain]
    ours = [(path.removeprefix(_HERE), line) for path, line in lines if path.startswith(_HERE)]
    path, line = (ours or [(os.path.basename(path), line) for path, line in lines] or [("", 0)])[-1]
    return " > ".join(names), f"{path}:{line}"
