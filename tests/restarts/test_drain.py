"""The drain: how the goodbyes are spread, by the clock of the tests; and who is behind, or comes just then.

That everyone of a crowd gets one is row 10 of the fault suite.
"""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from itertools import count
from typing import Any
from urllib.error import HTTPError

import pytest
import trio
from attrs import Factory, define, evolve

from broker.config.sections import Daemon
from broker.drain import drain
from broker.ending import SHUTDOWN, Ending
from tests.actors.peers import Peer, SsePeer, open_streams, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer
from tests.restarts.conftest import Row

DRAIN_SECONDS = 4.0
SECTION = Daemon(drain_seconds=10.0, drain_clients_per_second=100.0, reconnect_seconds=2.0)


@define(eq=False)
class Guest:
    """A client as the drain sees it; leaves when it is asked."""

    _house: House
    ending: Ending | None = None
    asked_at: float = -1.0
    reconnect_milliseconds: int = -1

    def end(self, ending: Ending) -> None:
        self.ending, self.asked_at = ending, trio.current_time() - self._house.began_at
        self._house.guests.remove(self)


@define(eq=False)
class House:
    """Clientele and door in one."""

    began_at: float = Factory(trio.current_time)
    guests: list[Guest] = Factory(list)
    has_newcomers: bool = False
    idle_dismissed_at: list[float] = Factory(list)
    all_dismissed_at: list[float] = Factory(list)

    def fill(self, number: int) -> list[Guest]:
        self.guests += (Guest(self) for _ in range(number))
        return list(self.guests)

    def everyone(self) -> list[Guest]:
        return list(self.guests)

    @property
    def is_empty(self) -> bool:
        return not self.guests and not self.has_newcomers

    def part_after_next(self) -> None:
        raise AssertionError("nobody has taken over")

    def dismiss_idle(self) -> None:
        self.idle_dismissed_at.append(trio.current_time() - self.began_at)

    def dismiss_all(self) -> None:
        self.all_dismissed_at.append(trio.current_time() - self.began_at)
        self.has_newcomers = False

    async def drain(self, section: Daemon) -> float:
        numbers = count()
        await drain(self, self, section, lambda low, high: low + next(numbers) % 8 / 7 * (high - low))  # type: ignore[arg-type]
        return trio.current_time() - self.began_at


@pytest.mark.parametrize(
    ("number", "a_second"), [(1, 100.0), (100, 100.0), (400, 100.0), (2000, 400.0)], ids=["one", "few", "more", "crowd"]
)
async def test_the_spread(number: int, a_second: float, autojump_clock: trio.testing.MockClock) -> None:
    """So many a second, or more where they would not all be asked within half of the time."""
    house = House()
    guests = house.fill(number)
    took = await house.drain(SECTION)
    due = [index / a_second for index in range(number)]
    assert all(-1e-6 <= guest.asked_at - at <= 0.021 for guest, at in zip(guests, due, strict=True))
    assert took <= due[-1] + 0.2
    assert {guest.ending for guest in guests} == {SHUTDOWN}
    told = [guest.reconnect_milliseconds for guest in guests]
    assert sorted(set(told)) == [round(2000 * step / 7) for step in range(min(8, number))]


async def test_at_once_where_there_is_no_time(autojump_clock: trio.testing.MockClock) -> None:
    house = House()
    guests = house.fill(1000)
    await house.drain(evolve(SECTION, drain_seconds=0.0, reconnect_seconds=0.0))
    assert {(guest.asked_at, guest.reconnect_milliseconds) for guest in guests} == {(0.0, 0)}


