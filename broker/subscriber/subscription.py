"""A subscription: connects, subscribes, and comes back, for as long as it is entered.

A connection's reader puts events into a buffer, and its bookmark is moved when the event is in there: what
was still on its way to the buffer when the connection broke is asked for again.

Bounds: 1000 events or 16 Mi characters wait for the consumer; then nothing is read, and the broker keeps what
comes, or ends the connection, as its policy for the channel type is. Leaving takes a second at most.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from os import PathLike
from types import TracebackType
from typing import cast

import trio
from attrs import Factory, define, field
from trio_websocket import ConnectionClosed, WebSocketConnection

from broker.channel import Channel
from broker.errors import ChannelError, SubscriberError
from broker.subscriber.bookmarks import Bookmarks
from broker.subscriber.conversation import (
    SUBPROTOCOL,
    UPSTREAM_UNAVAILABLE,
    Authenticated,
    Conversation,
    Farewell,
    Subscribed,
    Waiting,
)
from broker.subscriber.credential import Credential, NoToken, Token
from broker.subscriber.event import Event
from broker.subscriber.gap import Gap
from broker.subscriber.loss import RETRY_MAX_SECONDS, Loss, leaves
from broker.subscriber.notice import Kind, Notice
from broker.subscriber.statistics import Statistics
from broker.subscriber.target import Target
from broker.subscriber.wire import Wire

BUFFER_EVENTS, BUFFER_CHARACTERS = 1000, 16 * 1024 * 1024
ANSWER_SECONDS = 10.0  # for each of: the token, TCP and TLS, the handshake, the greeting
CLOSE_SECONDS = 1.0
BACKOFF_MIN_SECONDS, BACKOFF_MAX_SECONDS = 0.1, 10.0
RENEWAL_PART = 0.9  # of the time that a token counts: then another one is shown
HELD_SECONDS = 10.0  # a connection that was live for so long starts the backoff anew
_NAMES_SHOWN = 5


def subscribe(
    url: str,
    channels: Iterable[str],
    *,
    since: Mapping[str, str] | None = None,
    user_id: str | None = None,
    token: Token | None = None,
    ca_file: str | PathLike[str] | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    silence_seconds: float = 75.0,
) -> Subscription:
    """Subscribe to channels: enter what is returned, then iterate over it.

    Args:
        url: the broker's: `http://host:port`, or https, ws, wss; `/ws` is added where it lacks.
        channels: names, such as `job_progress:42`. None is needed where there is a token or a user, who has events
            of its own.
        since: for some of the channels the position to go on behind, as `Event.position` or
            `Subscription.positions` had it. The others begin with what is published from now on, and with the
            past events that their type has for newcomers.
        user_id: the user, where the broker has no authentication; with a token, the token says who.
        token: sent to the broker, so only over TLS or on your own machine. A callable, plain or asynchronous, is asked
            anew before each connection, and on a live one before its token is over, which renews it in place.
        ca_file: PEM file of the certificates to trust in place of the system's. `SSL_CERT_FILE` is read too.
        on_notice: called at once, before events that still wait; must not block. What it raises
            ends the subscription, as the cause of a SubscriberError.
        silence_seconds: a connection on which no byte came for so long is made again. The broker
            sends some every 30 s (`websocket.ping_seconds`).

    Raises:
        SubscriberError: a bad URL, channel, token or file, or a position that is no text or for none of the channels.
    """
    if isinstance(channels, str):
        raise SubscriberError(f"channels must be a list of names; write [{channels!r}]")
    names = dict.fromkeys(_name(channel) for channel in channels)
    if not names and token is None and user_id is None:
        raise SubscriberError("no channel to subscribe to; name at least one")
    was = {_name(channel): position for channel, position in (since or {}).items()}
    for name, position in was.items():
        if name not in names:
            raise SubscriberError(f"a position for {name}, which is not subscribed to; name it among the channels")
        if not isinstance(position, str) or not position:
            raise SubscriberError(f"not a position for {name}: {position!r}; take one as the broker gave it")
    target, credential = Target.from_url(url, user_id, ca_file), Credential(token)
    notice = on_notice or (lambda _: None)
    return Subscription(target, credential, tuple(names), Bookmarks.at(was), notice, silence_seconds)


def _name(channel: str) -> str:
    try:
        return Channel.from_name(channel).name
    except ChannelError as error:
        raise SubscriberError(str(error)) from None


@define(eq=False)
class Subscription:
    """Made by `subscribe`; enter it once. Entering returns when every channel is live.

    Raises, on entering and from the `async for`:
        SubscriberError: not reachable at first, refused, or closed with a code that forbids to come back.
    """

    _target: Target
    _credential: Credential
    _channels: tuple[str, ...]
    _bookmarks: Bookmarks
    _on_notice: Callable[[Notice], None]
    _silence_seconds: float
    _nursery: trio.Nursery = field(init=False)
    _opening: AbstractAsyncContextManager[trio.Nursery] = field(init=False)
    _buffer: tuple[trio.MemorySendChannel[Event], trio.MemoryReceiveChannel[Event]] = Factory(
        lambda: trio.open_memory_channel[Event](BUFFER_EVENTS)
    )
    _characters: int = 0
    _room: trio.lowlevel.ParkingLot = Factory(trio.lowlevel.ParkingLot)
    _entered: trio.Event = Factory(trio.Event)
    _end: SubscriberError | None = None
    _reading: trio.CancelScope | None = None
    _leaving: bool = False
    _live_since: float | None = None
    _return_seconds: float | None = None  # as the broker told when it left
    _away_since: float | None = None
    _told: str = ""
    _missed: dict[str, None] = Factory(dict)  # channels on which events may be missing since the loss
    _events: int = 0
    _reconnects: int = 0
    _recovered: int = 0
    _gaps: Counter[str] = Factory(Counter)

    @property
    def positions(self) -> dict[str, str]:
        """Where the consumer is, by channel: what to store, for `since`. Channels without history are not in it.

        Every event up to the position came out of the `async for`, or is in a gap that was told.
        """
        return dict(self._bookmarks.taken)

    def statistics(self) -> Statistics:
        waiting = self._buffer[0].statistics().current_buffer_used
        return Statistics(self._events, waiting, self._reconnects, self._recovered, dict(self._gaps))

    async def __aenter__(self) -> Subscription:
        self._opening = trio.open_nursery()
        self._nursery = await self._opening.__aenter__()
        try:
            self._nursery.start_soon(self._run)
            await self._entered.wait()
            if self._end is not None:
                raise self._end
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._leaving = True
        # Where possible only the reading is cancelled: the close handshake needs trio-websocket's reader.
        (self._reading or self._nursery.cancel_scope).cancel()
        try:
            return await self._opening.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            wrapped, found = group, leaves(group)
        finally:
            self._buffer[1].close()
        # A strict nursery wraps all that passes; what was raised alone comes out alone.
        if found == [error] or (error is not None and not found):
            return False
        raise found[0] if len(found) == 1 else wrapped

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        try:
            event = await self._buffer[1].receive()
        except trio.EndOfChannel:
            assert self._end is not None
            raise self._end from self._end.__cause__
        self._characters -= len(event.raw)
        self._bookmarks.take(event)
        self._events += 1
        self._room.unpark()
        return event

    async def _run(self) -> None:
        """Connect and reconnect until there is a reason not to. Raises nothing of its own."""
        attempt = 0
        while True:
            self._live_since, self._return_seconds = None, None
            error = await self._visit()
            if self._leaving:
                return
            try:
                loss = self._judged(error)
                if self._entered.is_set():
                    self._lost(loss.why)
            except SubscriberError as final:
                self._end = final
                self._entered.set()
                self._buffer[0].close()
                return
            if self._live_since is not None and trio.current_time() - self._live_since >= HELD_SECONDS:
                attempt = 0
            if self._return_seconds is not None:
                # The broker gave each client a time of its own: adding to it would only keep us away longer.
                await trio.sleep(min(self._return_seconds, RETRY_MAX_SECONDS))
                continue
            backoff = random.uniform(0, min(BACKOFF_MAX_SECONDS, BACKOFF_MIN_SECONDS * 2**attempt))
            await trio.sleep(loss.wait_seconds + backoff)
            attempt = min(attempt + 1, 30)

    async def _visit(self) -> Exception | None:
        """One connection, from dialling to its loss. Returns what ended it."""
        errors: list[BaseException] = []
        try:
            token = await self._credential.show(ANSWER_SECONDS)
            with trio.fail_after(ANSWER_SECONDS):
                stream = await self._target.dial()
            try:
                wire = Wire(stream, self._silence_seconds)
                async with trio.open_nursery() as nursery:
                    await self._converse(nursery, wire, token)
                    nursery.cancel_scope.cancel()
            finally:
                await trio.aclose_forcefully(stream)
        except* Exception as group:  # trio-websocket's reader raises what it does not promise to, too
            errors = leaves(group)
        return cast(Exception, min(errors, key=lambda error: not isinstance(error, SubscriberError), default=None))

    async def _converse(self, nursery: trio.Nursery, wire: Wire, token: str | None) -> None:
        with trio.fail_after(ANSWER_SECONDS):
            connection = await self._target.shake_hands(nursery, wire, token)
        wire.is_open = True
        try:
            with trio.CancelScope() as self._reading:
                await self._read(connection, nursery)
        finally:
            self._reading = None
            with trio.move_on_after(CLOSE_SECONDS):  # by itself it waits for the other side for ever
                await connection.aclose()

    async def _read(self, connection: WebSocketConnection, nursery: trio.Nursery) -> None:
        is_v1 = connection.subprotocol == SUBPROTOCOL
        talk = Conversation(self._target.shown, self._channels, dict(self._bookmarks.received), is_v1)
        with trio.fail_after(ANSWER_SECONDS):
            greeted = talk.greet(await connection.get_message())
        self._renew_later(connection, nursery, greeted)
        for request in talk.requests():
            await connection.send_message(request)
        if not talk.awaited:
            self._now_live()
        while True:
            said = talk.receive(await connection.get_message())
            if isinstance(said, Event):
                await self._put(said)
            elif isinstance(said, Subscribed):
                self._begin(talk, said)
            elif isinstance(said, Gap):
                self._bookmarks.pass_over(said)
                self._tell_gap(said)
            elif isinstance(said, Authenticated):
                self._renew_later(connection, nursery, said)
            elif isinstance(said, Farewell):
                self._return_seconds = said.wait_seconds
            elif isinstance(said, Waiting):
                if self._told != UPSTREAM_UNAVAILABLE:
                    self._tell("waiting", said.text)
                self._told = UPSTREAM_UNAVAILABLE

    def _renew_later(self, connection: WebSocketConnection, nursery: trio.Nursery, said: Authenticated) -> None:
        if said.seconds is not None and said.seconds > 0 and self._credential.is_renewable:
            nursery.start_soon(self._renew, connection, said.seconds * RENEWAL_PART)

    async def _renew(self, connection: WebSocketConnection, seconds: float) -> None:
        """Show another token before the connection's is over. Where that fails, the broker ends the connection."""
        await trio.sleep(seconds)
        if self._live_since is None:
            return
        with suppress(NoToken, ConnectionClosed):
            token = await self._credential.show(ANSWER_SECONDS)
            await connection.send_message(json.dumps({"type": "authenticate", "token": token}))

    async def _put(self, event: Event) -> None:
        while self._characters > BUFFER_CHARACTERS:
            await self._room.park()
        await self._buffer[0].send(event)
        self._bookmarks.receive(event)
        self._characters += len(event.raw)

    def _begin(self, talk: Conversation, said: Subscribed) -> None:
        """A channel is live."""
        was = talk.since.get(said.channel)
        if was is not None and talk.is_v1:
            # Where something may be missing the gap that says so follows, and moves the bookmark.
            if not said.recovered:
                self._missed[said.channel] = None
        else:
            self._bookmarks.begin(said.channel, said.position)
            if was is not None or self._entered.is_set():
                self._tell_gap(Gap.without_position(said.channel, was, said.position))
        if not talk.awaited and self._live_since is None:
            self._now_live()

    def _now_live(self) -> None:
        self._live_since = trio.current_time()
        self._credential.accept()
        if self._away_since is not None:
            self._reconnects += 1
            self._recovered += not self._missed
            if self._missed:
                self._tell("reconnected", f"subscribed again; events may be missing on {_shown(list(self._missed))}")
            else:
                self._tell("reconnected", "subscribed again; nothing is missing", recovered=True)
        self._entered.set()
        self._away_since, self._told = None, ""
        self._missed.clear()

    def _judged(self, error: Exception | None) -> Loss:
        """What ended a connection. Raises SubscriberError if it cannot be mended."""
        if isinstance(error, SubscriberError):
            raise error
        loss = Loss.of(error, silence_seconds=self._silence_seconds, was_live=self._live_since is not None)
        if self._entered.is_set():
            words = f"{self._target.shown} does not want this subscriber back: {loss.why}"
        else:
            words = f"cannot subscribe at {self._target.shown}: {loss.why}; {loss.hint}"
        if loss.is_of_token:
            is_expiry = loss.is_expiry and self._entered.is_set()
            if self._credential.is_renewable if is_expiry else self._credential.refuse(words):
                return loss
        if loss.is_final or not self._entered.is_set():
            raise SubscriberError(words) from error
        return loss

    def _lost(self, why: str) -> None:
        """Tell that the connection is lost; while it is, tell each new reason why there is none yet."""
        if self._away_since is None:
            self._tell("disconnected", why)
            self._away_since = trio.current_time()
        elif why != self._told:
            self._tell("waiting", why)
        self._told = why

    def _tell_gap(self, gap: Gap) -> None:
        self._gaps[gap.reason] += 1
        if self._away_since is not None:
            self._missed[gap.channel] = None
        self._tell("gap", str(gap), gap=gap)

    def _tell(self, kind: Kind, text: str, *, gap: Gap | None = None, recovered: bool = False) -> None:
        seconds = 0.0 if self._away_since is None else trio.current_time() - self._away_since
        try:
            self._on_notice(Notice(kind, text, seconds, gap, recovered))
        except Exception as error:
            raise SubscriberError(f"on_notice raised {error!r}") from error


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
