"""The parts of workers by themselves: sockets that share a port, shares, launches, siblings, and a pause that grows."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config.access import ListenTls
from broker.config.process import worker_count
from broker.config.sections import Config, Listen
from broker.config.sources import load
from broker.errors import WorkerError
from broker.lifecycle import Lifecycle
from broker.listening import Listener, open_listeners
from broker.post.launch import Launch, PassedListener, share_of
from broker.post.pipe import WorkerPipe, packed, unpacked
from broker.post.siblings import Siblings
from broker.workers.process import WorkerProcess
from broker.workers.slots import Slots, open_slots
from broker.workers.supervisor import Supervisor

MIB = 1024 * 1024


def listen(stack: ExitStack, *addresses: str, inherited: Sequence[socket.socket] = ()) -> list[Listener]:
    return stack.enter_context(open_listeners(Listen(addresses=addresses), ListenTls(), "flag --listen", inherited))


def slots_of(stack: ExitStack, listeners: Sequence[Listener], count: int) -> Slots:
    return stack.enter_context(open_slots(listeners, count, 100))


def test_each_slot_has_a_socket_of_each_address_and_all_share_what_can_be_opened_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        given = socket.create_server(("127.0.0.1", 0))
        given.listen()
        listeners = listen(stack, "127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/s", inherited=[given])
        slots = stack.enter_context(open_slots(listeners, 3, 100, [given]))
        tcp, tcp6, unix = (listener.name for listener in listeners if listener.socket is not given)
        assert [[listener.name for listener in slot] for slot in slots.own] == [[tcp, tcp6]] * 3
        assert [listener.name for listener in slots.shared] == [unix, f"127.0.0.1:{given.getsockname()[1]}"]
        assert len({listener.socket.fileno() for listener in slots.everything}) == 8
    assert [listener.socket.fileno() for listener in slots.everything] == [-1] * 8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after", "shape"), [(4, 2, [2, 2]), (3, 2, [2, 1]), (1, 3, [1, 1, 1]), (2, 2, [1, 1])]
)
def test_sockets_that_are_handed_over_are_all_served(before: int, after: int, shape: list[int]) -> None:
    with ExitStack() as stack:
        old = slots_of(stack, listen(stack, "127.0.0.1:0"), before)
        address = old.own[0][0].socket.getsockname()
        waiting = [stack.enter_context(socket.create_connection(address)) for _ in range(50)]
        handed = [listener.socket.dup() for listener in old.everything]
        new = slots_of(stack, listen(stack, old.own[0][0].name, inherited=handed), after)
        assert [len(slot) for slot in new.own] == shape
        old.close()
        waiting += [stack.enter_context(socket.create_connection(address)) for _ in range(50)]
        accepted = 0
        for slot in new.own:
            for listener in slot:
                while _accept(stack, listener.socket):
                    accepted += 1
        assert accepted == len(waiting)


def _accept(stack: ExitStack, listening: socket.socket) -> bool:
    try:
        stack.enter_context(listening.accept()[0])
    except BlockingIOError:
        return False
    return True


@settings(deadline=None)
@given(
    connections=st.integers(0, 5000),
    outbox_mib=st.integers(1, 300),
    slots=st.integers(2, 32),
    open_files=st.integers(1000, 1 << 20),
)
def test_shares_add_up_to_no_more_than_there_is(connections: int, outbox_mib: int, slots: int, open_files: int) -> None:
    config = Config()
    config = attrs.evolve(
        config,
        clients=attrs.evolve(config.clients, max_connections=connections),
        limits=attrs.evolve(config.limits, outbox_total_bytes=outbox_mib * MIB),
    )
    shares = [share_of(config, slot, slots, open_files, slots) for slot in range(slots)]
    each = [share.clients.max_connections for share in shares]
    assert max(each) <= open_files
    assert max(each) - min(each) <= 1
    if connections:
        assert sum(each) <= max(connections, slots)
    # One client's outbox is the least that makes sense.
    total = sum(share.limits.outbox_total_bytes for share in shares)
    assert total <= max(outbox_mib * MIB, slots * config.clients.outbox_max_bytes)
    assert {share.daemon.control_socket for share in shares} == {"off"}


def test_a_launch_arrives_as_it_was_sent() -> None:
    effective = load(flags={"types": ("kept.history_length=5", "kept.history_seconds=60")}, environ={}, file=None)
    launch = Launch(effective, 1, ((PassedListener(3, True, False),), (PassedListener(4, True, False),)), (), "/tmp/x")
    assert unpacked(packed(launch)) == launch


async def test_what_comes_by_the_pipe_and_its_end() -> None:
    ours, theirs = map(WorkerPipe, socket.socketpair())
    ours.open()
    theirs.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.write)
        ours.say({"do": "stand_in", "slot": 2})
        ours.say({"do": "settings", "launch": "x" * 1_000_000})
        assert await theirs.receive() == {"do": "stand_in", "slot": 2}
        assert await theirs.receive() == {"do": "settings", "launch": "x" * 1_000_000}
        nursery.cancel_scope.cancel()
    await ours._stream.send_all(b'{"do": "half')
    ours.say_last({"is": "failed", "why": "a\nb"})
    ours.close()
    assert await theirs.receive() == {"is": "failed", "why": "a\nb"}
    assert await theirs.receive() is None
    theirs.close()


async def test_siblings_answer_each_other_and_wait_for_nobody_who_does_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock  # nothing is waited for in real time
    crew = [Siblings(tmp_path, slot, 4) for slot in range(4)]

    async def figures(slot: int) -> bytes:
        return b"figures of %d" % slot

    async with trio.open_nursery() as nursery:
        for siblings in crew[:2]:
            siblings.answers["/figures"] = lambda slot=siblings.slot: figures(slot)
            await nursery.start(siblings.serve)
        with trio.socket.socket(socket.AF_UNIX) as stuck:
            await stuck.bind(str(tmp_path / "worker-2.sock"))
            stuck.listen()
            assert await crew[3].ask("/figures") == [(0, b"figures of 0"), (1, b"figures of 1")]
        assert await crew[0].ask("/figures") == [(1, b"figures of 1")]
        assert await crew[0].ask("/elsewhere") == []
        assert await Siblings().ask("/figures") == []
        nursery.cancel_scope.cancel()


async def test_the_pause_before_a_replacement_grows_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    started: list[float] = []
    lives = [60.0, *[0.0] * 8, 60.0, 0.0, 0.0]

    class Mortal:
        pid, why, is_serving = 7, "", True
        stands_in_for = frozenset[int]()

        @classmethod
        async def start(cls, launch: Launch) -> Mortal:
            started.append(trio.current_time())
            return cls()

        def say(self, message: object) -> None:
            """Nobody hears it."""

        async def attend(self, on_change: Callable[[], None]) -> int:
            on_change()
            if len(started) == len(lives):
                lifecycle.stop()
                return 0
            await trio.sleep(lives[len(started) - 1])
            return -signal.SIGKILL

    monkeypatch.setattr("broker.workers.supervisor.WorkerProcess", Mortal)
    lifecycle = Lifecycle()
    effective = load(flags={}, environ={}, file=None)
    supervisor = Supervisor(effective, Slots(((), ()), ()), Path("/nowhere"), 1000, lifecycle)
    supervisor.started.set()
    await supervisor.keep(1)
    supervisor.check_end()
    pauses = [round(after - before - life, 3) for before, after, life in zip(started, started[1:], lives, strict=False)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 0.1, 0.2]


async def test_a_daemon_in_which_no_worker_can_serve_ends(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """So that the service manager sees it: the supervisor itself is well."""
    del autojump_clock

    class Stillborn:
        pid, why, is_serving = 7, "this is broker 9", False

        @classmethod
        async def start(cls, launch: Launch) -> Stillborn:
            return cls()

        async def attend(self, on_change: Callable[[], None]) -> int:
            return 1

    monkeypatch.setattr("broker.workers.supervisor.WorkerProcess", Stillborn)
    lifecycle, began_at = Lifecycle(), trio.current_time()
    supervisor = Supervisor(load(flags={}, environ={}, file=None), Slots(((),), ()), Path("/nowhere"), 1000, lifecycle)
    supervisor.started.set()
    await supervisor.keep(0)
    assert lifecycle.stopping.is_set()
    assert 30 <= trio.current_time() - began_at < 36
    with pytest.raises(WorkerError, match=r"no worker serves, and none can be started: .*this is broker 9$"):
        supervisor.check_end()


def test_auto_is_as_many_as_this_process_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert [worker_count("auto"), worker_count("12")] == [3, 12]


def test_a_worker_is_not_told_what_is_meant_for_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []

    async def open_process(command: object, *, env: dict[str, str], **_: object) -> None:
        given.append(env)
        raise OSError

    async def start() -> None:
        with pytest.raises(OSError):
            await WorkerProcess.start(Launch(load(flags={}, environ={}, file=None), 0, ((),), (), ""))

    monkeypatch.setattr("trio.lowlevel.open_process", open_process)
    monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("KEPT", "1")
    trio.run(start)
    assert [{name for name in env if name in ("NOTIFY_SOCKET", "LISTEN_FDS", "KEPT")} for env in given] == [{"KEPT"}]
