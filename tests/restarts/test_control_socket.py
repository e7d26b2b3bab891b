"""The control socket, and both sides of a takeover, in one process."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.controlsocket import ControlSocket, ControlWire, control_path
from broker.errors import ControlError, TakeoverError
from broker.takeover import Handed, Offer, take


async def asked(path: Path, line: bytes) -> list[Any]:
    """What a control socket answers."""
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(line)
        data = b"".join([part async for part in stream])
        return [json.loads(each) for each in data.splitlines()]


async def echo(wire: ControlWire, request: Mapping[str, Any]) -> None:
    await wire.send(request)


async def fail(wire: ControlWire, request: Mapping[str, Any]) -> None:
    raise RuntimeError("on purpose")


async def test_requests_and_what_is_none(folder: Path, nursery: trio.Nursery) -> None:
    path = folder / "c.sock"
    control = await ControlSocket.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await nursery.start(control.serve, {"echo": echo, "fail": fail})
    assert await asked(path, b'{"do":"echo","n":1}\n') == [{"do": "echo", "n": 1}]
    assert await asked(path, b'{"do":"other"}\n') == [{"error": "there is no such request; there are echo, fail"}]
    for nothing in (b"{}x\n", b"[]\n", b"\xff\n", b'{"do"'):
        with trio.fail_after(10):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(nothing)
                await stream.send_eof()
                assert [part async for part in stream] == []
    assert await asked(path, b'{"do":"fail"}\n') == []
    assert await asked(path, b'{"do":"echo"}\n') == [{"do": "echo"}]
    nursery.cancel_scope.cancel()


async def test_two_do_not_steal_and_what_a_killed_one_left_is_replaced(folder: Path) -> None:
    path = folder / "c.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    first = await ControlSocket.open(path)
    with pytest.raises(ControlError, match="another daemon has it"):
        await ControlSocket.open(path)
    inode = path.stat().st_ino
    second = await ControlSocket.open(path, replaces=True)
    assert path.stat().st_ino != inode
    first.close()
    assert path.exists()
    second.close()
    assert os.listdir(folder) == []
    path.write_text("mine")
    with pytest.raises(ControlError, match="no socket"):
        await ControlSocket.open(path)
    assert path.read_text() == "mine"


def test_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    own = folder / f"broker-{os.getuid()}"
    assert control_path("127.0.0.1:8000", {}) == own / "127.0.0.1:8000.sock"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert control_path("unix:/run/b.sock", {}) == own / "unix:%2Frun%2Fb.sock.sock"
    assert len(control_path("unix:/" + "x" * 80, {}).name) == 21
    runtime, given = folder / "runtime", folder / "given"
    runtime.mkdir(0o700)
    given.mkdir(0o755)
    both = {"XDG_RUNTIME_DIR": str(runtime), "RUNTIME_DIRECTORY": f"{given}:{folder}"}
    assert control_path("a:1", both).parent == given
    given.chmod(0o777)
    assert control_path("a:1", both).parent == runtime
    runtime.rmdir()
    assert control_path("a:1", both).parent == own
    own.chmod(0o755)
    with pytest.raises(
        ControlError, match=f"{given} can be written to by others; {runtime} cannot be used .*can be read"
    ):
        control_path("a:1", both)
    own.rmdir()
    own.symlink_to(given)
    with pytest.raises(ControlError, match="is no folder"):
        control_path("a:1", {})
    if os.getuid() == 0:
        own.unlink()
        own.mkdir(0o700)
        os.chown(own, 12345, -1)
        with pytest.raises(ControlError, match="belongs to another user"):
            control_path("a:1", {})


class Old:
    """A daemon that can be taken over from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.objection: str | None = None
        self.taken_by: list[int] = []
        self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(300)]  # more than one message can carry

    async def serve(self, nursery: trio.Nursery) -> None:
        handed = [Handed(f"name{index}", sock, index == 1, index == 2) for index, sock in enumerate(self.sockets)]
        offer = Offer(lambda: handed, lambda: self.objection, self.taken_by.append, lambda: {"NOTIFY_SOCKET": "/n"})
        await nursery.start((await ControlSocket.open(self.path)).serve, {"takeover": offer.serve})

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


async def test_both_sides_of_a_takeover(folder: Path, nursery: trio.Nursery) -> None:
    path = folder / "c.sock"
    assert await take(path) is None
    old = Old(path)
    await old.serve(nursery)
    old.objection = "it must not"
    with pytest.raises(TakeoverError, match=r"handed nothing over, and goes on: it must not$"):
        await take(path)
    old.objection = None
    given_up = await take(path)
    assert given_up is not None
    with pytest.raises(TakeoverError, match="another takeover is under way"):
        await take(path)
    given_up.close()
    with trio.fail_after(10):
        while True:
            try:
                taken = await take(path)
                break
            except TakeoverError:
                await trio.sleep(0.01)
    assert taken is not None
    assert old.taken_by == [None]  # who gave up
    assert (taken.pid, taken.environ) == (os.getpid(), {"NOTIFY_SOCKET": "/n"})
    names = [sock.getsockname() for sock in old.sockets]
    assert [one.socket.getsockname() for one in taken.sockets] == names
    assert not any(one.socket.get_inheritable() for one in taken.sockets)
    wanted = taken.take(lambda sock: sock.getsockname() == names[0])
    assert [(one.name, one.is_given, one.owns_file) for one in wanted] == [
        ("name0", False, False),
        ("name1", True, False),
    ]
    left = [one.socket for one in taken.sockets]
    await taken.ready()
    assert old.taken_by == [None, os.getpid()]
    assert {sock.fileno() for sock in left} == {-1}
    for one in wanted:
        one.socket.close()
    old.close()
    nursery.cancel_scope.cancel()


async def test_an_old_process_that_gave_the_new_one_up(folder: Path, nursery: trio.Nursery) -> None:
    """Two that serve would be worse than one that was not replaced."""
    path = folder / "c.sock"
    old = Old(path)
    await old.serve(nursery)
    taken = await take(path)
    assert taken is not None
    taken._wire.close()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()  # as the old one has its end
    taken._wire = ControlWire(ours)
    with pytest.raises(TakeoverError, match=r"has given this one up, and goes on$"):
        await taken.ready()
    taken.close()
    old.close()
    nursery.cancel_scope.cancel()


async def test_an_old_process_that_is_stuck(folder: Path, autojump_clock: trio.testing.MockClock) -> None:
    path = folder / "c.sock"
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen()
        with pytest.raises(TakeoverError, match="does not answer; it goes on"):
            await take(path)
