"""The subscriber: a broker's events in Python, over WebSocket, for as long as you like.

    async with subscribe("http://127.0.0.1:8000", ["job_progress:42"]) as events:
        async for event in events:
            print(event.type, event.data)

Laws: events come in the order in which the broker sent them. A lost connection is made again, for
ever; what was published meanwhile is lost, and `on_notice` is told so. What a reconnect cannot mend
is raised as a SubscriberError, in no group, by entering or by the `async for` after its last event.
Bounds: 1000 events or 16 Mi characters wait for the consumer; then nothing is read, and the broker
may end the connection with 4001 or 4002. Leaving takes a second at most.

Events have no envelope, so the broker's own messages are told apart by place and shape:

    connected     the first message of a connection, before anything is subscribed
    subscribed    `success` true, and the `name` of one of our channels
    error         a `code` of the session's while an answer is awaited; `upstream_refused` at any time
    heartbeat     `serverTime` equal to `timestamp`
    disconnected  the farewell to the letter: only `message` "Server shutting down" and `timestamp`

All else is an event: `pong` and `unsubscribed` too, as what they answer is never sent.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Literal, cast
from urllib.parse import quote, urlencode, urlsplit

import trio
from attrs import Factory, define, field, frozen
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from broker.channel import Channel
from broker.ending import ENDINGS
from broker.errors import ChannelError, SubscriberError

BUFFER_EVENTS, BUFFER_CHARACTERS = 1000, 16 * 1024 * 1024
MESSAGE_MAX_CHARACTERS = 64 * 1024 * 1024  # the most that `channels.message_max_bytes` can be
ANSWER_SECONDS = 10.0  # for each of: TCP and TLS, the handshake, the greeting
CLOSE_SECONDS = 1.0
BACKOFF_MIN_SECONDS, BACKOFF_MAX_SECONDS = 0.1, 10.0
HELD_SECONDS = 10.0  # a connection that was live for so long starts the backoff anew
UPSTREAM_UNAVAILABLE, UPSTREAM_REFUSED = "upstream_unavailable", "upstream_refused"
# The session's, which a client does not import: a test holds the two together.
ERROR_CODES = ["bad_json", "bad_command", "unknown_command", "bad_channel", "channel_type_refused", "binary_frame"]
ERROR_CODES += ["too_many_subscriptions", UPSTREAM_REFUSED, UPSTREAM_UNAVAILABLE]
FINAL_CODES = {e.code for e in ENDINGS if not e.reconnect} - {e.code for e in ENDINGS if e.reconnect}


@frozen
class Event:
    """One event: `raw` as it was published; `data`, the same decoded, empty if it is no JSON object."""

    raw: str
    data: dict[str, Any] = field(eq=False, repr=False)

    @property
    def type(self) -> str:
        kind = self.data.get("type")
        return kind if isinstance(kind, str) else ""

    @classmethod
    def from_raw(cls, message: str | bytes) -> Event:
        raw = message if isinstance(message, str) else message.decode(errors="replace")
        try:
            data = json.loads(raw)  # msgspec would refuse a lone \ud800, which JSON and the broker allow
        except (ValueError, RecursionError):
            data = None
        return cls(raw, data if isinstance(data, dict) else {})


@frozen
class Notice:
    """What happened to the connection, and how many seconds it has been away: what came then is lost."""

    kind: Literal["disconnected", "waiting", "reconnected"]  # `waiting` for the broker, or for its Redis
    text: str
    seconds: float


def subscribe(
    url: str,
    channels: Iterable[str],
    *,
    user_id: str | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    silence_seconds: float = 75.0,
) -> Subscription:
    """Subscribe to channels: enter what is returned, then iterate over it.

    Args:
        url: the broker's: `http://host:port`, or https, ws, wss; `/ws` is added where it lacks.
        channels: names, such as `job_progress:42`.
        on_notice: called at once, before events that still wait; must not block. What it raises
            ends the subscription, as the cause of a SubscriberError.
        silence_seconds: a connection on which no byte came for so long is made again. The broker
            sends some every 30 s (`websocket.ping_seconds`).

    Raises:
        SubscriberError: a bad URL or channel.
    """
    if isinstance(channels, str):
        raise SubscriberError(f"channels must be a list of names; write [{channels!r}]")
    try:
        names = dict.fromkeys(Channel.from_name(name).name for name in channels)
    except ChannelError as error:
        raise SubscriberError(str(error)) from None
    if not names:
        raise SubscriberError("no channel to subscribe to; name at least one")
    return Subscription(_Target.from_url(url, user_id), tuple(names), on_notice or (lambda _: None), silence_seconds)


@define(eq=False)
class Subscription:
    """Made by `subscribe`; enter it once. Entering returns when every channel is live.

    Raises, on entering and from the `async for`:
        SubscriberError: not reachable at first, refused, or closed with a code that forbids to come back.
    """

    _target: _Target
    _channels: tuple[str, ...]
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
    _awaited: set[str] = Factory(set)
    _live_since: float | None = None
    _away_since: float | None = None
    _told: str = ""

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
            wrapped, found = group, _leaves(group)
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
        self._room.unpark()
        return event

    async def _run(self) -> None:
        """Connect and reconnect until there is a reason not to. Raises nothing of its own."""
        attempt = 0
        while True:
            self._live_since = None
            error = await self._visit()
            if self._leaving:
                return
            try:
                self._lost(self._why(error))
            except SubscriberError as final:
                self._end = final
                self._entered.set()
                self._buffer[0].close()
                return
            if self._live_since is not None and trio.current_time() - self._live_since >= HELD_SECONDS:
                attempt = 0
            await trio.sleep(random.uniform(0, min(BACKOFF_MAX_SECONDS, BACKOFF_MIN_SECONDS * 2**attempt)))
            attempt = min(attempt + 1, 30)

    async def _visit(self) -> Exception | None:
        """One connection, from dialling to its loss. Returns what ended it."""
        errors: list[BaseException] = []
        try:
            with trio.fail_after(ANSWER_SECONDS):
                stream = await self._target.dial()
            try:
                wire = _Wire(stream, self._silence_seconds)
                async with trio.open_nursery() as nursery:
                    await self._converse(nursery, wire)
                    nursery.cancel_scope.cancel()
            finally:
                await trio.aclose_forcefully(stream)
        except* Exception as group:  # trio-websocket's reader raises what it does not promise to, too
            errors = _leaves(group)
        return cast(Exception, min(errors, key=lambda error: not isinstance(error, SubscriberError), default=None))

    async def _converse(self, nursery: trio.Nursery, wire: _Wire) -> None:
        with trio.fail_after(ANSWER_SECONDS):
            connection = await self._target.shake_hands(nursery, wire)
        wire.is_open = True
        try:
            with trio.CancelScope() as self._reading:
                await self._read(connection)
        finally:
            self._reading = None
            with trio.move_on_after(CLOSE_SECONDS):  # by itself it waits for the other side for ever
                await connection.aclose()

    async def _read(self, connection: WebSocketConnection) -> None:
        with trio.fail_after(ANSWER_SECONDS):
            first = Event.from_raw(await connection.get_message())
        if first.type != "connected" or not str(first.data.get("clientId")).startswith("ws_"):
            raise SubscriberError(f"{self._target.shown} is no broker: it greets with {first.raw[:80]!a}")
        self._awaited = set(self._channels)
        for name in self._channels:
            await connection.send_message(json.dumps({"type": "subscribe", "channel": name}))
        while True:
            event = Event.from_raw(await connection.get_message())
            if self._take(event.data):
                continue
            while self._characters > BUFFER_CHARACTERS:
                await self._room.park()
            await self._buffer[0].send(event)
            self._characters += len(event.raw)

    def _take(self, data: dict[str, Any]) -> bool:
        """Act upon the broker's own message. Returns whether it was one."""
        kind = data.get("type")
        if kind == "subscribed" and data.get("success") is True and data.get("name") in self._channels:
            self._awaited.discard(data["name"])
            if not self._awaited and self._live_since is None:
                self._now_live()
            return True
        if kind == "error" and data.get("code") in (ERROR_CODES if self._awaited else (UPSTREAM_REFUSED,)):
            if data["code"] != UPSTREAM_UNAVAILABLE:
                raise SubscriberError(f"{self._target.shown} refused: {data['code']}: {data.get('message')}")
            if self._told != UPSTREAM_UNAVAILABLE:
                self._tell("waiting", str(data.get("message")))
            self._told = UPSTREAM_UNAVAILABLE
            return True
        if kind == "heartbeat":
            return isinstance(data.get("serverTime"), str) and data["serverTime"] == data.get("timestamp")
        return kind == "disconnected" and len(data) == 3 and data.get("message") == "Server shutting down"

    def _now_live(self) -> None:
        self._live_since = trio.current_time()
        self._entered.set()
        if self._away_since is not None:
            self._tell("reconnected", "subscribed again; what was published meanwhile did not arrive")
        self._away_since, self._told = None, ""

    def _why(self, error: Exception | None) -> str:
        """What ended a connection, in words. Raises SubscriberError if it cannot be mended."""
        if isinstance(error, SubscriberError):
            raise error
        is_final, why = False, "the connection broke"
        if isinstance(error, trio.TooSlowError):
            why = f"nothing came for {self._silence_seconds:g} s" if self._live_since else "it did not answer in time"
        elif isinstance(error, ConnectionRejected):
            why = f"it answered HTTP {error.status_code} to the WebSocket handshake"
            is_final = 400 <= error.status_code < 500 and error.status_code not in (408, 425, 429)
        elif isinstance(error, ConnectionClosed):
            if error.reason is not None and error.reason.code != 1006:
                why = f"closed with code {error.reason.code}: {error.reason.reason or 'no reason given'}"
                is_final = error.reason.code in FINAL_CODES
        elif error is not None:
            cause = error.__cause__ or error
            why = str(_leaves(cause)[0] if isinstance(cause, BaseExceptionGroup) else cause) or repr(cause)
        if not self._entered.is_set():
            hint = "start it with `broker serve`, or correct the URL"
            raise SubscriberError(f"cannot subscribe at {self._target.shown}: {why}; {hint}") from error
        if is_final:
            raise SubscriberError(f"{self._target.shown} does not want this subscriber back: {why}") from error
        return why

    def _lost(self, why: str) -> None:
        """Tell that the connection is lost; while it is, tell each new reason why there is none yet."""
        if self._away_since is None:
            self._tell("disconnected", why)
            self._away_since = trio.current_time()
        elif why != self._told:
            self._tell("waiting", why)
        self._told = why

    def _tell(self, kind: Literal["disconnected", "waiting", "reconnected"], text: str) -> None:
        seconds = 0.0 if self._away_since is None else trio.current_time() - self._away_since
        try:
            self._on_notice(Notice(kind, text, seconds))
        except Exception as error:
            raise SubscriberError(f"on_notice raised {error!r}") from error


