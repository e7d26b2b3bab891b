"""One client's life in virtual time: pulses, endings, and a goodbye that is never waited for too long."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.auth.identity import OPEN, Identity
from broker.client import Client, fenced
from broker.config.sections import Clients
from broker.ending import (
    COMPLETE,
    INTERNAL_ERROR,
    LEFT,
    OUTBOX_FULL,
    OUTBOX_STALE,
    PROTOCOL_ERROR,
    SHUTDOWN,
    VANISHED,
    Ending,
)

BOUNDS = Clients(outbox_max_bytes=64 * 1024, outbox_max_age_seconds=10.0, farewell_seconds=2.0)
FAREWELL = b"goodbye"


class FakeConversation:
    """Says little, remembers everything, and fails where the test says so."""

    def __init__(self, client: Client, pulse_seconds: float = 30.0) -> None:
        self.client = client
        self.pulse_seconds = pulse_seconds
        self.received = bytearray()
        self.pulses: list[float] = []
        self.goodbyes: list[Ending] = []
        self.leaves = 0
        self.awaits_peer = False
        self.channel_names = ["a:1"]
        self.on_opened: Callable[[], object] = lambda: None
        self.on_receive: Callable[[bytes], object] = lambda data: None
        self.on_pulse: Callable[[], object] = lambda: None
        self.on_goodbye: Callable[[], object] = lambda: None

    def opened(self) -> float:
        self.on_opened()
        return trio.current_time() + self.pulse_seconds

    def receive(self, data: bytes) -> None:
        self.received += data
        self.on_receive(data)

    def pulse(self, now: float) -> float:
        self.pulses.append(trio.current_time())
        self.on_pulse()
        return now + self.pulse_seconds

    def goodbye(self, ending: Ending) -> bytes:
        self.goodbyes.append(ending)
        self.on_goodbye()
        return b"" if ending is LEFT else FAREWELL

    def closed(self) -> None:
        self.leaves += 1


class Life:
    """A client that runs in a nursery of the test's; `peer` is the other end of its socket."""

    def __init__(self, change: Callable[[FakeConversation], object] = lambda conversation: None) -> None:
        self.ours, self.peer = socket.socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.ours.setblocking(False)
        self.peer.setblocking(False)
        self.client = Client("c1", "websocket", Identity(OPEN, "u1"), self.ours, BOUNDS)
        self.change = change
        self.ending: Ending | None = None
        self.ended_at: float | None = None

    @property
    def conversation(self) -> FakeConversation:
        assert isinstance(self.client.conversation, FakeConversation)
        return self.client.conversation

    async def run(self) -> None:
        def converse(client: Client) -> FakeConversation:
            conversation = FakeConversation(client)
            self.change(conversation)
            return conversation

        try:
            self.ending = await self.client.run(converse)
        finally:
            self.ended_at = trio.current_time()

    def heard(self) -> bytes:
        """What the peer can read now."""
        data = b""
        try:
            while part := self.peer.recv(65536):
                data += part
        except BlockingIOError:
            pass
        return data

    def fill(self) -> None:
        """Deliver until something has to wait."""
        while not self.client.outbox.queued_bytes:
            self.client.outbox.deliver(bytes(4000), 1, trio.current_time())


@pytest.fixture
def lives() -> object:
    made: list[Life] = []

    def begin(nursery: trio.Nursery, change: Callable[[FakeConversation], object] = lambda conversation: None) -> Life:
        life = Life(change)
        made.append(life)
        nursery.start_soon(life.run)
        return life

    yield begin
    for life in made:
        life.ours.close()
        life.peer.close()


Lives = Callable[..., Life]


async def test_pulses_come_when_they_are_due_and_bytes_do_not_delay_them(
    autojump_clock: MockClock, lives: Lives
) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        for _ in range(19):
            await trio.sleep(5)
            life.peer.send(b"x")
        await trio.sleep(0.1)
        assert [at - begun for at in life.conversation.pulses] == pytest.approx([30, 60, 90], abs=1e-6)
        assert bytes(life.conversation.received) == b"x" * 19
        life.peer.close()
    assert life.ending is LEFT


