"""The siblings: the other worker processes of one daemon, asked over unix sockets for what only they know.

Each worker listens in a private folder on `worker-<slot>.sock` and answers `GET PATH` for the few paths that it was
given, in HTTP/1.0. So figures of all workers come together also while Redis is away.

Bounds: `_ASK_SECONDS` for asking all of them, `_SERVE_SECONDS` for answering one, `_HEAD_BYTES` of a request,
`_ANSWER_BYTES` of an answer.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog
import trio
from attrs import define, field

log = structlog.get_logger(__name__)

_ASK_SECONDS = 1.0
_SERVE_SECONDS = 2.0
_HEAD_BYTES = 4096
_ANSWER_BYTES = 4 * 1024 * 1024
_READ_BYTES = 64 * 1024
_BACKLOG = 64


@define(eq=False)
class Siblings:
    """The workers of one daemon, as one of them sees them. A daemon of one process has none: `Siblings()`.

    Args:
        folder: where all of them listen; None where there is one process.
        slot: which of them this one is, from 0.
        slots: how many there are.
        answers: what is answered here, by path. Each returns the body.
    """

    folder: Path | None = None
    slot: int = 0
    slots: int = 1
    answers: dict[str, Callable[[], Awaitable[bytes]]] = field(factory=dict)

    async def ask(self, path: str) -> list[tuple[int, bytes]]:
        """What the others answer, with their slots, in order. Who does not answer in time, or not 200, is left out.

        Takes `_ASK_SECONDS` at most.
        """
        found: dict[int, bytes] = {}
        if self.folder is None:
            return []
        with trio.move_on_after(_ASK_SECONDS):
            async with trio.open_nursery() as nursery:
                for slot in range(self.slots):
                    if slot != self.slot:
                        nursery.start_soon(self._ask_one, slot, path, found)
        return sorted(found.items())

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer the others. Runs until cancelled; without a folder it returns at once."""
        if self.folder is None:
            task_status.started()
            return
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            try:
                _make_private(self.folder)  # where somebody has tidied up
                path = _path(self.folder, self.slot)
                # That of the worker that had this slot before, and died.
                path.unlink(missing_ok=True)
                await listener.bind(os.fspath(path))
            except OSError as error:
                log.warning("the other workers cannot ask this one for its figures", why=str(error))
                task_status.started()
                return
            listener.listen(_BACKLOG)
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    try:
                        accepted, _ = await listener.accept()
                    except OSError as error:
                        log.warning("a sibling could not be answered", error=str(error))
                        await trio.sleep(_ASK_SECONDS)
                        continue
                    nursery.start_soon(self._answer, accepted)

    def leave(self) -> None:
        """Take the socket away, and the folder behind the last one where nobody else does: the supervisor is gone."""
        if self.folder is not None:
            with suppress(OSError):
                _path(self.folder, self.slot).unlink(missing_ok=True)
                self.folder.rmdir()

    async def _answer(self, accepted: trio.socket.SocketType) -> None:
        with accepted, trio.move_on_after(_SERVE_SECONDS):
            try:
                head = b""
                while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
                    data = await accepted.recv(_HEAD_BYTES)
                    if not data:
                        return
                    head += data
                words = head.split(b"\r\n", 1)[0].split(b" ")
                answer = self.answers.get(words[1].decode("latin-1")) if len(words) == 3 else None
                body = b"" if answer is None else await answer()
                status = "404 Not Found" if answer is None else "200 OK"
                reply = f"HTTP/1.0 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                await trio.SocketStream(accepted).send_all(reply)
            except (OSError, trio.BrokenResourceError):
                pass
            except Exception:
                # The fence: a figure that cannot be drawn is no reason to end a worker.
                log.exception("a sibling was not answered")

    async def _ask_one(self, slot: int, path: str, found: dict[int, bytes]) -> None:
        assert self.folder is not None
        try:
            async with await trio.open_unix_socket(_path(self.folder, slot)) as stream:
                await stream.send_all(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                raw = bytearray()
                while len(raw) <= _ANSWER_BYTES and (data := await stream.receive_some(_READ_BYTES)):
                    raw += data
        except (OSError, trio.BrokenResourceError):
            return
        head, _, body = bytes(raw).partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.0 200 ") and len(body) == _length(head):
            found[slot] = body


def _make_private(folder: Path) -> None:
    """
    Raises:
        OSError: it is not there and cannot be made, or it is not ours.
    """
    folder.mkdir(0o700, exist_ok=True)
    if os.lstat(folder).st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "the folder belongs to another user", os.fspath(folder))


def _path(folder: Path, slot: int) -> Path:
    return folder / f"worker-{slot}.sock"


def _length(head: bytes) -> int:
    """What an answer says of its size, so that half an answer is none; -1 where it says nothing."""
    headers: Mapping[bytes, bytes] = dict(
        line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
    )
    length = headers.get(b"content-length", b"")
    return int(length) if length.isdigit() else -1