@frozen
class _Target:
    """Where to connect. `shown` leaves out the query, which may hold secrets."""

    host: str
    port: int
    tls: bool
    authority: str
    resource: str
    shown: str

    @classmethod
    def from_url(cls, url: str, user_id: str | None) -> _Target:
        try:
            parts = urlsplit(url)
            host, tls = parts.hostname, parts.scheme in ("https", "wss")
            port = parts.port or (443 if tls else 80)
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https", "ws", "wss") or "@" in parts.netloc:
            raise SubscriberError(f"not a broker's URL: {url!a}; write http://HOST:PORT, https, ws or wss")
        path = quote(parts.path.rstrip("/").removesuffix("/ws"), safe="/%~!$&'()*+,;=:@") + "/ws"
        authority = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else "")
        query = quote(parts.query, safe="/%?~!$&'()*+,;=:@")
        query += ("&" if query else "") + urlencode({"userId": user_id}) if user_id is not None else ""
        shown = f"{parts.scheme}://{authority}{parts.path}"
        return cls(host, port, tls, authority, path + (f"?{query}" if query else ""), shown)

    async def dial(self) -> trio.abc.Stream:
        dial = partial(trio.open_ssl_over_tcp_stream, https_compatible=True) if self.tls else trio.open_tcp_stream
        return await dial(self.host, self.port)

    async def shake_hands(self, nursery: trio.Nursery, wire: Any) -> WebSocketConnection:
        if isinstance(wire.stream, trio.SSLStream):
            await wire.stream.do_handshake()  # trio-websocket would swallow its error
        bounds = partial(wrap_client_stream, max_message_size=MESSAGE_MAX_CHARACTERS, receive_buffer_size=None)
        return await bounds(nursery, wire, self.authority, self.resource)


@define(eq=False)
class _Wire:
    """Raises TooSlowError after too much silence while it is read; before it `is_open`, an error at its end."""

    stream: trio.abc.Stream
    _silence_seconds: float
    is_open: bool = False
    _begin: bytes = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""  # the end, behind which trio-websocket would wait on for a handshake
        try:
            with trio.fail_after(self._silence_seconds):
                data = await self.stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            if self.is_open:
                raise
        self._begin = self._begin or bytes(data[:60])
        if not self.is_open and not (data and self._begin[:7] == b"HTTP/1."[: len(self._begin)]):
            answer = f"answered {ascii(self._begin)[1:]}" if self._begin else "closed the connection"
            raise OSError(f"it {answer} instead of a WebSocket handshake")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.fail_after(self._silence_seconds):
            await self.stream.send_all(data)

    async def aclose(self) -> None:
        await self.stream.aclose()


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """What is in a group at any depth, without the cancellations."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return [error for error in found if not isinstance(error, trio.Cancelled)]