class Called:
    """What others call for a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @fenced
    def fail(self, times: int) -> None:
        raise ValueError(times)


async def test_what_others_call_and_fails_ends_its_client_alone(autojump_clock: MockClock, lives: Lives) -> None:
    """Nothing that is delivered behind it is taken, and the log has one line with the client's id."""
    with capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            life = lives(nursery)
            await wait_all_tasks_blocked()
            life.client.outbox.deliver(b"before ", 1, trio.current_time())
            for times in range(2):
                Called(life.client).fail(times)
            life.client.outbox.deliver(b"behind", 1, trio.current_time())
            await wait_all_tasks_blocked()
            assert life.heard() == b"before " + FAREWELL
            life.peer.close()
    assert life.ending is INTERNAL_ERROR
    assert [(entry["event"], entry["client"]) for entry in logged] == [("client failed", "c1")]


async def test_the_peer_leaves(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        life.peer.close()
    assert (life.ending, life.ended_at) == (LEFT, begun)
    assert (life.conversation.leaves, life.ours.fileno()) == (1, -1)


async def test_a_peer_that_leaves_with_bytes_waiting_costs_no_time(autojump_clock: MockClock, lives: Lives) -> None:
    """It may have closed its sending side only: what waits is still sent, and then it is over."""
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        life.fill()
        life.peer.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        while life.ended_at is None:
            life.heard()
            await wait_all_tasks_blocked()
    assert (life.ending, life.ended_at) == (LEFT, begun)


async def test_whoever_is_ended_hears_its_goodbye(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        life.client.end(SHUTDOWN)
        await wait_all_tasks_blocked()
        assert life.heard() == FAREWELL
        assert life.peer.recv(1) == b""  # our side is finished, the peer may still talk
        assert life.ended_at is None
        life.peer.close()
    assert (life.ending, life.ended_at) == (SHUTDOWN, begun)


async def test_the_first_ending_stands(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        for ending in (PROTOCOL_ERROR, SHUTDOWN, PROTOCOL_ERROR):
            life.client.end(ending)
        await wait_all_tasks_blocked()
        life.client.end(VANISHED)
        life.peer.close()
    assert life.ending is PROTOCOL_ERROR
    assert life.conversation.goodbyes == [PROTOCOL_ERROR]
    life.client.end(SHUTDOWN)  # after its end, too
    assert life.client.ending is PROTOCOL_ERROR


async def test_an_end_before_the_first_read(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery, lambda conversation: setattr(
            conversation, "on_opened", lambda: conversation.client.end(COMPLETE)
        ))  # fmt: skip
        await wait_all_tasks_blocked()
        assert life.heard() == FAREWELL
        life.peer.close()
    assert life.ending is COMPLETE


@pytest.mark.parametrize("awaits_peer", [False, True])
async def test_a_peer_that_does_not_close_is_not_waited_for_longer_than_the_farewell(
    awaits_peer: bool, autojump_clock: MockClock, lives: Lives
) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery, lambda conversation: setattr(conversation, "awaits_peer", awaits_peer))
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        life.client.end(SHUTDOWN)
        await trio.sleep(1)
        life.peer.send(b"chatter")
    assert life.ended_at == pytest.approx(begun + BOUNDS.farewell_seconds)
    assert bytes(life.conversation.received) == b"chatter"


@pytest.mark.parametrize(
    ("ending", "seconds"),
    [
        (SHUTDOWN, BOUNDS.outbox_max_age_seconds),
        (COMPLETE, BOUNDS.outbox_max_age_seconds),
        (OUTBOX_FULL, BOUNDS.farewell_seconds),
        (OUTBOX_STALE, BOUNDS.farewell_seconds),
    ],
)
async def test_a_peer_that_does_not_read_is_waited_for_as_long_as_its_ending_deserves(
    ending: Ending, seconds: float, autojump_clock: MockClock, lives: Lives
) -> None:
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            life = lives(nursery)
            await wait_all_tasks_blocked()
            life.fill()
            begun = trio.current_time()
            life.client.end(ending)
        assert (life.ending, life.ended_at) == (ending, pytest.approx(begun + seconds))
    assert logs == []
    assert life.conversation.leaves == 1


async def test_too_much_waiting_ends_the_client(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        for _ in range(100):
            life.client.outbox.deliver(bytes(4000), 1, trio.current_time())
        await wait_all_tasks_blocked()
        heard = b""
        while life.ended_at is None and not heard.endswith(FAREWELL):
            heard += life.heard()
            await wait_all_tasks_blocked()
        assert heard.rstrip(FAREWELL).strip(b"\0") == b""
        assert len(heard) - len(FAREWELL) < 64 * 1024
        life.peer.close()
    assert life.ending is OUTBOX_FULL


async def test_a_byte_that_waits_too_long_ends_the_client(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        life.fill()
    assert life.ending is OUTBOX_STALE
    assert life.ended_at == pytest.approx(begun + BOUNDS.outbox_max_age_seconds + BOUNDS.farewell_seconds)


@pytest.mark.parametrize("where", ["opened", "receive", "pulse"])
async def test_what_a_conversation_raises_ends_its_client_and_nobody_else(
    where: str, autojump_clock: MockClock, lives: Lives
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            other = lives(nursery)
            life = lives(nursery, lambda conversation: setattr(conversation, f"on_{where}", fail))
            await wait_all_tasks_blocked()
            if where == "receive":
                life.peer.send(b"x")
            await trio.sleep(30.1)
            assert life.heard() == FAREWELL
            life.peer.close()
            await wait_all_tasks_blocked()
            assert (life.ending, other.ended_at) == (INTERNAL_ERROR, None)
            other.peer.close()
    assert [(line["event"], line["client"], line["log_level"]) for line in logs] == [("client failed", "c1", "error")]


async def test_what_is_raised_during_the_goodbye_stays_inside(autojump_clock: MockClock, lives: Lives) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            silent = lives(nursery, lambda conversation: setattr(conversation, "on_goodbye", fail))
            chatty = lives(nursery, lambda conversation: setattr(conversation, "on_receive", fail))
            await wait_all_tasks_blocked()
            for life in (silent, chatty):
                life.client.end(SHUTDOWN)
            await wait_all_tasks_blocked()
            chatty.peer.send(b"too late")
    assert [life.ending for life in (silent, chatty)] == [SHUTDOWN, SHUTDOWN]
    assert [life.conversation.leaves for life in (silent, chatty)] == [1, 1]
    assert [line["event"] for line in logs] == ["client failed while it left"] * 2


async def test_cancelling_closes_and_leaves(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        life.fill()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (life.ending, life.client.ending) == (None, None)
    assert (life.conversation.leaves, life.ours.fileno()) == (1, -1)


async def test_statistics(autojump_clock: MockClock, lives: Lives) -> None:
    async with trio.open_nursery() as nursery:
        life = lives(nursery)
        await wait_all_tasks_blocked()
        before = life.client.statistics()
        assert (before.id, before.user_id, before.channels) == ("c1", "u1", ("a:1",))
        assert (before.events, before.last_event_at, before.queued_bytes, before.alive) == (0, None, 0, True)
        life.client.outbox.deliver(b"x", 3, trio.current_time())
        after = life.client.statistics()
        assert after.events == 3
        assert after.last_event_at == pytest.approx(after.connected_at, abs=5)
        life.client.end(SHUTDOWN)
        assert life.client.statistics().alive is False
        life.peer.close()
