"""The control socket: a unix socket by which this machine's commands, and the next daemon, talk to a running one.

A request is one line of JSON, `{"do": "reload"}`; so is each answer. Sockets travel with the line that tells of them
(SCM_RIGHTS). Only the daemon's own user and root are heard (SO_PEERCRED, where the system has it).

Where it is, unless `daemon.control_socket` says: in the first of $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR and `broker-UID`
under the folder for temporary files that is ours and that nobody else can write to; named after the first address.

Laws: a path is only taken while the folder is locked (flock), and only where nobody answers: two daemons do not
steal from each other, and what a killed one left is replaced. A file that is not ours by its inode is not removed.
Bounds: `_PEERS_MAX` at once, `_LINE_MAX_BYTES` a line, `_REQUEST_SECONDS` to ask; each verb bounds its own time.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import struct
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
import trio
from attrs import Factory, define, field

from broker.errors import ControlError
from broker.outbox import close_socket

_LINE_MAX_BYTES = 4 * 1024 * 1024
_RECEIVE_BYTES = 64 * 1024
_FDS_MAX = 8
_REQUEST_SECONDS = 5.0
_WRITE_SECONDS = 5.0
_LOCK_SECONDS = 2.0
_PEERS_MAX = 16
_BACKLOG = 16
# sun_path holds 104 bytes on macOS.
_NAME_MAX_BYTES = 40
_PATH_MAX_BYTES = 103

log = structlog.get_logger(__name__)

Verb = Callable[["ControlWire", Mapping[str, Any]], Awaitable[None]]
"""Answers one request."""


def control_path(address: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the control socket of a daemon is whose first address is `address`. The folder is there then.

    Raises:
        ControlError: no folder will do; it says why none.
    """
    name = f"{quote(address, safe='[]:')}.sock"
    if len(name) > _NAME_MAX_BYTES:
        name = f"{sha256(address.encode()).hexdigest()[:16]}.sock"
    complaints: list[str] = []
    for folder, is_ours_alone in _folders(environ):
        complaint = _complaint_about(folder, is_ours_alone)
        if complaint is None:
            return folder / name
        complaints.append(f"{folder} {complaint}")
    raise ControlError(
        f"there is no folder for the control socket: {'; '.join(complaints)}. "
        "Name a path with --daemon-control-socket, in a folder of this user"
    )


def _folders(environ: Mapping[str, str]) -> list[tuple[Path, bool]]:
    """Where it may be, and whether the folder is only for us, and made where it is missing."""
    found: list[tuple[Path, bool]] = []
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        text = environ.get(name, "").partition(":")[0]
        if text.startswith("/"):
            found.append((Path(text), False))
    return [*found, (Path(tempfile.gettempdir()) / f"broker-{os.getuid()}", True)]


def _complaint_about(folder: Path, is_ours_alone: bool) -> str | None:
    """Why a folder will not do; None where it will."""
    try:
        if is_ours_alone:
            try:
                folder.mkdir(0o700)
            except FileExistsError:
                pass
        found = os.lstat(folder)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder"
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if found.st_mode & (0o077 if is_ours_alone else 0o022):
        return "can be written to by others" if found.st_mode & 0o022 else "can be read by others"
    if len(os.fsencode(folder)) + 1 + _NAME_MAX_BYTES > _PATH_MAX_BYTES:
        return "has too long a name for a socket in it"
    return None


