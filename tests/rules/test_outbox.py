"""The outbox: what the kernel does not take waits, in order and bounded; the end of a connection tears no frame.

Every test runs over TLS too: the laws are the same, but for what one sealed record holds.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.ending import OUTBOX_FULL, OUTBOX_STALE, OUTBOX_TOTAL, VANISHED, Ending
from broker.outboxpool import OutboxPool, OutboxPoolStatistics
from broker.sealedoutbox import SealedOutbox, outbox_for
from tests.tls.certificates import Authority, TlsPeer, connected

MAX_BYTES = 1_000_000
MAX_AGE_SECONDS = 10.0
PATIENCE_SECONDS = 60.0


_authority: Authority | None = None  # where the test is over TLS


@pytest.fixture(autouse=True, params=["plain", "tls"])
def over(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    global _authority
    _authority = Authority(tmp_path) if request.param == "tls" else None
    return str(request.param)


class Wire:
    """An outbox, and the other end of its socket, which reads when it is told to."""

    def __init__(
        self,
        nursery: trio.Nursery,
        ours: socket.socket,
        theirs: socket.socket,
        max_bytes: int,
        pool: OutboxPool | None = None,
    ) -> None:
        self.nursery = nursery
        self.peer: TlsPeer | None = None
        if _authority is not None:
            ours, self.peer = connected(_authority, ours, theirs)
        self.ours, self.theirs = ours, theirs
        self.troubles: list[Ending] = []
        self.drained = 0
        self.outbox = outbox_for(
            ours, nursery, self.troubles.append, max_bytes, MAX_AGE_SECONDS, PATIENCE_SECONDS, self.on_drained, pool
        )
        assert isinstance(self.outbox, SealedOutbox) is (_authority is not None)
        self.received = bytearray()

    def on_drained(self) -> None:
        self.drained += 1

    def read(self, most: int = 1 << 20) -> int:
        """Take what is there now, at most `most` bytes of it from the kernel. Returns how many plain ones it was."""
        taken, before = 0, len(self.received)
        while taken < most:
            try:
                data = self.theirs.recv(min(65536, most - taken))
            except BlockingIOError:
                break
            if not data:
                break
            self.received += self.peer.open(data) if self.peer else data
            taken += len(data)
        return len(self.received) - before

    async def read_all(self) -> bytes:
        """Read until the outbox has nothing left."""
        for _ in range(100_000):
            if not self.read() and not self.outbox.queued_bytes:
                return bytes(self.received)
            await trio.lowlevel.checkpoint()
        raise AssertionError(f"{self.outbox.queued_bytes} bytes are never sent")

    def fill(self) -> bytes:
        """Deliver until something had to be queued. Returns all of it."""
        sent = b""
        while not self.outbox.queued_bytes:
            data = b"%06d" % (len(sent) // 6) * 1000
            self.outbox.deliver(data, 1, trio.current_time())
            sent += data
        return sent


@asynccontextmanager
async def open_wire(max_bytes: int = MAX_BYTES, pool: OutboxPool | None = None) -> AsyncIterator[Wire]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            wire = Wire(nursery, ours, theirs, max_bytes, pool)
            yield wire
            nursery.cancel_scope.cancel()
        wire.ours.close()


async def test_what_the_kernel_takes_leaves_at_once_and_needs_no_task(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.outbox.deliver(b"one", 1, trio.current_time())
        wire.outbox.send(b"two", trio.current_time())
        wire.read()
        assert (bytes(wire.received), wire.outbox.queued_bytes, wire.outbox.events) == (b"onetwo", 0, 1)
        assert not wire.nursery.child_tasks


async def test_what_it_does_not_take_follows_in_order_and_then_it_writes_directly(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        sent = wire.fill()
        for number in range(200):  # more buffers than one writev takes
            part = b"<%d>" % number
            wire.outbox.deliver(part, 1, trio.current_time())
            sent += part
        assert len(wire.nursery.child_tasks) == 1
        for _ in range(100):
            wire.read(777)
            await wait_all_tasks_blocked()
        assert await wire.read_all() == sent
        assert not wire.nursery.child_tasks
        wire.outbox.deliver(b"direct", 1, trio.current_time())
        assert wire.read() == len(b"direct")
        assert wire.troubles == []


async def test_the_count_of_queued_bytes_is_exact(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        sent = wire.fill()
        for _ in range(20):
            wire.read(5000)
            await wait_all_tasks_blocked()
            in_kernel = len(sent) - len(wire.received) - wire.outbox.queued_bytes
            assert 0 <= in_kernel <= 64 * 1024
        assert await wire.read_all() == sent


async def test_more_bytes_than_allowed_are_trouble_once(autojump_clock: MockClock) -> None:
    async with open_wire(max_bytes=20_000) as wire:
        sent = wire.fill()
        queued = wire.outbox.queued_bytes
        wire.outbox.deliver(b"a" * (20_000 - queued), 1, trio.current_time())
        assert wire.troubles == []
        for _ in range(3):
            wire.outbox.deliver(b"b", 1, trio.current_time())
        assert wire.troubles == [OUTBOX_FULL]
        assert wire.outbox.queued_bytes == 20_000
        assert await wire.read_all() == sent + b"a" * (20_000 - queued)


async def test_one_batch_may_be_larger_than_the_bound(autojump_clock: MockClock) -> None:
    async with open_wire(max_bytes=20_000) as wire:
        batch = bytes(500_000)
        wire.outbox.deliver(batch, 1, trio.current_time())
        assert wire.troubles == []
        assert await wire.read_all() == batch
        assert wire.troubles == []


async def test_bytes_that_wait_too_long_are_trouble_at_that_moment(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.fill()
        begun = trio.current_time()
        await trio.sleep(MAX_AGE_SECONDS - 0.001)
        wire.outbox.deliver(b"younger", 1, trio.current_time())
        assert wire.troubles == []
        await trio.sleep(0.002)
        assert wire.troubles == [OUTBOX_STALE]
        assert trio.current_time() - begun < MAX_AGE_SECONDS + 0.01
        wire.outbox.deliver(b"ignored", 1, trio.current_time())
        await trio.sleep(5 * MAX_AGE_SECONDS)
        assert wire.troubles == [OUTBOX_STALE]


async def test_a_reader_that_is_slow_but_reads_is_never_too_old(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        sent = wire.fill()
        for _ in range(30):
            await trio.sleep(MAX_AGE_SECONDS / 2)
            wire.read()
            await wait_all_tasks_blocked()
            part = bytes(10_000)
            wire.outbox.deliver(part, 1, trio.current_time())
            sent += part
        assert wire.troubles == []
        assert await wire.read_all() == sent


async def test_a_peer_that_is_gone_is_trouble_once(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.theirs.close()
        wire.outbox.deliver(b"one", 1, trio.current_time())
        wire.outbox.deliver(b"two", 1, trio.current_time())
        assert wire.troubles == [VANISHED]


async def test_a_peer_that_goes_while_bytes_wait_is_trouble_once(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.fill()
        wire.theirs.close()
        await wait_all_tasks_blocked()
        assert wire.troubles == [VANISHED]
        with trio.fail_after(1):
            await wire.outbox.flush()


async def test_the_last_words_come_behind_everything_and_nothing_behind_them(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        sent = wire.fill()
        wire.outbox.finish(b"bye", drop_unsent=False)
        wire.outbox.deliver(b"late", 1, trio.current_time())
        assert await wire.read_all() == sent + b"bye"
        with trio.fail_after(1):
            await wire.outbox.flush()


async def test_the_last_words_are_sent_at_once_where_nothing_waits(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.outbox.finish(b"bye", drop_unsent=False)
        wire.outbox.deliver(b"late", 1, trio.current_time())
        assert await wire.read_all() == b"bye"
        assert wire.troubles == []


async def test_no_last_words_are_no_work(autojump_clock: MockClock) -> None:
    """Empty bytes at the end of the queue would be written for ever."""
    async with open_wire() as wire:
        sent = wire.fill()
        wire.outbox.finish(b"", drop_unsent=False)
        assert await wire.read_all() == sent
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert not wire.nursery.child_tasks
        await wire.outbox.flush()


async def test_what_is_dropped_is_whole_frames(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        frames = [b"[%04d%b]" % (number, b"." * 3000) for number in range(100)]
        for frame in frames:
            wire.outbox.deliver(frame, 1, trio.current_time())
        wire.read(5000)
        await wait_all_tasks_blocked()
        wire.outbox.finish(b"bye", drop_unsent=True)
        received = await wire.read_all()
        assert received.endswith(b"bye")
        body = received.removesuffix(b"bye")
        assert len(body) % len(frames[0]) == 0
        assert body == b"".join(frames)[: len(body)]
        assert 0 < len(body) < len(frames[0]) * 100


async def test_an_untouched_batch_at_the_head_is_dropped(autojump_clock: MockClock, over: str) -> None:
    async with open_wire() as wire:
        sent = b""
        while True:  # up to the moment at which the kernel takes nothing of a batch
            before = wire.outbox.queued_bytes
            wire.outbox.deliver(b"x", 1, trio.current_time())
            if wire.outbox.queued_bytes == before + 1:
                break
            sent += b"x"
        if over == "tls":  # sealed is sent: what follows it could not be opened without it
            sent += b"x"
        wire.outbox.finish(b"bye", drop_unsent=True)
        assert await wire.read_all() == sent + b"bye"


async def test_who_caught_up_before_its_last_words_still_gets_them(autojump_clock: MockClock) -> None:
    """Too much was queued, then all of it went: there is no writer any more when the last words come."""
    async with open_wire(max_bytes=20_000) as wire:
        sent = wire.fill()
        wire.outbox.deliver(b"z" * 20_000, 1, trio.current_time())
        assert wire.troubles == [OUTBOX_FULL]
        assert await wire.read_all() == sent
        assert not wire.nursery.child_tasks
        wire.outbox.finish(b"bye", drop_unsent=True)
        with trio.fail_after(1):
            await wire.outbox.flush()
        assert await wire.read_all() == sent + b"bye"


async def test_a_closed_outbox_writes_nothing_to_whoever_has_its_number_next(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        number = wire.ours.fileno()
        wire.outbox.close()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if ours.fileno() != number:
                os.dup2(ours.fileno(), number)
            theirs.setblocking(False)
            wire.outbox.deliver(b"late", 1, trio.current_time())
            wire.outbox.finish(b"later", drop_unsent=False)
            wire.outbox.close()
            await wait_all_tasks_blocked()
            with pytest.raises(BlockingIOError):
                theirs.recv(10)
            if ours.fileno() != number:
                os.close(number)
        assert wire.outbox.queued_bytes == 0


async def test_closing_while_bytes_wait_ends_the_writer_quietly(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.fill()
        await wait_all_tasks_blocked()
        wire.outbox.close(abort=True)
        await wait_all_tasks_blocked()
        assert not wire.nursery.child_tasks
        assert wire.troubles == []


async def test_closing_before_the_writer_has_begun(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.fill()
        wire.outbox.close()
        await wait_all_tasks_blocked()
        assert not wire.nursery.child_tasks


async def test_an_offer_is_refused_while_enough_waits_and_its_owner_told_when_nothing_does(
    autojump_clock: MockClock,
) -> None:
    async with open_wire() as wire:
        now = trio.current_time()
        assert wire.outbox.offer(b"one", 1, now, 0)
        sent = b"one" + wire.fill()
        assert wire.outbox.offer(b"two", 1, now, 1_000_000)
        assert not wire.outbox.offer(b"three", 1, now, 2)
        # More than the bound is for nobody, however much may wait.
        assert not wire.outbox.offer(b"x" * MAX_BYTES, 1, now, 1_000_000)
        assert wire.drained == 0
        assert await wire.read_all() == sent + b"two"
        await wait_all_tasks_blocked()
        assert (wire.drained, wire.troubles) == (1, [])
        assert wire.outbox.offer(b"three", 1, now, 0)
        # Nobody was refused: nobody waits to be told.
        wire.fill()
        await wire.read_all()
        await wait_all_tasks_blocked()
        assert wire.drained == 1


async def test_who_is_offered_what_it_can_take_has_more_time(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        wire.fill()
        wire.outbox.deliver(b"x" * 500_000, 1, trio.current_time())
        assert not wire.outbox.offer(b"late", 1, trio.current_time(), 0)
        for _ in range(3):
            await trio.sleep(PATIENCE_SECONDS - 5)
            assert wire.troubles == []
            assert wire.read(50_000)  # the kernel takes something again
        await trio.sleep(PATIENCE_SECONDS + 5)
        assert wire.troubles == [OUTBOX_STALE]


async def test_an_offer_to_who_has_to_go_is_nobodys_trouble(autojump_clock: MockClock) -> None:
    async with open_wire() as wire:
        sent = wire.fill()
        wire.outbox.finish(b"bye", drop_unsent=False)
        assert wire.outbox.offer(b"late", 1, trio.current_time(), 0)
        assert await wire.read_all() == sent + b"bye"
        assert wire.drained == 0


async def test_small_frames_that_were_sealed_together_are_sent_and_those_behind_them_dropped(
    autojump_clock: MockClock,
) -> None:
    async with open_wire() as wire:
        sent = wire.fill()
        frames = [b"[%04d%b]" % (number, b"." * 1000) for number in range(100)]
        for frame in frames:
            wire.outbox.deliver(frame, 1, trio.current_time())
        while wire.outbox.queued_bytes > 90 * len(frames[0]):  # some of them are on the wire, one perhaps in part
            wire.read(1000)
            await wait_all_tasks_blocked()
        wire.outbox.finish(b"bye", drop_unsent=True)
        received = await wire.read_all()
        assert received.startswith(sent)
        body = received.removeprefix(sent).removesuffix(b"bye")
        assert received == sent + body + b"bye"
        assert len(body) % len(frames[0]) == 0
        assert body == b"".join(frames)[: len(body)]
        assert len(body) < 40 * len(frames[0])


async def test_what_waits_is_in_the_pool_and_nothing_else(autojump_clock: MockClock) -> None:
    pool = OutboxPool(10_000_000)
    async with open_wire(pool=pool) as one, open_wire(pool=pool) as other:
        one.outbox.deliver(b"direct", 1, trio.current_time())
        assert pool.statistics() == OutboxPoolStatistics(0, 0, 0)
        peak = 0
        for wire in (one, other):
            wire.fill()
            wire.outbox.deliver(b"more", 1, trio.current_time())
            peak = max(peak, one.outbox.queued_bytes + other.outbox.queued_bytes)
            assert pool.statistics() == OutboxPoolStatistics(peak, peak, 0)
        one.read(5000)
        await wait_all_tasks_blocked()
        assert pool.statistics().queued_bytes == one.outbox.queued_bytes + other.outbox.queued_bytes
        await one.read_all()
        assert pool.statistics() == OutboxPoolStatistics(other.outbox.queued_bytes, peak, 0)
        other.outbox.close()
        assert pool.statistics() == OutboxPoolStatistics(0, peak, 0)


async def test_the_client_for_whom_most_waits_is_ended_first_and_counts_no_more(autojump_clock: MockClock) -> None:
    pool = OutboxPool(1_000_000)
    async with open_wire(pool=pool) as small, open_wire(pool=pool) as large:
        for wire, size in ((small, 100_000), (large, 800_000)):
            wire.fill()
            wire.outbox.deliver(bytes(size), 1, trio.current_time())
        assert (small.troubles, large.troubles) == ([], [])
        small.outbox.deliver(bytes(100_000), 1, trio.current_time())  # the last straw is not the largest
        assert (small.troubles, large.troubles) == ([], [OUTBOX_TOTAL])
        assert pool.statistics().queued_bytes == small.outbox.queued_bytes
        assert pool.statistics().ended == 1
        large.outbox.deliver(bytes(100_000), 1, trio.current_time())
        large.outbox.finish(b"bye", drop_unsent=True)
        assert pool.statistics().queued_bytes == small.outbox.queued_bytes
        assert (await large.read_all()).endswith(b"bye")
        large.outbox.close()
        assert pool.statistics().queued_bytes == small.outbox.queued_bytes


async def test_a_client_that_is_alone_with_all_of_it_is_ended_in_its_own_delivery(autojump_clock: MockClock) -> None:
    pool = OutboxPool(50_000)
    async with open_wire(pool=pool) as wire:
        wire.outbox.deliver(bytes(500_000), 1, trio.current_time())
        assert wire.troubles == [OUTBOX_TOTAL]
        assert pool.statistics().queued_bytes == 0
        wire.outbox.deliver(b"ignored", 1, trio.current_time())
        assert wire.troubles == [OUTBOX_TOTAL]
