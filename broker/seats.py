"""Seats: how many connections and streams each user with a token has, here and at all nodes together.

While this daemon is alone, or Redis is away, the counts here decide, and nothing is asked. With other nodes each
seat is asked for in Redis, in one script: it takes what this node counts as said with the question, adds what the
others told, and has the sum either in bounds and written down, or refused. Who left is told at once, many users in one
write where many leave. Who comes back may be faster than that news, so a refusal that follows from what others told
is asked about again before it counts.

Laws: what Redis has of a node is never less than the seats taken there, as far as commands arrive in their order: every
write is the whole count of a user, with the seats that are being asked for. It may be more for a moment, after a
refusal. A seat that is taken is given back once. What was decided without Redis stands: nobody is asked to leave.
Bounds: `_AGAIN_SECONDS` until a refusal counts; `_ANSWER_SECONDS` for each question, then the counts here decide;
`_USERS_AT_ONCE` in a write; in Redis the counts of a node go with its lease.

Synchronous, but for `take` and `serve`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import structlog
import trio
from attrs import define, field

from broker.command import Argument, Commands, Script
from broker.config.access import Limits
from broker.errors import UpstreamError
from broker.node import NodeKeys

CONNECTIONS_PER_USER = "connections_per_user"
STREAMS_PER_USER = "streams_per_user"

_STREAM = "sse"
_TELL_SECONDS = 0.01
_AGAIN_SECONDS = (0.1, 0.3)
_ANSWER_SECONDS = 1.0
_USERS_AT_ONCE = 500
# A field that is no user: those begin with `u`.
TOLD = "told"
_BEGUN = "begun"

log = structlog.get_logger(__name__)

# KEYS: the nodes, the counts of this one. ARGV: what the keys of counts begin with, this node, the user's field, the
# connections and streams that it counts here without this one, 1 for a stream, most connections, most streams (0: no
# bound). Returns 0 for a seat, 1 for too many connections, 2 for too many streams.
TAKE = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local connections, streams = tonumber(ARGV[4]), tonumber(ARGV[5])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
    if node ~= ARGV[2] then
        local told = redis.call('HGET', ARGV[1] .. node, ARGV[3])
        if told then
            local c, s = string.match(told, '^(%d+) (%d+)$')
            connections, streams = connections + (c or 0), streams + (s or 0)
        end
    end
end
local most_connections, most_streams = tonumber(ARGV[7]), tonumber(ARGV[8])
if most_connections > 0 and connections >= most_connections then return 1 end
if ARGV[6] == '1' and most_streams > 0 and streams >= most_streams then return 2 end
redis.call('HSET', KEYS[2], ARGV[3], (ARGV[4] + 1) .. ' ' .. (ARGV[5] + ARGV[6]))
return 0
"""
)
_REFUSED = {1: CONNECTIONS_PER_USER, 2: STREAMS_PER_USER}


@define(eq=False)
class Seat:
    """One connection of one user, until `leave`."""

    _seats: Seats | None
    _user: str
    _is_stream: bool

    def leave(self) -> None:
        """Give it back. Once is enough."""
        seats, self._seats = self._seats, None
        if seats is not None:
            seats.leave(self._user, self._is_stream)


NO_SEAT = Seat(None, "", False)
"""Of who counts for no user."""


