"""A term: what comes by plain PUBLISH is recorded under one generation, until some of it may have been missed.

    the lease is ours ─▶ patterns confirmed ─▶ generation begun ─▶ what arrived since they were, and on from there

Laws: a message is recorded once or not at all: no answer, no second try. Messages of a channel are recorded
in the order in which they arrived, and stamped ones are left alone. A term whose subscription broke, or of
whose calls one failed, is over, for good.
Bounds: a call, which holds Redis up, has `_CALL_EVENTS` at most, and no more than one read brought. What is in
flight is the pipeline's to bound: while there is no room nothing is read, and messages wait in Redis, which
ends a subscription of which too many wait (`client-output-buffer-limit pubsub`). `_HEADS_MAX` channels
have their part of a call kept ready.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import structlog
import trio
from attrs import Factory, define, field, frozen

from broker.channel import Channel
from broker.config.sections import Redis
from broker.errors import ChannelError, UpstreamError
from broker.history.keys import Keys
from broker.history.scripts import RECORD
from broker.run import STAMP
from broker.upstream.connection import RedisConnection, kind_of, odd, pack, takes_pushes
from broker.upstream.gathering import Gathering
from broker.upstream.handover import channel_of
from broker.upstream.lease import Lease, refusal_of
from broker.upstream.parting import Parting
from broker.upstream.pipeline import Pipeline
from broker.upstream.refusals import Refusals

_CALL_EVENTS = 200
_HEADS_MAX = 10_000
_EARLY_MESSAGES = 1000
NOT_A_CHANNEL = "not_a_channel"

log = structlog.get_logger(__name__)


@frozen
class Pattern:
    """How messages are recorded that one subscribed pattern brings.

    Args:
        check: says why a payload is refused; given the payload and its largest size.
        position_milliseconds: how long positions are kept; Redis keeps them as long as the events, if that is longer.
        length, milliseconds: how many events of a channel are kept, and how long.
    """

    check: Callable[[bytes, int], str | None]
    position_milliseconds: int
    length: int
    milliseconds: int


@define(eq=False)
class Tally:
    """What became of the messages that were to be recorded, over all terms.

    Args:
        recorded: kept and delivered.
        unkept: delivered only; `unkept_why` is what Redis said last.
        unknown: their call failed or was not answered; some of them may have been recorded.
    """

    recorded: int = 0
    unkept: int = 0
    unkept_why: str | None = None
    unknown: int = 0
    in_flight: int = 0

    def lose(self) -> None:
        """The connection is gone: what is in flight will not be answered."""
        self.unknown += self.in_flight
        self.in_flight = 0


@frozen
class _Head:
    """The parts of a channel's calls that are always the same, before and after the tag."""

    before: bytes
    after: bytes


