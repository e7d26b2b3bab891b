"""The roster: the clients of this daemon and its channels, sorted and bounded, for people who look; and as one list
what several daemons answered.

A channel's messages are counted by its topic. How many a second is the difference to a mark, which is set every
`_MARK_SECONDS` on all topics: so a rate is over the last one to two of these, and low for a younger channel.

Laws: the loop is free again after `_AT_ONCE` clients or channels. Of a channel every daemon that follows it hears the
same messages: so over all daemons messages and rate are the highest of any, and subscribers are added.
Bounds: `ROWS_MAX` channels from one daemon; `limit` of the answer; `_NAMES_MAX` channels of a client.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import trio
from attrs import define, field

from broker.client import Client
from broker.clientele import Clientele
from broker.hub import Hub
from broker.timestamp import timestamp

CLIENT_SORTS = ("queued", "events", "connected")
CHANNEL_SORTS = ("rate", "subscribers", "name")
ROWS_MAX = 10_000

_MARK_SECONDS = 5.0
_AT_ONCE = 500
_NAMES_MAX = 20

_Row = tuple[str, int, int, float]  # name, subscribers, messages, messages a second


@define(eq=False)
class Roster:
    """Lists who is here, and what is followed.

    Args:
        node: this daemon.
    """

    _hub: Hub
    _clientele: Clientele
    node: str
    _marked_at: tuple[float, float] = field(init=False, factory=lambda: (trio.current_time(),) * 2)

    async def keep_marks(self) -> None:
        """Mark all topics now and then. Runs until cancelled."""
        self._marked_at = (trio.current_time(),) * 2
        while True:
            await trio.sleep(_MARK_SECONDS)
            await self.mark()

    async def mark(self) -> None:
        self._marked_at = self._marked_at[1], trio.current_time()
        for some in _portions(self._hub.topics()):
            for topic in some:
                topic.marked_before, topic.marked = topic.marked, topic.messages
            await trio.lowlevel.checkpoint()

    async def clients(self, sort: str, limit: int, user: str | None, channel: str | None) -> dict[str, Any]:
        """The first `limit` clients by one of `CLIENT_SORTS`, those with the most first.

        Args:
            user, channel: only these; None for all.
        """
        found = list(self._clientele.of_user(user)) if user is not None else self._clientele.everyone()
        best: list[tuple[float, str, Client]] = []
        matched = 0
        for some in _portions(found):
            here = [client for client in some if _is_on(client, channel)]
            matched += len(here)
            measured = [(_measure(client, sort), client.id, client) for client in here]
            best = heapq.nlargest(limit, [*best, *measured], key=lambda entry: entry[:2])
            await trio.lowlevel.checkpoint()
        return {"matched": matched, "clients": [self._client(client) for _, _, client in best]}

    async def channels(self, sort: str, limit: int, prefix: str) -> dict[str, Any]:
        """At most `limit` channels whose names begin with `prefix`, by one of `CHANNEL_SORTS`, as rows in no order."""
        now = trio.current_time()
        seconds = max(now - self._marked_at[0], 1.0)
        start = prefix.encode()
        best: list[_Row] = []
        matched = 0
        for some in _portions(self._hub.topics()):
            rows: list[_Row] = [
                (
                    topic.name.decode(),
                    topic.subscribers,
                    topic.messages,
                    round((topic.messages - topic.marked_before) / seconds, 3),
                )
                for topic in some
                if not start or topic.name.startswith(start)
            ]
            matched += len(rows)
            best += rows
            if len(best) > 2 * limit + _AT_ONCE:
                best = _first_channels(best, sort, limit)
            await trio.lowlevel.checkpoint()
        # Who asks sorts them again.
        return {"matched": matched, "rows": best if len(best) <= limit else _first_channels(best, sort, limit)}

    def _client(self, client: Client) -> dict[str, Any]:
        counts = client.statistics()
        last = counts.last_event_at
        return {
            "id": counts.id,
            "node": self.node,
            "transport": client.transport,
            "userId": counts.user_id,
            "connectedAt": timestamp(counts.connected_at),
            "eventCount": counts.events,
            "lastEventTime": None if last is None else timestamp(last),
            "queuedBytes": counts.queued_bytes,
            "backlogBytes": client.outbox.backlog_bytes,
            "channelCount": len(counts.channels),
            "subscribedChannels": list(counts.channels[:_NAMES_MAX]),
            "isAlive": counts.alive,
        }


async def clients_of_all(answers: Sequence[Mapping[str, Any]], sort: str, limit: int) -> dict[str, Any]:
    """What several daemons answered to `Roster.clients`, as one list."""
    everyone = [client for answer in answers for client in answer["clients"]]
    await trio.lowlevel.checkpoint()
    return {
        "total": sum(answer["matched"] for answer in answers),
        "clients": heapq.nlargest(limit, everyone, key=lambda client: (_LISTED[sort](client), client["id"])),
    }


async def channels_of_all(answers: Sequence[Mapping[str, Any]], sort: str, limit: int) -> dict[str, Any]:
    """What several daemons answered to `Roster.channels`, as one list."""
    rows: dict[str, _Row] = {}
    is_whole = True
    for answer in answers:
        is_whole = is_whole and len(answer["rows"]) == answer["matched"]
        for some in _portions(answer["rows"]):
            for name, subscribers, messages, rate in some:
                known = rows.get(name, (name, 0, 0, 0.0))
                rows[name] = (name, known[1] + subscribers, max(known[2], messages), max(known[3], rate))
            await trio.lowlevel.checkpoint()
    first = _first_channels(rows.values(), sort, limit)
    return {
        # Where not all are in the answers, only the largest of them is certain.
        "total": len(rows) if is_whole else max(len(rows), *(answer["matched"] for answer in answers)),
        "channels": [dict(zip(("name", "subscribers", "messages", "rate"), row, strict=True)) for row in first],
    }


def _portions(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[begin : begin + _AT_ONCE] for begin in range(0, len(items), _AT_ONCE))


def _is_on(client: Client, channel: str | None) -> bool:
    return channel is None or channel in client.conversation.channel_names


def _measure(client: Client, sort: str) -> float:
    if sort == "events":
        return client.outbox.events
    if sort == "connected":
        return client.connected_at
    return client.outbox.queued_bytes + client.outbox.backlog_bytes


_LISTED = {
    "queued": lambda client: client["queuedBytes"] + client["backlogBytes"],
    "events": lambda client: client["eventCount"],
    "connected": lambda client: client["connectedAt"],
}


def _first_channels(rows: Iterable[_Row], sort: str, limit: int) -> list[_Row]:
    if sort == "name":
        return heapq.nsmallest(limit, rows)
    # Of equals the names in their order.
    if sort == "subscribers":
        return heapq.nsmallest(limit, rows, key=lambda row: (-row[1], row[0]))
    return heapq.nsmallest(limit, rows, key=lambda row: (-row[3], row[0]))
