"""The membership: this daemon's lease among those that share its Redis, and who else has one.

Every second a script renews the lease, writes down what the node says of itself, takes out whose time is over, and
answers who is there. Whoever comes says so on the control channel, so that the others see it at once, and waits a
moment for them to tell the seats of their users.

Laws: times are Redis' own clock; a node that says nothing for `daemon.node_lease_seconds` is gone, with its seats.
While Redis is away nobody is known, and this daemon acts as if it were alone. A Redis that has forgotten everything is
told everything anew with the next renewal.
Bounds: one call every `_RENEW_SECONDS`, or thrice in the time of a shorter lease, and one for each node that comes, at
most one in `_PAUSE_SECONDS`.

Source: Redis commands ZADD, ZRANGEBYSCORE, PEXPIRE, TIME.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
import trio
from attrs import define, field

from broker.command import Argument, Commands, Script
from broker.control import CONTROL_CHANNEL, Control
from broker.errors import UpstreamError, UpstreamRefused
from broker.node import NodeKeys, NodeRecord
from broker.seats import TOLD, Seats

HELLO = "hello"

_RENEW_SECONDS = 1.0
# So long Redis may take to answer, or half a lease where that is longer; the first answer is not waited for so long.
_ANSWER_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
# So long who comes waits for the others to tell their seats.
_HELLO_SECONDS = 1.0
_LEAVE_SECONDS = 0.5
# A full Redis must not make it look as if nobody was there. Redis before 7 does not know how to be asked for it.
_FULL = "#!lua flags=allow-oom\n"

log = structlog.get_logger(__name__)

# KEYS: the nodes, their records, the seats of this one. ARGV: this node, lease ms, its record, what the keys of seats
# begin with, the field that says that all seats are told. Returns whether its own seats are all told, and then for each
# other node its id and whether its seats are.
RENEW = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
    redis.call('ZREM', KEYS[1], node)
    if node ~= ARGV[1] then
        redis.call('HDEL', KEYS[2], node)
        redis.call('DEL', ARGV[4] .. node)
    end
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
-- What a killed node leaves is gone one day, also where none comes after it.
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
redis.call('PEXPIRE', KEYS[2], 10 * ARGV[2])
-- Where nobody else is there, nobody asks for its seats.
if redis.call('ZCARD', KEYS[1]) == 1 then redis.call('DEL', KEYS[3]) end
local answer = {redis.call('HEXISTS', KEYS[3], ARGV[5])}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if node ~= ARGV[1] then
        answer[#answer + 1] = node
        answer[#answer + 1] = redis.call('HEXISTS', ARGV[4] .. node, ARGV[5])
    end
end
return answer
"""
)
_RENEW_FULL = Script(_FULL + RENEW.text)

# KEYS: the nodes, their records, the seats of this one. ARGV: this node.
LEAVE = Script(
    """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[3])
"""
)


@define(eq=False)
class Membership:
    """This node's lease, and the others.

    Args:
        describe: what the node says of itself, now.
        lease_seconds: `daemon.node_lease_seconds`.
    """

    keys: NodeKeys
    describe: Callable[[], NodeRecord]
    _commands: Commands
    _control: Control
    _seats: Seats
    _lease_seconds: float
    # Whoever else has a lease, as of the last renewal; empty while Redis is away.
    others: frozenset[str] = field(init=False, default=frozenset())
    # Why nobody is known; None where it is known who is there.
    why_alone: str | None = field(init=False, default="not asked yet")
    renewals: int = field(init=False, default=0)
    _known: frozenset[str] = field(init=False, default=frozenset())  # when Redis was there last
    _due: trio.Event = field(init=False, factory=trio.Event)
    _has_left: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._control.orders[HELLO] = self._greeted

    @property
    def node(self) -> str:
        return self.keys.node

    @property
    def known(self) -> frozenset[str]:
        """Whoever else there was when Redis was there last."""
        return self._known

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the lease. Runs until cancelled; ready after the first try, and when who is there knows of it."""
        await self._renew(is_first=True)
        if self.others:
            with trio.move_on_after(_HELLO_SECONDS):
                await self._introduce()
        task_status.started()
        while True:
            with trio.move_on_after(min(_RENEW_SECONDS, self._lease_seconds / 3)):
                await self._due.wait()
            self._due = trio.Event()
            if self._has_left:
                return
            await self._renew()
            await trio.sleep(_PAUSE_SECONDS)

    async def leave(self) -> None:
        """Take the lease back, once nobody is served any more. Waits for Redis for a moment at most."""
        self._has_left = True
        self._due.set()
        self._seats.keep()
        keys = self.keys
        with trio.move_on_after(_LEAVE_SECONDS):
            try:
                await self._commands.run(LEAVE, (keys.nodes, keys.records, keys.users), keys.node)
            except UpstreamError as error:
                log.info("the lease of this node runs out by itself", why=str(error))

    async def _introduce(self) -> None:
        """Have the others look who is there, and wait until their seats are told."""
        await self._say_hello()
        are_told = False
        while not are_told:
            await trio.sleep(_PAUSE_SECONDS)
            are_told = await self._renew()

    async def _say_hello(self) -> None:
        order = msgspec.json.encode({"do": HELLO, "node": self.node})
        try:
            await self._commands.execute(("PUBLISH", self.keys.prefix + CONTROL_CHANNEL, order))
        except UpstreamError:
            pass  # then they see it with their next renewal

    def _greeted(self, message: bytes) -> None:
        """Another node has come. Synchronous."""
        self._due.set()

    async def _renew(self, *, is_first: bool = False) -> bool:
        """Renew, and see who is there. Returns whether nobody's seats are missing."""
        record = msgspec.json.encode(self.describe())
        seconds = _ANSWER_SECONDS if is_first else max(_ANSWER_SECONDS, self._lease_seconds / 2)
        try:
            with trio.move_on_after(seconds) as patience:
                answer = await self._ask(RENEW, record)
        except UpstreamError as error:
            self._lose(str(error))
            return True
        if patience.cancelled_caught:
            self._lose(f"Redis did not answer within {seconds:g} s")
            return True
        if self._has_left:
            return True
        return self._see(answer)

    async def _ask(self, script: Script, record: bytes) -> Any:
        keys = self.keys
        arguments: tuple[Argument, ...] = (
            keys.node,
            round(self._lease_seconds * 1000),
            record,
            keys.users_of_all,
            TOLD,
        )
        try:
            return await self._commands.run(script, (keys.nodes, keys.records, keys.users), *arguments)
        except UpstreamRefused:
            raise
        except UpstreamError as error:
            if "OOM" not in str(error) or script is _RENEW_FULL:
                raise
            return await self._ask(_RENEW_FULL, record)

    def _see(self, answer: Sequence[Any]) -> bool:
        """Who is there, and whether all have told their seats."""
        self.renewals += 1
        nodes = [node.decode(errors="replace") for node in answer[1::2]]
        others = frozenset(nodes)
        if self.why_alone is not None or others != self.others:
            log.info("nodes at this Redis", node=self.node, others=sorted(others))
        self.others = self._known = others
        self.why_alone = None
        seats = self._seats
        if not others:
            if seats.is_shared:
                seats.keep()
        elif not seats.is_shared or (not answer[0] and not seats.is_telling):
            # Another node came, or Redis is back, or it has forgotten what it was told.
            seats.share()
        return all(answer[2::2])

    def _lose(self, why: str) -> None:
        if why != self.why_alone:
            log.warning("it is not known which other nodes are there", why=why)
        self.why_alone = why
        self.others = frozenset()
        self._seats.keep()
