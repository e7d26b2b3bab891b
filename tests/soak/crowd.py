"""The crowd of a soak: followers, whom the oracle judges, and visitors, who behave as badly as visitors do.

One thread reads for all of them. Nobody lives longer than a part.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections import Counter

from attrs import Factory, define

from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower, follow
from tests.actors.peers import Peer, SsePeer, WebSocketPeer, close_all
from tests.soak.plan import Step
from tests.soak.voices import CHANNELS, PLAIN_CHANNELS

FOLLOWERS_MAX = 40
VISITORS_MAX = 60
TICK_SECONDS = 0.1
LIVE_SECONDS = 5.0
TRICKLE_BYTES = 512
ENTRIES_MAX = 2000
_KINDS: dict[str, type[Follower]] = {"v1": V1Follower, "sse": SseFollower, "base": WebSocketFollower}


@define(eq=False)
class _Guest:
    """A follower, until when it stays, and until when it reads nothing, or little, or is away."""

    follower: Follower
    leaves_at: float
    stalls_until: float = 0.0
    trickles_until: float = 0.0
    away_until: float = 0.0
    live_at: float = 0.0


@define(eq=False)
class Crowd:
    """Whoever is there.

    Args:
        faults: what the oracle found, of everybody who ever left.
        counts: what happened, by name.
    """

    port: int
    truths: Truths
    dice: random.Random
    faults: list[str] = Factory(list)
    counts: Counter[str] = Factory(Counter)
    _guests: list[_Guest] = Factory(list)
    _visitors: list[tuple[Peer, float, str]] = Factory(list)

    def take(self, step: Step) -> None:
        """Do one step of the plan that is a client's."""
        now = time.monotonic()
        if step.what == "follow" and len(self._guests) < FOLLOWERS_MAX:
            self._arrive(step, now)
        elif step.what == "visit" and len(self._visitors) < VISITORS_MAX:
            self._visit(step, now)
        elif step.what in ("stall", "trickle", "cut", "away") and self._guests:
            guest = self._guests[step.choice % len(self._guests)]
            if step.what == "stall":
                guest.stalls_until = now + step.seconds
            elif step.what == "trickle":
                guest.trickles_until = now + step.seconds
            else:
                guest.follower.cut_within(step.choice % 500)
                if step.what == "away":
                    guest.follower.port, guest.away_until = None, now + step.seconds
        else:
            return
        self.counts[f"{step.what} {step.kind}".strip()] += 1

    def tick(self) -> None:
        """Read for everybody for `TICK_SECONDS`, and see who leaves."""
        begun = time.monotonic()
        for guest in self._guests:
            guest.follower.is_stalled = max(guest.stalls_until, guest.trickles_until) > begun
        follow(self._followers, lambda: time.monotonic() - begun >= TICK_SECONDS, 30.0)
        for peer, _, kind in self._visitors:
            if kind != "stalled" and not peer.ended:
                peer.read()
                del peer.raw[:]
        self._tend(time.monotonic())

    def settle(self, seconds: float) -> None:
        """Until every follower has everything that was published, or was told that it has not; then all leave."""
        for guest in self._guests:
            guest.stalls_until = guest.trickles_until = guest.away_until = 0.0
            guest.follower.is_stalled, guest.follower.port = False, self.port
        deadline = time.monotonic() + seconds
        while any(not guest.follower.is_live or guest.follower.faults(is_end=True) for guest in self._guests):
            if time.monotonic() > deadline:
                self.faults += [f"not live: {each}" for each in self._followers if not each.is_live]
                break
            self.tick()
        for guest in list(self._guests):
            self._leave(guest, is_end=True)
        self._guests = []
        self._visitors = []
        close_all()

    @property
    def _followers(self) -> list[Follower]:
        return [guest.follower for guest in self._guests]

    def _arrive(self, step: Step, now: float) -> None:
        names = (CHANNELS[step.choice % len(CHANNELS)],) if step.choice % 3 else CHANNELS
        follower = _KINDS[step.kind](names, self.truths, self.port)
        if step.choice % 5 == 0:
            follower.receive_buffer = 4096
        self._guests.append(_Guest(follower, now + step.seconds, live_at=now))

    def _tend(self, now: float) -> None:
        for guest in list(self._guests):
            follower = guest.follower
            if guest.trickles_until > now and guest.stalls_until <= now and follower.peer is not None:
                follower.receive(TRICKLE_BYTES)
            if follower.port is None and guest.away_until <= now:
                follower.port = self.port
            if follower.is_live or follower.is_stalled or follower.port is None:
                guest.live_at = now
            elif now - guest.live_at > LIVE_SECONDS:
                # Who was refused while Redis was away asks again, as clients do.
                follower.cut()
                guest.live_at = now
            for record in follower.records.values():
                del record.entries[:-ENTRIES_MAX]
            if guest.leaves_at < now:
                self._leave(guest, is_end=False)
                self._guests.remove(guest)
        for visitor in [each for each in self._visitors if each[1] < now or each[0].ended]:
            visitor[0].close()
            self._visitors.remove(visitor)

    def _leave(self, guest: _Guest, *, is_end: bool) -> None:
        follower = guest.follower
        self.faults += follower.faults(is_end=is_end)
        self.counts["gaps told"] += len(follower.gaps())
        self.counts["connections of followers"] += follower.endings + 1
        follower.port = None
        follower.cut()

    def _visit(self, step: Step, now: float) -> None:
        try:
            peer = self._visitor(step)
        except (OSError, http.client.HTTPException) as error:
            # The daemon never goes away in a soak: whoever is refused is one fault more.
            self.faults.append(f"a visitor ({step.kind}) was refused: {error!r}")
            return
        if peer is not None:
            self._visitors.append((peer, now + step.seconds, step.kind))

    def _visitor(self, step: Step) -> Peer | None:
        """Come, and say what a visitor of this kind says; None for one that has gone again."""
        name = (*CHANNELS, *PLAIN_CHANNELS)[step.choice % (len(CHANNELS) + len(PLAIN_CHANNELS))]
        if step.kind == "sse":
            return SsePeer(self.port, name)
        if step.kind == "stalled":
            return SsePeer(self.port, name, receive_buffer=4096)
        if step.kind == "silent":
            return Peer(self.port, b"GET /ws HTTP/1.1\r\n")
        if step.kind == "broken":
            return Peer(self.port, self.dice.randbytes(step.choice % 300 + 1) + b"\r\n\r\n")
        if step.kind == "http":
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            for path in ("/health", "/api/realtime/stats?clients=5", "/nowhere"):
                connection.request("GET", path)
                connection.getresponse().read()
            connection.close()
            return None
        if step.kind == "crowd":
            # Channels that nobody had before, each for a moment: what is kept by channel must go with it.
            peer = WebSocketPeer(self.port)
            peer.subscribe(*(f"passing:{step.choice}-{number}" for number in range(50)))
            return peer
        peer = WebSocketPeer(self.port)
        if step.kind == "publisher":
            event = {"type": "publish", "channel": PLAIN_CHANNELS[0], "event": {"type": "plain", "n": step.choice}}
            peer.send(*[json.dumps(event)] * 5)
        else:
            peer.subscribe(name)
            peer.send("{", json.dumps({"type": "ping"}))
        if step.choice % 2:
            # Gone with a reset instead of a goodbye.
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return peer
