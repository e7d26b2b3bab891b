"""The nodes: what makes this daemon and the others at its Redis one: lease, seats, surveys and rosters, wired and run.

`docs/nodes.md` is what follows for who runs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import trio
from attrs import define, field

from broker import __version__
from broker.census import Census
from broker.clientele import Clientele
from broker.command import Commands
from broker.control import Control
from broker.hub import Hub
from broker.lifecycle import STARTING, Lifecycle
from broker.node import NodeKeys, NodeRecord
from broker.nodes.membership import Membership
from broker.nodes.roster import Roster
from broker.nodes.survey import Survey
from broker.timestamp import timestamp


@define(eq=False)
class Nodes:
    """This daemon among the others.

    Args:
        questions: for what is asked and answered, which may be large.
        is_recorder: whether it records what is published plainly.
    """

    _keys: NodeKeys
    _hub: Hub
    _clientele: Clientele
    _control: Control
    _commands: Commands
    _questions: Commands
    _census: Census
    _lease_seconds: float
    _is_recorder: Callable[[], bool]
    membership: Membership = field(init=False)
    roster: Roster = field(init=False)
    survey: Survey = field(init=False)
    _started_at: str = field(init=False, factory=lambda: timestamp(time.time()))
    _address: str = field(init=False, default="")
    _lifecycle: Lifecycle | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.membership = Membership(
            self._keys, self.describe, self._commands, self._control, self._clientele.seats, self._lease_seconds
        )
        self.roster = Roster(self._hub, self._clientele, self._keys.node)
        self.survey = Survey(
            self.membership,
            self._control,
            self._questions,
            {"stats": self._stats, "clients": self._clients, "channels": self._channels},
        )

    async def serve(
        self, lifecycle: Lifecycle, address: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be one of them. Runs until cancelled; ready when the others know, or cannot be asked.

        Args:
            address: the first that the daemon listens on.
        """
        self._lifecycle, self._address = lifecycle, address
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._clientele.seats.serve)
            nursery.start_soon(self.survey.serve)
            nursery.start_soon(self.roster.keep_marks)
            await nursery.start(self.membership.serve)
            task_status.started()

    async def leave(self) -> None:
        """Be none of them any more: nobody is served here."""
        await self.membership.leave()

    def describe(self) -> NodeRecord:
        """What the node says of itself, now."""
        return NodeRecord(
            __version__,
            self._started_at,
            self._address,
            len(self._clientele),
            self._hub.channel_count(),
            STARTING if self._lifecycle is None else self._lifecycle.state,
            self._is_recorder(),
        )

    async def _stats(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        channels = options.get("channels")
        return self._census.stats(int(options["clients"]), None if channels is None else int(channels))

    async def _clients(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self.roster.clients(
            str(options["sort"]), int(options["limit"]), options.get("user"), options.get("channel")
        )

    async def _channels(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self.roster.channels(str(options["sort"]), int(options["limit"]), str(options["prefix"]))
