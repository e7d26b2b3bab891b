"""Followers: clients that keep their place in channels as real ones do, come back to it, and note what they were told.

Each is one client over many connections. What it noted of a channel is for `tests.promise.oracle`. They are cut
off at any byte: what was not received whole does not count, and the place is that of the last that was.
`follow` reads from any number of them in one loop.

Sources: WHATWG HTML, 9.2.6 (an `id` counts once the empty line behind its block has come); `docs/protocol.md`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import selectors
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from attrs import Factory, define, field

from tests.actors.answers import decoded, position_in, told_of
from tests.actors.peers import BOUND_SECONDS, Peer, _masked
from tests.promise.oracle import Begun, Event, Record, Told, Truth

_LINE_END = re.compile(r"\r\n|\r|\n")
_AGAIN_SECONDS = 0.05

Truths = dict[str, Truth]
"""By channel."""


@define(eq=False)
class Follower(ABC):
    """One client of some channels.

    Args:
        truths: whoever publishes counts in them what is published.
        port: where it connects, and comes back to by itself; None while it stays away.
    """

    channels: tuple[str, ...]
    truths: Truths
    port: int | None = None
    receive_buffer: int | None = None
    segment_bytes: int | None = None
    is_stalled: bool = False
    peer: Peer | None = None
    records: dict[str, Record] = field(init=False)
    endings: int = 0
    _again_at: float = 0.0
    _at: int = 0
    _is_dismissed: bool = False  # the daemon has said goodbye

    def __attrs_post_init__(self) -> None:
        self.records = {channel: Record(self.truths[channel]) for channel in self.channels}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.channels)})"

    def connect(self) -> None:
        """Open a connection and ask for everything. Where nobody listens it is tried again later."""
        assert self.port is not None
        try:
            sizes = {"receive_buffer": self.receive_buffer, "segment_bytes": self.segment_bytes}
            self.peer = Peer(self.port, self._opening(), **sizes)
        except ConnectionError:
            self._again_at = time.monotonic() + _AGAIN_SECONDS
            return
        self._at = 0
        self._is_dismissed = False
        self._reset()

    def receive(self, most: int = 1 << 18) -> int:
        """Read what is there and note it. Returns how many bytes there were."""
        peer = self.peer
        assert peer is not None
        size = peer.read(most)
        self._parse(peer.raw)
        if self._at > 1 << 20:
            del peer.raw[: self._at]
            self._at = 0
        if peer.ended or self._is_dismissed:
            self.endings += 1
            self.cut()
        return size

    def cut(self) -> None:
        """Gone, without a goodbye."""
        if self.peer is not None:
            self.peer.close()
            self.peer = None
            self._again_at = time.monotonic() + _AGAIN_SECONDS

    def cut_within(self, size: int) -> None:
        """Take `size` bytes more, if they are there, and be gone."""
        if self.peer is not None and size:
            self.receive(size)
        self.cut()

    @property
    def is_due(self) -> bool:
        """Whether it is time to come back."""
        return self.port is not None and self.peer is None and time.monotonic() >= self._again_at

    @property
    def is_live(self) -> bool:
        """Whether this connection has been told that all channels are live."""
        return self.peer is not None and all(self._is_begun(channel) for channel in self.channels)

    def faults(self, *, is_end: bool = False) -> list[str]:
        """What was not as promised. `is_end`: it has to have everything by now."""
        return [
            f"{self}, {channel}: {what}"
            for channel, record in self.records.items()
            for what in (record.faults_at_end() if is_end else record.faults)
        ]

    def gaps(self) -> list[Told]:
        return [gap for record in self.records.values() for gap in record.gaps()]

    def _begin(self, channel: str, position: str | None, since: str | None, recovered: bool | None) -> None:
        counts = dict(self.truths[channel].published)
        self.records[channel].note(Begun(position, since, recovered, counts))

    @abstractmethod
    def _is_begun(self, channel: str) -> bool: ...

    @abstractmethod
    def _opening(self) -> bytes: ...

    @abstractmethod
    def _reset(self) -> None: ...

    @abstractmethod
    def _parse(self, raw: bytearray) -> None: ...


@define(eq=False, repr=False)
class WebSocketFollower(Follower):
    """Base: no positions, and nothing to come back to. Its record begins anew with each connection."""

    is_v1 = False
    _begun: set[str] = Factory(set)

    def _opening(self) -> bytes:
        key = base64.b64encode(os.urandom(16))
        protocol = b"Sec-WebSocket-Protocol: broker.v1\r\n" if self.is_v1 else b""
        head = (
            b"GET /ws?userId=u HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n" % (key, protocol)
        )
        asked = [{"type": "subscribe", "channel": channel, **self._since(channel)} for channel in self.channels]
        return head + b"".join(_masked(1, json.dumps(command).encode()) for command in asked)

    def _since(self, channel: str) -> dict[str, str]:
        return {}

    def _reset(self) -> None:
        self._begun = set()

    def _is_begun(self, channel: str) -> bool:
        return channel in self._begun

    def _parse(self, raw: bytearray) -> None:
        at = self._at
        if not at and self.peer is not None and raw[:4] == b"HTTP":
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                return
            assert raw.startswith(b"HTTP/1.1 101 "), bytes(raw[:200])
            at = end + 4
        size_of_all = len(raw)
        while size_of_all - at >= 2:
            size, begin = raw[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(raw[begin : begin + 2], "big"), begin + 2
            elif size == 127:
                size, begin = int.from_bytes(raw[begin : begin + 8], "big"), begin + 8
            if size_of_all < begin + size:
                break
            if raw[at] == 0x81:
                self._take(bytes(raw[begin : begin + size]))
            elif raw[at] == 0x88:
                self._is_dismissed = True
            at = begin + size
        self._at = at

    def _take(self, text: bytes) -> None:
        message = decoded(text)
        kind = message.get("type")
        if kind == "event":
            self.records[message["c"]].note(message["entry"])
        elif kind == "subscribed":
            self._begun.add(message["name"])
            self._begin(message["name"], None, None, None)
        elif kind == "gap":
            self.records[message["channel"]].note(told_of(message))
        else:
            assert kind in ("connected", "heartbeat", "disconnected", "error"), message
            assert message.get("code") in (None, "upstream_unavailable"), message


@define(eq=False, repr=False)
class V1Follower(WebSocketFollower):
    """`broker.v1`: comes back with the last position that it was told of each channel."""

    is_v1 = True
    places: dict[str, str] = Factory(dict)
    _asked: dict[str, str] = Factory(dict)

    def _since(self, channel: str) -> dict[str, str]:
        return {"since": self.places[channel]} if channel in self.places else {}

    def _reset(self) -> None:
        super()._reset()
        self._asked = dict(self.places)

    def _take(self, text: bytes) -> None:
        message = decoded(text)
        kind = message.get("type")
        if kind == "envelope":
            if message["position"] is not None:
                self.places[message["channel"]] = message["position"]
            self.records[message["channel"]].note(message["entry"])
        elif kind == "subscribed":
            name, position = message["name"], message["position"]
            self._begun.add(name)
            self._begin(name, position, self._asked.get(name), message["recovered"] if name in self._asked else None)
            if position is not None:
                self.places.setdefault(name, position)
        elif kind == "gap":
            self.records[message["channel"]].note(told_of(message))
            if message["to"] is not None:
                self.places[message["channel"]] = message["to"]
        else:
            super()._take(text)


@define(eq=False, repr=False)
class SseFollower(Follower):
    """An EventSource of one channel or several: comes back with the last id that counts."""

    last_id: str = ""
    _asked: str = ""
    _body: bytearray = Factory(bytearray)
    _left: int = 0
    _id: str = ""
    _has_id: bool = False
    _is_greeted: bool = False

    def _opening(self) -> bytes:
        query = "&".join(f"channel={urllib.parse.quote(name)}" for name in self.channels)
        last = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        return (
            f"GET /api/stream?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{last}\r\n".encode()
        )

    def _reset(self) -> None:
        self._body = bytearray()
        self._left = 0
        self._id = self._asked = self.last_id
        self._is_greeted = False

    def _is_begun(self, channel: str) -> bool:
        return self._is_greeted

    def _parse(self, raw: bytearray) -> None:
        at = self._at
        if not at and raw[:4] == b"HTTP":
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                return
            assert raw.startswith(b"HTTP/1.1 200 "), bytes(raw[:200])
            at = end + 4
        while at < len(raw):
            if not self._left:
                end = raw.find(b"\r\n", at)
                if end < 0:
                    break
                # The chunk's own line end is part of what is left of it.
                at, self._left = end + 2, int(raw[at:end], 16) + 2
            # What has come of a chunk counts, whole or not: to EventSource there are no chunks.
            part = raw[at : at + self._left]
            self._left -= len(part)
            at += len(part)
            self._body += part if self._left >= 2 else part[: len(part) + self._left - 2]
        self._at = at
        *blocks, rest = bytes(self._body).split(b"\n\n")
        self._body = bytearray(rest)
        for block in blocks:
            self._dispatch(block)

    def _dispatch(self, block: bytes) -> None:
        kind, lines = "message", []
        self._has_id = False
        for line in _LINE_END.split(block.decode()):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id" and "\0" not in value:
                self._id, self._has_id = value, True
            elif name == "event":
                kind = value
            elif name == "data":
                lines.append(value)
        self.last_id = self._id
        if lines:
            self._take(kind, "\n".join(lines).encode())

    def _take(self, kind: str, data: bytes) -> None:
        message = decoded(data)
        if kind == "gap":
            self.records[message["channel"]].note(told_of(message))
        elif message["type"] == "event":
            # An event that is not kept, or of a channel without history, leaves the id as it was.
            position = position_in(self.last_id, message["c"], self.channels) if self._has_id else None
            self.records[message["c"]].note(Event(position, message["entry"].heard))
        elif message["type"] == "connected":
            self._is_greeted = True
            for channel in self.channels:
                since = (position_in(self._asked, channel, self.channels) or "") if self._asked else None
                self._begin(channel, position_in(self.last_id, channel, self.channels), since, None)
        else:
            # Too slow for a channel without history: it is told so, and comes back.
            assert message["type"] == "server_shutdown" or "client too slow" in message["error"], message


def open_followers(followers: Sequence[Follower]) -> None:
    """Connect all, and wait until their channels are live."""
    for follower in followers:
        follower.connect()
    follow(followers, lambda: all(follower.is_live for follower in followers))


def follow(
    followers: Iterable[Follower],
    until: Callable[[], object],
    seconds: float = BOUND_SECONDS,
    *,
    why: Callable[[], object] | None = None,
) -> float:
    """Read from all that are not stalled until `until` holds; who was cut off comes back. Returns the seconds it took.

    Args:
        why: says what is missing, for the failure.
    """
    began = time.monotonic()
    everyone = list(followers)
    watched: dict[Follower, Peer] = {}
    with selectors.DefaultSelector() as selector:
        while not until():
            if time.monotonic() - began > seconds:
                raise AssertionError(f"it did not happen within {seconds:g} s: {why() if why is not None else ''}")
            for follower in everyone:
                if follower.is_due:
                    follower.connect()
                peer = None if follower.is_stalled else follower.peer
                before = watched.get(follower)
                if before is not peer:
                    if before is not None:
                        _forget(selector, before)
                        del watched[follower]
                    if peer is not None:
                        selector.register(peer.socket, selectors.EVENT_READ, follower)
                        watched[follower] = peer
            for key, _ in selector.select(0.02):
                follower = key.data
                if follower.peer is watched.get(follower):
                    peer = watched[follower]
                    follower.receive()
                    if follower.peer is None:
                        _forget(selector, peer)
                        del watched[follower]
    return time.monotonic() - began


def _forget(selector: selectors.BaseSelector, peer: Peer) -> None:
    for key in list(selector.get_map().values()):
        if key.fileobj is peer.socket:
            selector.unregister(peer.socket)
            return
