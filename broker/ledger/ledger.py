"""The ledger: evaluations as Redis keeps them, between the daemons that ask and the workers that answer.

    broker:{kind}:requests      stream with the group `workers`: an entry for each evaluation that is not over
    broker:{kind}:workers       sorted set: worker -> when it last said that it lives
    broker:{kind}:pulse         hash: when somebody last came by, and since when Redis is back
    broker:{kind}:<id>          hash: the request and its state
    broker:{kind}:<id>:events   stream: what was answered so far, with the offsets 1, 2, 3... as ids

    queued ──take──▶ running ──append(last)──▶ over
      ▲               │   ▲ │
      └───release─────┘   └─┘ take: its lease ran out, and another worker claimed the entry

Laws: every step is one script, so no reader ever sees half of one. Every taking has a token, and whoever
appends shows it: a worker that was given up cannot answer any more, also after Redis came back with an
older state. An evaluation ends once; nothing follows its last event. Times are Redis' own clock, and a
time in which Redis was away counts for nobody.
Bounds: `pending_max` evaluations that are not over; state and events go `keep_seconds` after the last
step; a request that nobody has taken goes soon after the grace time of its last watcher. Keys of one kind
share a hash tag, so they are on one node of a cluster.

Source: Redis commands XADD, XREADGROUP, XCLAIM, XAUTOCLAIM, TIME.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from broker.command import Argument, Commands
from broker.errors import UpstreamError
from broker.ledger import scripts
from broker.ledger.evaluation import Answered, Sight, Taken, Watched

GROUP = "workers"
NAMESPACE = "broker:"
# A worker that has not said for so long that it lives is not counted as running.
WORKER_SILENCE_SECONDS = 5.0
# What nobody has taken, and nobody waits for, is forgotten so long after its grace time.
_UNTAKEN_SECONDS = 60.0
_FORGOTTEN_SECONDS = 3600.0
# A reply that is larger holds up whoever shares the connection.
PAGE_BYTES = 4 * 1024 * 1024


@define(eq=False)
class Ledger:
    """The ledger in one Redis.

    Every call raises UpstreamError where Redis is away; whether it was done is then not known.

    Args:
        channel_prefix: as `redis.channel_prefix`; in front of channels, and of the ledger's own keys.
    """

    _commands: Commands
    _channel_prefix: str = ""
    _prefix: str = field(init=False)
    # Where the last look for leases that ran out ended, by kind: each sees ten entries for one that it may claim.
    _cursors: dict[str, str] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._prefix = self._channel_prefix + NAMESPACE

    async def start(
        self,
        kind: str,
        id: str,
        parameters: bytes,
        user_id: str | None,
        *,
        grace_seconds: float,
        keep_seconds: float,
        pending_max: int,
    ) -> bool:
        """Queue a request; may be called again. Returns False where `pending_max` are queued or running already."""
        limits = (_milliseconds(grace_seconds), _milliseconds(keep_seconds), pending_max)
        more = (_milliseconds(_UNTAKEN_SECONDS), self._state(kind, ""))
        keys = (self._requests(kind), self._state(kind, id))
        return bool(await self._commands.run(scripts.START, keys, id, parameters, user_id or "", *limits, *more))

    async def follow(self, kind: str, id: str, offset: int, most: int, most_bytes: int = PAGE_BYTES) -> Sight | None:
        """What a watcher sees behind `offset`; None where there is no such evaluation (any more).

        Args:
            most, most_bytes: bound a page; one event comes, whatever its size.
        """
        keys = (self._state(kind, id), self._events(kind, id), self._workers(kind), self._pulse(kind))
        bounds = (_milliseconds(WORKER_SILENCE_SECONDS), _milliseconds(_UNTAKEN_SECONDS))
        found = await self._commands.run(scripts.FOLLOW, keys, offset, most, most_bytes, *bounds)
        if not found:
            return None
        state, attempt, waited, silent, lease, last, workers, events, run, began = found
        return Sight(
            state.decode(),
            attempt,
            waited / 1000,
            silent / 1000,
            lease / 1000,
            last,
            workers,
            tuple(map(_answered, events)),
            run.decode(),
            began,
        )

    def touch(self, kind: str, id: str) -> None:
        """A watcher is here, or was until now. Synchronous."""
        self._commands.post(scripts.TOUCH, (self._state(kind, id),))

    async def append(self, kind: str, id: str, run: str, offset: int, events: Sequence[bytes], last: str = "") -> bool:
        """Publish events, at least one, behind `offset`. May be called again with the same events.

        Args:
            last: `complete` or `error` where the last of the events ends the evaluation.

        Returns:
            Whether they are there; False where the evaluation is over, another run's, or not at `offset`.
        """
        keys = (self._requests(kind), self._state(kind, id), self._events(kind, id))
        channel = f"{self._channel_prefix}{kind}:{id}"
        return bool(await self._commands.run(scripts.APPEND, keys, run, offset, channel, last, *events))

    async def take(self, worker: str, kind: str, id: str, entry: str, lease_seconds: float) -> Taken | None:
        """Begin with an entry that this worker has. None where it is over (the entry is then gone), or another's."""
        keys = (self._requests(kind), self._state(kind, id), self._pulse(kind))
        run = os.urandom(8).hex()
        found = await self._commands.run(scripts.TAKE, keys, worker, entry, _milliseconds(lease_seconds), run)
        if not found:
            return None
        attempt, deaths, unwatched, grace, parameters, user, offset = found
        return Taken(
            kind,
            id,
            entry,
            run,
            attempt,
            deaths,
            offset,
            Watched(unwatched / 1000, grace / 1000),
            parameters,
            user.decode() or None,
        )

    async def beat(self, worker: str, taken: Taken) -> Watched | None:
        """Renew the lease. None where it is lost: the evaluation is over, or another worker's."""
        keys = (
            self._requests(taken.kind),
            self._state(taken.kind, taken.id),
            self._events(taken.kind, taken.id),
            self._pulse(taken.kind),
        )
        found = await self._commands.run(scripts.BEAT, keys, worker, taken.entry, taken.run)
        return Watched(found[0] / 1000, found[1] / 1000) if found else None

    async def release(self, worker: str, kind: str, id: str, entry: str) -> None:
        """Give an evaluation back to the queue, taken or not, if this worker has its entry."""
        await self._commands.run(scripts.RELEASE, (self._requests(kind), self._state(kind, id)), id, entry, worker)

    async def held(self, worker: str, kind: str) -> list[tuple[str, str]]:
        """The entries that this worker has, as (id, entry)."""
        (reply,) = await self._commands.execute(
            ("XREADGROUP", "GROUP", GROUP, worker, "STREAMS", self._requests(kind), "0")
        )
        return _entries(_whole(reply)[0][1])

    async def pulse(self, kind: str) -> None:
        """Come by, so that a time in which nobody asks for anything is not taken for one without Redis."""
        await self._commands.run(scripts.PULSE, (self._pulse(kind),))

    async def live(self, worker: str, kind: str) -> None:
        """Say that a worker for a kind runs."""
        keys = (self._workers(kind), self._pulse(kind))
        await self._commands.run(scripts.LIVE, keys, worker, _milliseconds(WORKER_SILENCE_SECONDS))

    async def retire(self, worker: str, kind: str) -> None:
        """The worker runs no longer: what it still has goes back to the queue, as if it had never been taken."""
        keys = (self._requests(kind), self._workers(kind))
        while await self._commands.run(scripts.RETIRE, keys, worker, self._state(kind, "")):
            pass

    async def open_group(self, kind: str) -> None:
        """Make the workers' group where it is missing: on the first start, and when Redis was emptied."""
        requests = self._requests(kind)
        created, consumers = await self._commands.execute(
            ("XGROUP", "CREATE", requests, GROUP, "0", "MKSTREAM"), ("XINFO", "CONSUMERS", requests, GROUP)
        )
        if isinstance(created, Exception) and not str(created).startswith("BUSYGROUP"):
            raise UpstreamError(f"Redis refused the workers' group: {created}")
        for fields in _whole(consumers):
            consumer = dict(zip(fields[::2], fields[1::2], strict=True))
            # Left behind by a worker that was killed; others have what it had.
            if not consumer[b"pending"] and consumer[b"idle"] > _milliseconds(_FORGOTTEN_SECONDS):
                await self._commands.execute(("XGROUP", "DELCONSUMER", requests, GROUP, consumer[b"name"]))

    async def claim(self, worker: str, kind: str, lease_seconds: float, most: int) -> list[tuple[str, str]]:
        """Entries whose worker was given up, as (id, entry): those are this worker's now."""
        keys = (self._requests(kind), self._pulse(kind))
        cursor = self._cursors.get(kind, "0-0")
        reply = await self._commands.run(scripts.CLAIM, keys, worker, _milliseconds(lease_seconds), cursor, most)
        self._cursors[kind] = reply[0].decode()
        return _entries(reply[1])

    async def wait(self, worker: str, kind: str, most: int, seconds: float) -> list[tuple[str, str]]:
        """New entries as (id, entry), waiting for the first at most `seconds`. Needs a connection of its own."""
        command: tuple[Argument, ...] = ("XREADGROUP", "GROUP", GROUP, worker, "COUNT", most)
        command += ("BLOCK", _milliseconds(seconds), "STREAMS", self._requests(kind), ">")
        (reply,) = await self._commands.execute(command)
        return _entries(_whole(reply)[0][1]) if _whole(reply) else []

    def _requests(self, kind: str) -> str:
        return f"{self._prefix}{{{kind}}}:requests"

    def _workers(self, kind: str) -> str:
        return f"{self._prefix}{{{kind}}}:workers"

    def _pulse(self, kind: str) -> str:
        return f"{self._prefix}{{{kind}}}:pulse"

    def _state(self, kind: str, id: str) -> str:
        return f"{self._prefix}{{{kind}}}:{id}"

    def _events(self, kind: str, id: str) -> str:
        return f"{self._prefix}{{{kind}}}:{id}:events"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _answered(entry: list[Any]) -> Answered:
    offset, (_, name, _, event) = entry
    return Answered(int(offset.partition(b"-")[0]), name.decode(), event)


def _entries(found: list[list[Any]]) -> list[tuple[str, str]]:
    # An entry that was deleted while it was pending has no fields.
    return [(fields[1].decode(), entry.decode()) for entry, fields in filter(None, found) if fields]


def _whole(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise UpstreamError(f"Redis refused a command: {reply}")
    return reply