@define(eq=False)
class Seats:
    """The seats of all users.

    Args:
        commands, keys: None: there are no other nodes, ever.
        lease_seconds: `daemon.node_lease_seconds`.
    """

    _limits: Limits
    _commands: Commands | None = None
    _keys: NodeKeys | None = None
    _lease_seconds: float = 5.0
    limits_hit: Counter[str] = field(init=False, factory=Counter)
    _connections: dict[str, int] = field(init=False, factory=dict)
    _streams: dict[str, int] = field(init=False, factory=dict)
    _is_shared: bool = field(init=False, default=False)
    _dirty: dict[str, None] = field(init=False, factory=dict)  # users whose count in Redis is not what it is here
    _must_begin: bool = field(init=False, default=False)  # what Redis has of us counts for nothing
    is_telling: bool = field(init=False, default=False)  # all that is here is being told
    _due: trio.Event = field(init=False, factory=trio.Event)
    _nursery: trio.Nursery | None = field(init=False, default=None)
    _complaint: str = field(init=False, default="")

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit. Seats are counted all the same: there may be one later."""
        return bool(self._limits.connections_per_user or self._limits.streams_per_user)

    @property
    def is_shared(self) -> bool:
        """Whether a seat is asked for in Redis."""
        return self._is_shared

    def take_here(self, user: str, transport: str) -> Seat | str:
        """A seat by what is counted here, or the limit that it would break, by the name of its setting."""
        is_stream = transport == _STREAM
        found = self.reached_here(user, is_stream)
        if found is not None:
            self.limits_hit[found] += 1
            return found
        self._add(user, is_stream)
        return Seat(self, user, is_stream)

    def adapt(self, limits: Limits) -> None:
        """Go by other limits from here on, for who comes."""
        self._limits = limits

    async def take(self, user: str, transport: str) -> Seat | str:
        """As `take_here`, by what all nodes count, where that is to be known."""
        seat = self.take_here(user, transport)
        if isinstance(seat, str) or not self._is_shared:
            return seat
        if not self.is_limited:
            self._note(user)  # others may have limits, and this one too, later
            return seat
        is_granted = False
        try:
            limit = await self._ask(user, transport == _STREAM)
            for pause in _AGAIN_SECONDS:
                if limit is not None:
                    await trio.sleep(pause)
                    limit = await self._ask(user, transport == _STREAM)
            if limit is not None:
                self.limits_hit[limit] += 1
                return limit
            is_granted = True
            return seat
        finally:
            if not is_granted:
                seat.leave()

    def take_soon(self, user: str, transport: str, told: Callable[[Seat | str], None]) -> None:
        """As `take`. `told` is called at once where nothing is to be asked, else later; the seat is then its own."""
        if not self._is_shared or self._nursery is None:
            told(self.take_here(user, transport))
        else:
            self._nursery.start_soon(self._take_for, user, transport, told)

    def reached_here(self, user: str, is_stream: bool) -> str | None:
        """The limit that one more client of this user would break by what is counted here; None for none."""
        limits = self._limits
        if limits.connections_per_user and self._connections.get(user, 0) >= limits.connections_per_user:
            return CONNECTIONS_PER_USER
        if is_stream and limits.streams_per_user and self._streams.get(user, 0) >= limits.streams_per_user:
            return STREAMS_PER_USER
        return None

    def leave(self, user: str, is_stream: bool) -> None:
        """A seat is given back."""
        for counts in (self._connections, self._streams) if is_stream else (self._connections,):
            left = counts.pop(user, 0) - 1
            if left > 0:
                counts[user] = left
        if self._is_shared:
            self._note(user)

    def share(self) -> None:
        """There are other nodes, and Redis: tell them everything, also what was told before."""
        self._is_shared = True
        self._must_begin = self.is_telling = True
        self._due.set()

    def keep(self) -> None:
        """Redis is away, or nobody else is there: what is counted here decides."""
        self._is_shared = self.is_telling = False
        self._dirty.clear()

    def statistics(self) -> Mapping[str, int]:
        """How many users have how many seats here."""
        return {"users": len(self._connections), "seats": sum(self._connections.values())}

    async def serve(self) -> None:
        """Tell who left. Runs until cancelled."""
        async with trio.open_nursery() as self._nursery:
            while True:
                await self._due.wait()
                self._due = trio.Event()
                if self._is_shared:
                    try:
                        await self._tell()
                    except UpstreamError as error:
                        self._give_up(error)
                await trio.sleep(_TELL_SECONDS)

    async def _tell(self) -> None:
        """Write down what is not as Redis has it.

        Raises:
            UpstreamError: Redis is away, or refused.
        """
        assert self._commands is not None
        assert self._keys is not None
        key = self._keys.users
        if self._must_begin:
            self._must_begin = False
            self._dirty = dict.fromkeys(self._connections)
            # As the digest is known from here on, seats are asked for in the order of their asking.
            _, *replies = await self._commands.execute(
                ("SCRIPT", "LOAD", TAKE.text), ("DEL", key), *self._writes(key), ("HSET", key, _BEGUN, "1")
            )
            _check(replies)
            while self._dirty and self._is_shared and not self._must_begin:
                _check(await self._commands.execute(*self._writes(key)))
            if self._is_shared and not self._must_begin:
                lease = round(self._lease_seconds * 1000)
                _check(await self._commands.execute(("HSET", key, TOLD, "1"), ("PEXPIRE", key, lease)))
                self.is_telling = self._must_begin
        while self._dirty and self._is_shared and not self._must_begin:
            _check(await self._commands.execute(*self._writes(key)))

    def _writes(self, key: str) -> Iterator[tuple[Argument, ...]]:
        """What to write of some users that are not as Redis has them."""
        users = list(islice(self._dirty, _USERS_AT_ONCE))
        here: list[Argument] = []
        gone: list[Argument] = []
        for user in users:
            del self._dirty[user]
            connections = self._connections.get(user, 0)
            if connections:
                here += (_field(user), f"{connections} {self._streams.get(user, 0)}")
            else:
                gone.append(_field(user))
        if here:
            yield ("HSET", key, *here)
        if gone:
            yield ("HDEL", key, *gone)

    def _give_up(self, error: UpstreamError) -> None:
        """What is counted here decides, until the lease is renewed: then everything is told anew."""
        self.keep()
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("limits of users hold on this daemon alone", why=str(error))

    async def _ask(self, user: str, is_stream: bool) -> str | None:
        """The limit that is reached over all nodes; None for none. The seat is counted here already."""
        assert self._commands is not None
        assert self._keys is not None
        keys, limits = self._keys, self._limits
        connections, streams = self._connections[user] - 1, self._streams.get(user, 0) - is_stream
        try:
            with trio.move_on_after(_ANSWER_SECONDS):
                answer = await self._commands.run(
                    TAKE,
                    (keys.nodes, keys.users),
                    keys.users_of_all,
                    keys.node,
                    _field(user),
                    connections,
                    streams,
                    int(is_stream),
                    limits.connections_per_user,
                    limits.streams_per_user,
                )
                if not isinstance(answer, int):
                    raise UpstreamError(f"Redis answered {type(answer).__name__} where a number was due")
                return _REFUSED.get(answer)
        except UpstreamError as error:
            self._give_up(error)
            return None
        self._give_up(UpstreamError(f"Redis did not answer within {_ANSWER_SECONDS:g} s"))
        return None

    def _note(self, user: str) -> None:
        """Redis has another count of the user than is here."""
        self._dirty[user] = None
        self._due.set()

    def _add(self, user: str, is_stream: bool) -> None:
        self._connections[user] = self._connections.get(user, 0) + 1
        if is_stream:
            self._streams[user] = self._streams.get(user, 0) + 1

    async def _take_for(self, user: str, transport: str, told: Callable[[Seat | str], None]) -> None:
        found = await self.take(user, transport)
        try:
            told(found)
        except Exception:
            log.exception("a seat was given, and its client failed")
            if isinstance(found, Seat):
                found.leave()


def _field(user: str) -> str:
    return "u" + user


def _check(replies: Sequence[object]) -> None:
    """
    Raises:
        UpstreamError: one is an error.
    """
    for reply in replies:
        if isinstance(reply, Exception):
            raise UpstreamError(f"Redis refused it: {reply}")