async def test_who_has_just_come(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """Who came by the open door and asks within a second is served, and asked to leave at once; then nobody is."""
    house = House()
    house.fill(1)
    house.has_newcomers = True

    async def ask() -> None:
        await trio.sleep(0.5)
        late.extend(house.fill(1))

    late: list[Guest] = []
    nursery.start_soon(ask)
    took = await house.drain(SECTION)
    assert house.idle_dismissed_at == [0.0]
    assert house.all_dismissed_at == [pytest.approx(1.0, abs=0.03)]
    assert late[0].asked_at == pytest.approx(0.5, abs=0.03)
    assert took == pytest.approx(1.0, abs=0.2)


def ready_status(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_who_reads_has_everything_before_its_goodbye(redis_server: RedisServer, row: Row) -> None:
    """Some read nothing; others are behind when it begins. Who comes while it is not ready is drained too."""
    flags = ("--daemon-drain-seconds", f"{DRAIN_SECONDS}", "--daemon-unready-seconds", "0.5")
    daemon = row.first(redis_server.url, *flags, "--clients-outbox-max-bytes", str(16 << 20))
    small: dict[str, Any] = {"receive_buffer": 4096}
    sockets = open_websockets(daemon.port, 10, "feed:1")
    streams = open_streams(daemon.port, 10, "feed:1")
    # More than the kernel takes: what waits is in the daemon.
    stuck = [*open_websockets(daemon.port, 2, "much:1", **small), *open_streams(daemon.port, 2, "much:1", **small)]
    late_readers: list[Peer] = [
        *open_websockets(daemon.port, 3, "much:1", **small),
        *open_streams(daemon.port, 3, "much:1", **small),
    ]
    batch = [b'{"n":%d,"pad":"%b"}' % (number, b"x" * 8000) for number in range(800)]
    redis_server.publish("feed:1", *batch[:20])
    redis_server.publish("much:1", *batch)
    pump([*sockets, *streams], lambda: all(batch[19] in peer.raw for peer in (*sockets, *streams)), 60)
    wait_until(lambda: daemon.stats()["outboxes"]["queuedBytes"] > 10 * 1_000_000)
    assert ready_status(daemon.port) == 200

    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: ready_status(daemon.port) == 503)
    newcomers: list[Any] = [*open_websockets(daemon.port, 1, "feed:1"), *open_streams(daemon.port, 1, "feed:1")]
    everyone = [*sockets, *streams, *late_readers, *newcomers]
    for peer in (*sockets, newcomers[0], *late_readers[:3]):
        peer.has_answered = False

    def all_have_left() -> bool:
        for peer in everyone:
            if isinstance(peer, SsePeer):
                continue
            peer.parse()
            if peer.close_code and not peer.has_answered:
                peer.has_answered = True
                peer.send_close(1012)
        return all(peer.ended for peer in everyone)

    pump(everyone, all_have_left)
    assert daemon.process.wait(DRAIN_SECONDS + 10) == 0
    assert time.monotonic() - began < 0.5 + DRAIN_SECONDS + 2
    told = set()
    for peer in everyone:
        assert (peer.was_reset, peer.is_cut_off) == (False, False)
        if isinstance(peer, SsePeer):
            assert peer.is_complete
            retry, data = peer.blocks[-1].split(b"\n")
            assert json.loads(data.removeprefix(b"data: "))["type"] == "server_shutdown"
            told.add(int(retry.removeprefix(b"retry: ")))
        else:
            assert peer.close_code == 1012
            goodbye = json.loads(peer.texts[-1])
            assert goodbye["type"] == "disconnected"
            told.add(goodbye["reconnectInMs"])
    assert all(0 <= each <= 2000 for each in told)
    assert len(told) > len(everyone) / 4
    # Who was behind, and reads, has all that was queued for it, in order and before the goodbye.
    for peer in late_readers:
        heard = [b for b in (peer.blocks if isinstance(peer, SsePeer) else peer.texts) if b'"n":' in b]
        assert [b.removeprefix(b"data: ") for b in heard] == batch
    stopped = [json.loads(line) for line in daemon.log().splitlines()][-1]
    assert (stopped["event"], stopped["cut_off"]) == ("stopped", len(stuck))