@define(eq=False)
class ControlWire:
    """One conversation. Owns the socket, and every file descriptor that has come and was not taken."""

    _socket: socket.socket
    _buffer: bytearray = Factory(bytearray)
    _fds: deque[int] = Factory(deque)

    @classmethod
    async def open(cls, path: Path) -> ControlWire | None:
        """Call whoever listens at a path; None where nobody does.

        Raises:
            ControlError: it cannot be called.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise ControlError(f"cannot connect to the control socket {path}: {error.strerror or error}") from error
        return cls(sock)

    @property
    def peer(self) -> tuple[int, int] | None:
        """The process and the user at the other end; None where the system does not say."""
        if not hasattr(socket, "SO_PEERCRED"):
            return None
        pid, uid, _ = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return pid, uid

    async def send(self, message: Mapping[str, Any], passed: socket.socket | None = None) -> None:
        """Send one line, and a socket with it.

        Raises:
            ControlError: nobody takes it.
        """
        data = memoryview(json.dumps(message).encode() + b"\n")
        with trio.move_on_after(_WRITE_SECONDS):
            while data:
                try:
                    if passed is not None:
                        size, passed = socket.send_fds(self._socket, [data], [passed.fileno()]), None
                    else:
                        size = self._socket.send(data)
                    data = data[size:]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                except OSError as error:
                    raise ControlError(f"the other end of the control socket has left: {error.strerror}") from error
            return
        raise ControlError(f"the other end of the control socket reads nothing for {_WRITE_SECONDS:g} s")

    async def receive(self) -> Mapping[str, Any] | None:
        """The next line; None at the end. The caller bounds the wait.

        Raises:
            ControlError: it is no line of JSON.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _RECEIVE_BYTES, _FDS_MAX)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except OSError:
                data, fds = b"", []
            for fd in fds:
                os.set_inheritable(fd, False)
            self._fds.extend(fds)
            if len(self._fds) > _FDS_MAX:
                raise ControlError("too many descriptors came over the control socket")
            self._buffer += data
            if not data:
                if self._buffer:
                    raise ControlError("the control socket was closed within a line")
                return None
            if len(self._buffer) > _LINE_MAX_BYTES:
                raise ControlError("a line on the control socket is too long")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ControlError("a line on the control socket is no JSON object")
        return message

    def take_socket(self) -> socket.socket:
        """The oldest socket that has come and was not taken; the caller's from here on.

        Raises:
            ControlError: none has, or it is something else.
        """
        if not self._fds:
            raise ControlError("a socket was to come over the control socket, and did not")
        try:
            found = socket.socket(fileno=self._fds[0])
        except OSError as error:
            raise ControlError("what came over the control socket is no socket") from error
        self._fds.popleft()
        return found

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())
        close_socket(self._socket)


@define(eq=False)
class ControlSocket:
    """The listening end. `close` removes its file."""

    path: Path
    _socket: socket.socket
    _inode: int
    _peers: int = field(init=False, default=0)

    @classmethod
    async def open(cls, path: Path, *, replaces: bool = False) -> ControlSocket:
        """Listen at a path.

        Args:
            replaces: whoever listens there now has agreed to be replaced.

        Raises:
            ControlError: another daemon answers there, or the folder does not let us.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        own = path.with_name(f".{os.getpid()}")
        try:
            lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                await _lock(lock)
                if not replaces:
                    _check_nobody_answers(path)
                own.unlink(missing_ok=True)
                listener.bind(os.fspath(own))
                own.chmod(0o600)
                listener.listen(_BACKLOG)
                inode = own.stat().st_ino
                own.replace(path)
            finally:
                os.close(lock)
        except OSError as error:
            listener.close()
            raise ControlError(
                f"no control socket at {path}: {error.strerror or error}; "
                "name another with --daemon-control-socket, in a folder that this user may write to"
            ) from error
        except BaseException:
            listener.close()
            raise
        return cls(path, listener, inode)

    async def serve(
        self, verbs: Mapping[str, Verb], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer. Runs until cancelled; the socket is closed then."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self._socket)
                    try:
                        sock, _ = self._socket.accept()
                    except OSError:
                        await trio.sleep(0.05)
                        continue
                    sock.setblocking(False)
                    if self._peers >= _PEERS_MAX:
                        sock.close()
                        continue
                    self._peers += 1
                    nursery.start_soon(self._attend, ControlWire(sock), verbs)
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening. Synchronous; raises nothing."""
        close_socket(self._socket)
        try:
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
            if self.path.parent == Path(tempfile.gettempdir()) / f"broker-{os.getuid()}":
                self.path.parent.rmdir()  # ours; it stays while another daemon has its socket there
        except OSError:
            pass

    async def _attend(self, wire: ControlWire, verbs: Mapping[str, Verb]) -> None:
        """One conversation, inside its fence."""
        try:
            peer = wire.peer
            if peer is not None and peer[1] not in (0, os.getuid()):
                log.warning("another user tried the control socket", uid=peer[1], pid=peer[0])
                return
            request = None
            with trio.move_on_after(_REQUEST_SECONDS):
                request = await wire.receive()
            if request is None:
                return
            verb = verbs.get(str(request.get("do")))
            if verb is None:
                await wire.send({"error": f"there is no such request; there are {', '.join(verbs)}"})
            else:
                await verb(wire, request)
        except* ControlError as group:
            log.debug("a conversation on the control socket broke off", why=str(group.exceptions[0]))
        except* Exception:
            log.exception("a request on the control socket failed")
        finally:
            wire.close()
            self._peers -= 1


async def _lock(folder: int) -> None:
    """Have the folder to ourselves until it is closed; who has it for longer than it takes is stuck."""
    with trio.move_on_after(_LOCK_SECONDS):
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                await trio.sleep(0.01)
    raise OSError(errno.EAGAIN, "its folder is locked by somebody else")


def _check_nobody_answers(path: Path) -> None:
    """Raises OSError where somebody does, or something else than a socket is there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # its queue is full: somebody is there
    raise OSError(errno.EADDRINUSE, "another daemon has it")
