"""Control: what one daemon asks of all of them, over Redis: end these clients, forget those tokens, tell that user.

    <prefix>broker:control      {"do": "disconnect", "user" | "client" | "channel": ...}
                                {"do": "revoke", "member": ..., "until": ...}
                                and what `orders` names
    <prefix>broker:users        {"user": ..., "event": {...}}
    <prefix>broker:revocations  a sorted set: each revocation with the second until which it holds

The first two are Redis channels that every daemon listens to, beside those of its clients; their type is the
daemons' own, and no client may use it. A revocation is in the sorted set before it is told, and a daemon reads the
set when it starts, whenever Redis was away, and now and then.

Laws: while Redis is away, what is known to be revoked is. A disconnect, or an event for a user, that is published
while a daemon has no Redis does not reach its clients.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
import trio
from attrs import Factory, define, field

from broker.auth.revocation import Revocation
from broker.client import Client
from broker.clientele import Clientele
from broker.command import Commands
from broker.ending import DISCONNECTED, REVOKED
from broker.errors import UpstreamError
from broker.gate import Gate
from broker.hub import Hub
from broker.position import Start
from broker.submission import USERS_CHANNEL
from broker.wireformat import WireFormat

CONTROL_CHANNEL = "broker:control"
REVOCATIONS_KEY = "broker:revocations"
TARGETS = ("user", "client", "channel")

_LOOK_SECONDS = 0.5
_RELOAD_SECONDS = 30.0
_AT_ONCE = 1000
# So long the daemon waits at its start to know what is revoked; then, without Redis, nothing is.
_FIRST_SECONDS = 1.0
# JSON holds no NUL, so it parts the messages of a batch.
_PARTED = WireFormat(
    "control",
    lambda payloads, name: b"\0".join(payloads),
    lambda name, run: b"\0".join(run.payloads),
    lambda name, gap: b"",
)

log = structlog.get_logger(__name__)


class _Order(msgspec.Struct):
    do: str
    user: str | None = None
    client: str | None = None
    channel: str | None = None
    member: str | None = None
    until: float = 0.0


class _UserEvent(msgspec.Struct):
    user: str
    event: msgspec.Raw


_decode_order = msgspec.json.Decoder(_Order).decode
_decode_user_event = msgspec.json.Decoder(_UserEvent).decode


@define(eq=False)
class Ear:
    """A subscriber of the hub that hands each message to a function. It has no client and no socket."""

    _heard: Callable[[bytes], None]
    outlet: Ear = field(init=False)
    backlog_bytes: int = 0

    def __attrs_post_init__(self) -> None:
        self.outlet = self

    def deliver(self, data: bytes, events: int, now: float) -> None:
        for message in data.split(b"\0"):
            if message:
                try:
                    self._heard(message)
                except Exception:
                    # What one says must not take the link along.
                    log.exception("what a daemon said could not be followed")

    def offer(self, data: bytes, events: int, now: float, most: int) -> bool:
        self.deliver(data, events, now)
        return True

    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        """Redis listens."""

    def refused(self, name: bytes, why: str) -> None:
        log.warning("Redis does not let daemons listen to each other", channel=name.decode(), why=why)

    def stream_ended(self, name: bytes) -> None:
        """It has no end."""

    def failed(self) -> None:
        """It listens on."""


@define(eq=False)
class Control:
    """Says to all daemons what the admin calls ask for, and does what any of them says.

    Args:
        hearing: what changes whenever Redis goes and when it is back, so that something may have been missed.
        clock: seconds since 1970.
        orders: who else does what daemons say on the control channel, by `do`. Synchronous.
        ears: who hears what is said on other channels of the daemons, by name. Synchronous.
    """

    _hub: Hub
    _clientele: Clientele
    _gate: Gate
    _commands: Commands
    _prefix: str
    revocation_seconds: float
    _hearing: Callable[[], object]
    clock: Callable[[], float] = time.time
    orders: dict[str, Callable[[bytes], None]] = Factory(dict)
    ears: dict[str, Callable[[bytes], None]] = Factory(dict)
    _counts: Counter[str] = Factory(Counter)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, and read what is revoked. Runs until cancelled; ready after the first attempt to read."""
        for name, heard in {CONTROL_CHANNEL: self._ordered, USERS_CHANNEL: self._told, **self.ears}.items():
            self._hub.join(Ear(heard), (name.encode(),), _PARTED, {}, trio.current_time())
        known: object = None
        read_at = float("-inf")
        first = True
        while True:
            now = trio.current_time()
            if known != self._hearing() or now - read_at >= _RELOAD_SECONDS:
                before = self._hearing()
                with trio.move_on_after(_FIRST_SECONDS if first else float("inf")):
                    if await self._reload():
                        known, read_at = before, now
            if first:
                first = False
                task_status.started()
            await trio.sleep(_LOOK_SECONDS)

    async def disconnect(self, target: str, name: str) -> int:
        """Have every daemon end the clients of a user, one client, or those on a channel.

        Args:
            target: one of `TARGETS`.

        Returns:
            how many daemons were told.

        Raises:
            UpstreamError: Redis is away or refused.
        """
        (reply,) = await self._commands.execute(("PUBLISH", self._channel, _order(do="disconnect", **{target: name})))
        return _count(reply)

    async def revoke(self, kind: str, id: str, seconds: float | None) -> int:
        """Have every daemon take a token, or all tokens of a user made by now, for no good.

        Args:
            kind: `TOKEN` or `SUBJECT` of `revocation`.
            seconds: for how long; None for `auth.revocation_seconds`.

        Returns:
            how many daemons were told.

        Raises:
            UpstreamError: Redis is away or refused; it holds on this daemon all the same.
        """
        now = self.clock()
        revocation = Revocation(kind, id, now, now + (self.revocation_seconds if seconds is None else seconds))
        self._revoke(revocation)
        member, until = revocation.member, revocation.until
        replies = await self._commands.execute(
            ("ZADD", self._key, repr(until), member),
            ("ZREMRANGEBYSCORE", self._key, "-inf", repr(now)),
            ("PUBLISH", self._channel, _order(do="revoke", member=member, until=until)),
        )
        _count(replies[0])
        return _count(replies[2])

    def statistics(self) -> Mapping[str, Any]:
        """Since the start, on this daemon: clients disconnected and revoked, events for users and their deliveries."""
        return {name: self._counts[name] for name in ("disconnected", "revoked", "userEvents", "userDeliveries", "bad")}

    @property
    def _channel(self) -> str:
        return self._prefix + CONTROL_CHANNEL

    @property
    def _key(self) -> str:
        return self._prefix + REVOCATIONS_KEY

    async def _reload(self) -> bool:
        """Read what is revoked. Returns whether Redis said."""
        now = self.clock()
        try:
            (found,) = await self._commands.execute(("ZRANGEBYSCORE", self._key, f"({now!r}", "+inf", "WITHSCORES"))
        except UpstreamError:
            return False
        if isinstance(found, Exception):
            log.warning("Redis does not say which tokens are revoked", why=str(found))
            return True
        news = 0
        for index, (member, until) in enumerate(zip(found[::2], found[1::2], strict=True)):
            try:
                news += self._gate.revocations.add(Revocation.from_member(member.decode(), float(until)), now)
            except ValueError as error:
                log.warning("a revocation in Redis is not understood", why=str(error))
            if index % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        if news:
            self._end_revoked()
        return True

    def _ordered(self, message: bytes) -> None:
        try:
            order = _decode_order(message)
            if order.do == "revoke" and order.member is not None:
                self._revoke(Revocation.from_member(order.member, order.until))
            elif order.do == "disconnect":
                self._disconnect(order)
            elif order.do in self.orders:
                self.orders[order.do](message)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._counts["bad"] += 1
            log.warning("an order in Redis is not understood", why=str(error)[:200])

    def _disconnect(self, order: _Order) -> None:
        found: list[Client] = []
        if order.user is not None:
            found += self._clientele.of_user(order.user)
        if order.client is not None and (client := self._clientele.of_id(order.client)) is not None:
            found.append(client)
        if order.channel is not None:
            name = order.channel
            found += (each for each in self._clientele.everyone() if name in each.conversation.channel_names)
        for each in found:
            each.end(DISCONNECTED)
        self._counts["disconnected"] += len(found)

    def _revoke(self, revocation: Revocation) -> None:
        if self._gate.revocations.add(revocation, self.clock()):
            self._end_revoked()

    def _end_revoked(self) -> None:
        now = self.clock()
        for client in self._clientele.everyone():
            if client.ending is None and self._gate.revocations.holds(client.identity, now):
                client.end(REVOKED)
                self._counts["revoked"] += 1

    def _told(self, message: bytes) -> None:
        try:
            told = _decode_user_event(message)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._counts["bad"] += 1
            log.warning("an event for a user is not understood", why=str(error)[:200])
            return
        event = bytes(told.event)
        self._counts["userEvents"] += 1
        for client in self._clientele.of_user(told.user):
            if client.ending is None:
                client.conversation.tell(event)
                self._counts["userDeliveries"] += 1


def _order(**order: object) -> bytes:
    return msgspec.json.encode(order)


def _count(reply: object) -> int:
    if isinstance(reply, Exception):
        raise UpstreamError(f"Redis refused it: {reply}")
    assert isinstance(reply, int)
    return reply
