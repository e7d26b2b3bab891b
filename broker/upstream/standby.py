"""Standing by: a recorder that waits hears at once that another leaves, and goes on where that one stops.

Laws: those of the hand-over (`handover.py`). What was held is given on whole and in order, or not at all.
Bounds: `_HELD_BYTES` are held, for no longer than `_LISTEN_SECONDS` after the offer; then it is given up.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import trio
from attrs import Factory, define, field, frozen

from broker.config.sections import Redis
from broker.errors import UpstreamError
from broker.upstream.commands import packed
from broker.upstream.connection import RedisConnection, kind_of, pack
from broker.upstream.handover import FREE, LISTENING, MARKER, OFFER, PASSED, Notice, channel_of, digest_of
from broker.upstream.lease import refusal_of
from broker.upstream.pipeline import Pipeline

_HELD_BYTES = 8 * 1024 * 1024
# As long as who leaves may take for all of it.
_LISTEN_SECONDS = 2.0


@frozen
class Handed:
    """What was handed over: the generation, a subscription that goes on, and what it brought behind the marker."""

    generation: int
    ear: RedisConnection
    replies: list[Any]


@define(eq=False)
class _Held:
    """What one hand-over brought so far.

    Args:
        is_over: it is not for us, or came to nothing.
        offer: the next one's token, behind that.
    """

    confirmed: int = 0
    is_marked: bool = False
    is_over: bool = False
    offer: str | None = None
    generation: int | None = None
    replies: list[Any] = Factory(list)
    size: int = 0


@define(eq=False)
class Standby:
    """The subscription of a recorder that waits. `close` it, unless it was handed on.

    Args:
        patterns: what is recorded, as Redis is given it.
        who: our name in the lease.
    """

    _section: Redis
    _patterns: Collection[bytes]
    _who: str
    _ear: RedisConnection
    _channel: str = field(init=False)
    _offer: str | None = field(init=False, default=None)  # not answered yet

    def __attrs_post_init__(self) -> None:
        self._channel = channel_of(self._section.channel_prefix)

    @classmethod
    async def open(cls, section: Redis, patterns: Collection[bytes], who: str) -> Standby:
        """Subscribed to what recorders say.

        Raises:
            UpstreamError: Redis is away.
            UpstreamRefused: Redis does not let us.
        """
        ear = await RedisConnection.open(section)
        try:
            with trio.fail_after(section.ping_timeout_seconds):
                await ear.write(packed(("SUBSCRIBE", channel_of(section.channel_prefix))))
                # It comes first; an offer behind it in the same read is left alone, as if it came earlier.
                while not (reply := (await ear.read())[:1]):
                    pass
        except trio.TooSlowError as error:
            ear.close()
            raise UpstreamError(f"Redis did not confirm within {section.ping_timeout_seconds:g} s") from error
        except BaseException:
            ear.close()
            raise
        if isinstance(reply[0], Exception):
            ear.close()
            raise refusal_of(reply[0])
        return cls(section, patterns, who, ear)

    def close(self) -> None:
        """Synchronous."""
        self._ear.close()

    async def look_after(self) -> None:
        """Have Redis say something now and then: who forgets quiet connections should not forget this one.

        Raises:
            UpstreamError: it says nothing any more.
        """
        quiet = trio.current_time() - self._ear.last_read_at
        if quiet >= self._section.ping_seconds:
            if quiet >= self._section.ping_seconds + self._section.ping_timeout_seconds and not self._ear.has_unread():
                raise UpstreamError(f"Redis did not answer PING within {self._section.ping_timeout_seconds:g} s")
            await self._ear.write(pack(b"PING"))

    async def next_offer(self) -> str | None:
        """Wait until a recorder leaves that records the same. Returns its token; None where the lease is free.

        Raises:
            UpstreamError: the connection is gone.
        """
        token, self._offer = self._offer, None
        if token is not None:
            return token
        while True:
            is_free = False
            for reply in await self._ear.read():
                notice = self._notice(reply)
                if notice is None:
                    continue
                if notice.verb == OFFER and self._is_ours(notice):
                    token = notice.token
                elif notice.verb in (MARKER, FREE):
                    is_free = is_free or notice.verb == FREE
                    token = None if notice.token == token else token  # another was quicker, or it is over
            if token is not None or is_free:
                return token

    async def listen(self, token: str, pipeline: Pipeline) -> Handed | None:
        """Say that we listen, and wait until it is ours; None where it was not handed over to us.

        Raises:
            UpstreamError: nor was it, and this subscription is of no use any more.
        """
        held = _Held()
        with trio.move_on_after(_LISTEN_SECONDS):
            await self._ear.write(pack(b"PSUBSCRIBE", *self._patterns))
            while held.generation is None:
                for reply in await self._ear.read():
                    self._take(reply, token, held, pipeline)
                if held.is_over and held.confirmed == len(self._patterns):
                    # The next one may leave at once: so it is not closed and opened again. Where Redis does not let us,
                    # that shows in what is read next.
                    await self._ear.write(pack(b"PUNSUBSCRIBE"))
                    self._offer = held.offer
                    return None
        if held.generation is None:
            raise UpstreamError(f"the lease was not handed over within {_LISTEN_SECONDS:g} s")
        return Handed(held.generation, self._ear, held.replies)

    def _take(self, reply: Any, token: str, held: _Held, pipeline: Pipeline) -> None:
        if isinstance(reply, Exception):
            raise refusal_of(reply)
        kind = kind_of(reply)
        if kind == b"pmessage":
            # What came before the marker is recorded by who leaves.
            if held.is_marked:
                held.replies.append(reply)
                held.size += len(reply[2]) + len(reply[3])
                if held.size > _HELD_BYTES:
                    raise UpstreamError("too much came before the lease was handed over")
        elif kind == b"psubscribe":
            held.confirmed += 1
            if held.confirmed == len(self._patterns) and not held.is_over:
                said = Notice(LISTENING, token, self._who)
                pipeline.add(packed(("PUBLISH", self._channel, str(said))), _ignore)
                pipeline.flush()
        elif (notice := self._notice(reply)) is None:
            pass
        elif notice.token != token:
            if held.is_over and notice.verb == OFFER and self._is_ours(notice):
                held.offer = notice.token
        elif notice.verb == MARKER and notice.about == self._who:
            held.is_marked = True
        elif notice.verb == PASSED and held.is_marked and notice.is_number:
            held.generation = int(notice.about)
        elif notice.verb in (MARKER, FREE):
            held.is_over = True  # another was quicker, or who leaves gave it up

    def _is_ours(self, notice: Notice) -> bool:
        """Whether who offers records what we record."""
        return notice.about == digest_of(self._patterns)

    def _notice(self, reply: Any) -> Notice | None:
        if isinstance(reply, Exception):
            raise UpstreamError(f"Redis answered with an error: {reply}")
        return Notice.parse(reply[2]) if kind_of(reply) == b"message" else None


def _ignore(answer: Any) -> None:
    pass