@define(eq=False)
class Term:
    """One term. `subscribe` first, unless it goes on from another's; `serve` records; `close` ends the connection.

    Args:
        patterns: by the pattern as Redis is given it.
        message_max_bytes: the largest message that is recorded.
        early: what the subscription has brought already.
        hears_recorders: whether the subscription brings what recorders say to each other.
        parting: the hand-over, once there is one.
    """

    _pipeline: Pipeline
    _ear: RedisConnection
    _section: Redis
    _lease: Lease
    _keys: Keys
    _patterns: Mapping[bytes, Pattern]
    _message_max_bytes: int
    _refusals: Refusals
    _tally: Tally
    _early: list[Any] = Factory(list)
    hears_recorders: bool = False
    parting: Parting | None = None
    _heads: dict[bytes, _Head | None] = Factory(dict)
    _failure: UpstreamError | None = None
    _failed: trio.Event = field(init=False, factory=trio.Event)

    @property
    def heard_at(self) -> float:
        """When Redis last sent anything."""
        return self._ear.last_read_at

    @property
    def has_failed(self) -> bool:
        """Whether some of what was sent to be recorded may not have been, as far as it was answered."""
        return self._failure is not None

    async def subscribe(self) -> None:
        """Subscribe, and wait until Redis has confirmed all patterns.

        Raises:
            UpstreamError: the connection is gone, or Redis does not answer.
            UpstreamRefused: Redis does not let us.
        """
        confirmed = 0
        others = channel_of(self._section.channel_prefix).encode()
        with trio.move_on_after(self._section.ping_timeout_seconds):
            await self._ear.write(pack(b"PSUBSCRIBE", *self._patterns) + pack(b"SUBSCRIBE", others))
            while confirmed <= len(self._patterns):
                for reply in await self._ear.read():
                    if isinstance(reply, Exception):
                        if confirmed < len(self._patterns):
                            raise refusal_of(reply)
                        confirmed += 1  # we can record, and not hand over
                    elif (kind := kind_of(reply)) == b"psubscribe":
                        confirmed += 1
                    elif kind == b"subscribe":
                        confirmed += 1
                        self.hears_recorders = True
                    else:
                        self._early.append(reply)
        if confirmed <= len(self._patterns):
            raise UpstreamError(f"Redis did not confirm within {self._section.ping_timeout_seconds:g} s")

    async def serve(self) -> NoReturn:
        """Record. Runs until cancelled.

        Raises:
            UpstreamError: the term is over.
            UpstreamRefused: and Redis does not let us record.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._await_failure)
            nursery.start_soon(self._ear.watch, self._section, self._ping)
            await self._listen()
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the subscription. Answers may still come. Synchronous."""
        self._ear.close()
        if self.parting is not None:
            self.parting.break_off()

    async def _listen(self) -> None:
        gathering = Gathering()
        pause = 0.0
        replies: Sequence[Any] = self._early
        for first in range(0, len(replies), _EARLY_MESSAGES):
            self._take(replies[first : first + _EARLY_MESSAGES])
            await self._pipeline.wait_room()
        replies = self._early = []
        while True:
            if self._take(replies):
                assert self.parting is not None
                self.parting.mark()
                await trio.sleep_forever()  # the rest is the heir's
            await self._pipeline.wait_room()
            read_at = self._ear.last_read_at
            pause = gathering.pause_seconds(len(replies), read_at, trio.current_time())
            if pause:
                await trio.sleep(pause)
            replies = await self._ear.read(rested=bool(pause))

    @takes_pushes
    def _take(self, replies: Sequence[Any]) -> bool:
        """Record what one read brought. The hot path of every message that was not stamped.

        Returns:
            Whether it brought the marker of the hand-over: then what is behind it was left to the heir.
        """
        self._check_going_on()
        is_marked = False
        batch: dict[bytes, list[bytes]] = {}
        patterns: dict[bytes, Pattern] = {}
        most = self._message_max_bytes
        for reply in replies:
            if type(reply) is not list or reply[0] != b"pmessage":
                if isinstance(reply, Exception):
                    raise UpstreamError(f"Redis answered with an error: {reply}")
                if kind_of(reply) == b"message" and self.parting is not None and self.parting.is_marker(reply[2]):
                    is_marked = True
                    break
                continue
            _, subscribed, name, payload = reply
            if payload[:1] == STAMP:
                continue
            pattern = self._patterns.get(subscribed)
            if pattern is None:
                raise odd(reply)
            reason = pattern.check(payload, most)
            if reason is not None:
                self._refusals.add(reason, self._unprefixed(name), payload, self._ear.last_read_at)
            elif name in batch:
                batch[name].append(payload)
            else:
                batch[name] = [payload]
                patterns[name] = pattern
        if not batch:
            return is_marked
        for name, payloads in batch.items():
            head = self._head(name, patterns[name])
            if head is None:
                for payload in payloads:
                    self._refusals.add(NOT_A_CHANNEL, self._unprefixed(name), payload, self._ear.last_read_at)
                continue
            for events in _calls(payloads):
                self._tally.in_flight += len(events)
                self._pipeline.add(_packed(head, events), partial(self._answered, len(events)))
        self._pipeline.flush()
        return is_marked

    def _check_going_on(self) -> None:
        if self._failure is not None:
            raise self._failure
        if trio.current_time() >= self._lease.held_until:
            raise UpstreamError("the lease ran out")

    def _head(self, name: bytes, pattern: Pattern) -> _Head | None:
        """What begins a call for a channel; None where its name is none."""
        if name not in self._heads:
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            self._heads[name] = self._made_head(name, pattern)
        return self._heads[name]

    def _made_head(self, name: bytes, pattern: Pattern) -> _Head | None:
        text = self._unprefixed(name).decode("utf-8", "replace")
        try:
            Channel.from_name(text)
        except ChannelError:
            return None
        keys = (self._keys.lease, self._keys.top(text), self._keys.events(text))
        before: tuple[str | bytes, ...] = ("EVALSHA", RECORD.digest, "3", *keys, self._lease.value, name)
        after = (pattern.position_milliseconds, pattern.length, pattern.milliseconds, self._lease.generation)
        return _Head(_bulks(before), _bulks(map(str, after)))

    def _unprefixed(self, name: bytes) -> bytes:
        return name[len(self._section.channel_prefix.encode()) :]

    def _answered(self, events: int, answer: Any) -> None:
        tally = self._tally
        tally.in_flight -= events
        if type(answer) is not list:
            tally.unknown += events
            if self._failure is None:
                no_lease = UpstreamError("the lease ran out")
                self._failure = refusal_of(answer) if isinstance(answer, Exception) else no_lease
                self._failed.set()
            return
        why = answer[2].decode("utf-8", "replace")
        if not why:
            tally.recorded += events
            return
        tally.unkept += events
        if why != tally.unkept_why:
            log.warning("events are delivered, but Redis does not keep them", why=why)
            tally.unkept_why = why

    async def _await_failure(self) -> NoReturn:
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    async def _ping(self) -> None:
        await self._ear.write(pack(b"PING"))


def _calls(payloads: list[bytes]) -> Iterator[list[bytes]]:
    """`payloads` in order, each part small enough for one call."""
    for first in range(0, len(payloads), _CALL_EVENTS):
        yield payloads[first : first + _CALL_EVENTS]


def _packed(head: _Head, events: Sequence[bytes]) -> bytes:
    """One call of RECORD in RESP."""
    tag = _bulk(b"%d" % random.getrandbits(30))
    return b"".join((b"*%d\r\n" % (13 + len(events)), head.before, tag, head.after, *map(_bulk, events)))


def _bulks(arguments: Iterator[str] | Sequence[str | bytes]) -> bytes:
    return b"".join(_bulk(part if isinstance(part, bytes) else part.encode()) for part in arguments)


def _bulk(argument: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(argument), argument)
