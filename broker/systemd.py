"""systemd: what the service manager is told, and the sockets that it hands over.

Both are agreements over environment variables, which are taken out of the environment as they are read, so that no
child believes that they are meant for it.

* `Notifier` sends datagrams to $NOTIFY_SOCKET: that the daemon is ready, reloads or stops, how it does in one line,
  and that its event loop still turns, and hands on what comes. Without the variable it does nothing. A socket that
  does not take a datagram is logged once and harms nobody; what the daemon's state is goes out again with the next.
* `inherited_sockets` takes the listening sockets of a `.socket` unit, and refuses what cannot be served.

Bounds: a datagram is sent without waiting. One every `_STATUS_SECONDS` at most for the status, `_BEATS` for each
WATCHDOG_USEC. Source: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3), systemd.service(5).
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

import structlog
import trio
from attrs import define, field, frozen

from broker.errors import ListenError

log = structlog.get_logger(__name__)

_STATUS_SECONDS = 5.0
# In a watchdog's time; one may be left out, and one may be late.
_BEATS = 4
_FIRST_DESCRIPTOR = 3
_LISTEN_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_STOPPING_MARGIN_SECONDS = 10.0


@frozen
class Vitals:
    """How the daemon does.

    Args:
        messages: that came from Redis since the start.
        is_waiting: for Redis to come, or to come back.
        is_stuck: whoever hands on what comes from Redis has not come by for longer than anything takes.
    """

    clients: int
    channels: int
    messages: int
    is_waiting: bool
    is_stopping: bool = False
    is_stuck: bool = False

    def told(self, messages_per_second: float = 0.0) -> str:
        """The line that `systemctl status` shows."""
        counts = f"{_counted(self.clients, 'client')}, {_counted(self.channels, 'channel')}"
        if self.is_stopping:
            return f"stopping; {_counted(self.clients, 'client')} left"
        if self.is_stuck:
            return f"stuck: nothing is handed on; {counts}"
        if self.is_waiting:
            return f"waiting for Redis; {counts}"
        return f"{counts}, {_counted(round(messages_per_second), 'message')} a second"


@define(eq=False)
class Notifier:
    """Tells the service manager. Synchronous and never waits, but for `serve`.

    Args:
        address: of the manager's socket, a path or @NAME for an abstract one; empty: nobody is told.
        watchdog_seconds: the loop must be heard of this often; None where nobody listens for that.
    """

    address: str = ""
    watchdog_seconds: float | None = None
    _socket: socket.socket | None = field(init=False, default=None)
    _has_failed: bool = field(init=False, default=False)
    _is_stopping: bool = field(init=False, default=False)
    _owed: list[str] = field(init=False, factory=list)  # what of the state has not been taken yet

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Of what the manager has put into the environment, which does not have it any more then."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if address and not address.startswith(("/", "@")):
            log.warning("systemd is not told: NOTIFY_SOCKET is no path of a unix socket", address=address[:200])
            address = ""
        seconds = None
        if microseconds and address and pid in ("", str(os.getpid())):
            if microseconds.isascii() and microseconds.isdigit() and 0 < int(microseconds) < 2**63:
                seconds = int(microseconds) / 1e6
            else:
                log.warning("no watchdog: WATCHDOG_USEC is no number of microseconds", value=microseconds[:200])
        return cls(address, seconds)

    def ready(self, status: str = "") -> None:
        """The daemon serves: for the first time, or again after a reload."""
        self._tell_state(f"READY=1\nSTATUS={status}" if status else "READY=1")

    @contextmanager
    def reload(self) -> Iterator[None]:
        """The daemon reads its settings again, for as long as the context is open. Nothing is told once it stops."""
        if self._is_stopping:
            yield
            return
        self._tell_state(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self.ready()

    def stopping(self, seconds: float) -> None:
        """The daemon stops, and may take so long for it."""
        self._is_stopping = True
        microseconds = round((seconds + _STOPPING_MARGIN_SECONDS) * 1e6)
        self._tell_state(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={microseconds}\nSTATUS=stopping")

    def main_process(self, pid: int) -> None:
        """Another process is the daemon from now on; it must be in the unit's control group already."""
        self._tell_state(f"MAINPID={pid}")

    def hand_on(self, pid: int) -> None:
        """As `main_process`; and whatever is told here afterwards is not meant for the manager any more."""
        self.main_process(pid)
        self.close()
        self.address = ""

    def environ(self) -> dict[str, str]:
        """What the manager would put into the environment of another process that is to tell it."""
        found = {"NOTIFY_SOCKET": self.address} if self.address else {}
        if self.address and self.watchdog_seconds is not None:
            found["WATCHDOG_USEC"] = str(round(self.watchdog_seconds * 1e6))
        return found

    def status(self, text: str) -> None:
        """One line for people."""
        self._tell(f"STATUS={' '.join(text.split())}")

    async def serve(self, look: Callable[[], Vitals]) -> None:
        """Tell that the loop turns, and how the daemon does. Runs until cancelled, to the end of the drain.

        Args:
            look: how it does; asked every few seconds.
        """
        if not self.address:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_status, look)
            if self.watchdog_seconds is not None:
                nursery.start_soon(self._feed, self.watchdog_seconds / _BEATS, look)

    async def _feed(self, seconds: float, look: Callable[[], Vitals]) -> None:
        while True:
            if not look().is_stuck:  # a loop that turns and delivers nothing is no better than one that is stuck
                self._tell("WATCHDOG=1")
            await trio.sleep(seconds)

    async def _tell_status(self, look: Callable[[], Vitals]) -> None:
        """The status, when it has changed."""
        told, before, at = "", look().messages, trio.current_time()
        while True:
            vitals, now = look(), trio.current_time()
            rate = (vitals.messages - before) / (now - at) if now > at else 0.0
            before, at = vitals.messages, now
            text = vitals.told(rate)
            if text != told:
                told = text
                self.status(text)
            await trio.sleep(_STATUS_SECONDS)

    def _tell_state(self, text: str) -> None:
        self._owed.append(text)
        self._tell("")

    def _tell(self, text: str) -> None:
        """Send what is owed and `text`. What is only news, such as the status, is not kept for later."""
        if not self.address:
            self._owed.clear()
            return
        try:
            opened = self._opened()
            while self._owed:
                opened.send(self._owed[0].encode())
                del self._owed[0]
            if text:
                opened.send(text.encode())
        except OSError as error:
            self._failed(error)

    def _opened(self) -> socket.socket:
        if self._socket is None:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            opened.setblocking(False)
            try:
                opened.connect("\0" + self.address[1:] if self.address.startswith("@") else self.address)
            except OSError:
                opened.close()
                raise
            self._socket = opened
        return self._socket

    def _failed(self, error: OSError) -> None:
        # Connected anew the next time: a manager that has started again has made a socket of that name again.
        self.close()
        del self._owed[:-4]
        if not self._has_failed:
            self._has_failed = True
            log.warning("systemd could not be told; the daemon goes on", address=self.address, why=str(error))

    def close(self) -> None:
        """Close the socket; what is told afterwards opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that a `.socket` unit has opened for this process, in its order; empty for none.

    Ownership: the caller closes them.

    Raises:
        ListenError: one of them cannot be served; the message names it, and what to write into the unit.
    """
    count, pid, names, _ = (environ.pop(name, "") for name in _LISTEN_VARIABLES)
    if not count or pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit() and len(count) < 7):
        raise ListenError(f"LISTEN_FDS is {count[:40]!r}, which is no number of sockets; start the daemon by systemd")
    named = names.split(":")
    taken: list[socket.socket] = []
    try:
        for index in range(int(count)):
            name = named[index] if index < len(named) else ""
            taken.append(_taken(_FIRST_DESCRIPTOR + index, name))
    except ListenError:
        for one in taken:
            one.close()
        raise
    return taken


