"""The sockets that the daemon listens on: opened before anything else, so that a taken port is told at once.

Ownership: whoever opens closes; a unix socket's file goes with it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

from attrs import field, frozen

from broker.config.access import ListenTls
from broker.config.address import Address
from broker.config.names import DEFAULT
from broker.config.sections import Listen
from broker.errors import ListenError


@frozen
class Listener:
    """One listening, non-blocking socket.

    Args:
        is_tls: connections begin with a TLS handshake.
        expects_proxy: connections begin with a PROXY protocol header, before anything else.
        is_given: it is of no address of the settings: systemd gave it.
        owns_file: of a unix socket, that its file is removed at the end.
        is_loopback: only this machine can connect, and by TCP; no browser can to a unix socket.
    """

    socket: socket.socket
    is_tls: bool = False
    expects_proxy: bool = False
    is_given: bool = False
    owns_file: bool = False
    is_loopback: bool = field(init=False)

    @is_loopback.default
    def _(self) -> bool:
        return self.socket.family != socket.AF_UNIX and ip_address(self.socket.getsockname()[0]).is_loopback

    @property
    def name(self) -> str:
        """The address that it is bound to, as the settings write it."""
        if self.socket.family == socket.AF_UNIX:
            return f"unix:{self.socket.getsockname()}"
        host, port = self.socket.getsockname()[:2]
        return str(Address(host=host, port=port))


@contextmanager
def open_listeners(
    section: Listen,
    tls: ListenTls,
    origin: str,
    inherited: Sequence[socket.socket] = (),
    *,
    adopted: Collection[str] = (),
    keeps_files: Callable[[], bool] = lambda: False,
) -> Iterator[list[Listener]]:
    """Listen on every address of the section; a name may stand for several.

    Args:
        origin: where the addresses were set, for error messages.
        inherited: sockets that listen already, from systemd or from the daemon before this one. Each serves the
            address that it is bound to, which is not opened then; one of no such address is served too. Where nobody
            has set the addresses, these sockets are all. Owned from here on, but not the files of unix sockets.
        adopted: paths of those unix sockets whose files are owned from here on too.
        keeps_files: asked at the end: whether somebody else has the sockets by then, and the files with them.

    Raises:
        ListenError: an address is taken, not this machine's, or not allowed.
    """
    with ExitStack() as stack:
        listeners = []
        left = list(inherited)
        for one in left:
            one.setblocking(False)
            stack.callback(one.close)
        for text in () if left and origin == DEFAULT else section.addresses:
            address = Address.parse(text)
            given = [one for one in left if _is_bound_to(one, address)]
            left = [one for one in left if one not in given]
            opened = given or _open(address, section.backlog, origin)
            owns_file = bool(address.path) and (not given or address.path in adopted)
            for one in opened:
                if owns_file:
                    stack.callback(_unlink, address.path, _inode(address.path), keeps_files)
                stack.callback(one.close)
                listeners.append(
                    Listener(one, _is_tls(tls, text, address), text in section.proxy_protocol, owns_file=owns_file)
                )
        for one in left:
            address = Address.parse(Listener(one).name)
            listeners.append(Listener(one, _is_tls(tls, str(address), address), is_given=not is_of(section, one)))
        yield listeners


def is_of(section: Listen, opened: socket.socket) -> bool:
    """Whether a socket is bound to one of the section's addresses."""
    return any(_is_bound_to(opened, Address.parse(text)) for text in section.addresses)


def _is_tls(tls: ListenTls, text: str, address: Address) -> bool:
    return bool(tls.certificate) and (text in tls.addresses if tls.addresses else not address.path)


def _is_bound_to(opened: socket.socket, address: Address) -> bool:
    """Whether a socket is what `_open` would have made of an address; port 0 is none in particular."""
    if address.path or opened.family == socket.AF_UNIX:
        return opened.family == socket.AF_UNIX and opened.getsockname() == address.path
    host, port = opened.getsockname()[:2]
    if port != address.port:
        return False
    try:
        found = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return any(where[0] == host for *_, where in found)


def _open(address: Address, backlog: int, origin: str) -> list[socket.socket]:
    try:
        opened = [_open_unix(address.path)] if address.path else _open_tcp(address)
        for listener in opened:
            listener.setblocking(False)
            listener.listen(backlog)
    except (OSError, UnicodeError) as error:  # a name that IDNA refuses, such as a..b, is a UnicodeError
        raise ListenError(f"cannot listen on {address} (set by {origin}): {_advice(error)}") from error
    return opened


def _open_tcp(address: Address) -> list[socket.socket]:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    opened: list[socket.socket] = []
    for family, kind, protocol, _, where in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited by every accepted connection.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
        except OSError:
            for other in [listener, *opened]:
                other.close()
            raise
        opened.append(listener)
    return opened


def _open_unix(path: str) -> socket.socket:
    _remove_if_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_if_stale(path: str) -> None:
    """Remove the socket file of a daemon that was killed; one that answers is in use."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "in use")


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:  # somebody has removed it
        return None


def _unlink(path: str, inode: int | None, is_kept: Callable[[], bool]) -> None:
    try:
        if not is_kept() and os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _advice(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return "no address of that name; write an IP address or a name that this machine resolves"
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it, or choose another address with --listen"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose another with --listen"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not allowed; choose a port above 1023 or a folder that this user may write to, with --listen"
    return f"{error.strerror or error}; choose another address with --listen"