def _taken(descriptor: int, name: str) -> socket.socket:
    """A descriptor as a socket, once it is known to be one that can be served."""
    where = f"descriptor {descriptor}" + (f" ({name[:200]})" if name else "") + " from systemd"
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        raise ListenError(
            f"{where} is not open; there are fewer sockets than LISTEN_FDS says: start the daemon by its .socket unit"
        ) from None
    if not is_socket:
        raise ListenError(f"{where} is no socket; write ListenStream= into the .socket unit, and nothing else")
    os.set_inheritable(descriptor, False)
    found = socket.socket(fileno=descriptor)
    try:
        _check(found, where)
    except ListenError:
        found.close()
        raise
    if found.family != socket.AF_UNIX:
        # Inherited by every accepted connection, as with sockets of our own.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def _check(found: socket.socket, where: str) -> None:
    if found.type != socket.SOCK_STREAM:
        raise ListenError(f"{where} is no stream socket; write ListenStream= in place of what is in the .socket unit")
    if found.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise ListenError(f"{where} is neither TCP nor unix; write ListenStream= with an address and a port, or a path")
    if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ListenError(f"{where} is a connection and does not listen; write Accept=no into the .socket unit")
    name = found.getsockname()
    # An abstract one comes as bytes, and one without any name is empty.
    if found.family == socket.AF_UNIX and (not isinstance(name, str) or not name):
        raise ListenError(
            f"{where} has no path but the name {name!r}; write ListenStream= with a path, such as /run/broker.sock"
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
